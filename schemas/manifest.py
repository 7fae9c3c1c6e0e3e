"""The manifest: what a build did, in numbers. No times and no paths, so that equal data gives equal bytes.

Every similarity is the cosine of two prompts' embeddings.
"""

import json

from pydantic import BaseModel, ConfigDict

from rpo_data.schemas.recipe import Mode, Recipe


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceCounts(_Model):
    """What became of one log file.

    records_read = records_used + records_rejected, rows_made = rows_kept + rows_rejected + rows_merged. A record of a
    ranking gives several rows; responses that form a pair are one row, the pair; a pair of which responses are made
    (unpaired and scored mode) is two. `shapes` counts records by shape.
    A stretch that cannot be read at all (the torn end of a gzip, an empty file) counts as one record.
    """

    name: str
    content_hash: str
    shapes: dict[str, int] = {}
    records_read: int
    records_used: int
    records_rejected: int
    rows_made: int
    rows_kept: int
    rows_rejected: int
    rows_merged: int


class EmbedderInfo(_Model):
    """Which model made the vectors."""

    name: str
    content_hash: str
    dimension: int
    max_tokens: int | None
    device: str
    dtype: str


class SearchInfo(_Model):
    """How neighbours were searched among some rows and, where the search is not exact, what share of them was found.

    index            FAISS factory string of what was used
    rows, k          rows searched, neighbours of each
    nlist, nprobe    cells, and cells a row was compared with; 0 for an exact search
    fetch            candidates a row taken from compressed vectors, or from a named index; 0 where vectors are scored at once
    exact            every list is the exact answer
    recall           share of the true neighbours found, of all rows
    interval         95 % interval of it
    sample           rows measured
    recall_hubs      the same for the 1 % of rows that stand in most lists
    recall_isolated  the same for the 1 % of rows whose k-th neighbour is least similar
    """

    index: str
    rows: int
    k: int
    nlist: int = 0
    nprobe: int = 0
    fetch: int = 0
    exact: bool = True
    recall: float = 1.0
    interval: tuple[float, float] = (1.0, 1.0)
    sample: int = 0
    recall_hubs: float = 1.0
    recall_isolated: float = 1.0


class NeighborsInfo(_Model):
    """How the neighbour graph was made. `recall` is the share of true nearest prompts found, the lowest of all searches.

    corpus   the search over all prompts, which finds near-duplicates
    splits   the searches inside each split
    """

    k: int
    index: str
    recall: float
    corpus: SearchInfo | None = None
    splits: dict[str, SearchInfo] = {}


class SplitInfo(_Model):
    """Size of one split: it has pairs (paired mode) or responses. `groups` counts one view."""

    prompts: int
    pairs: int = 0
    responses: int = 0
    groups: int

    @property
    def rows(self) -> int:
        """Pairs or responses, whichever it has."""
        return self.pairs + self.responses


class Distribution(_Model):
    """Many numbers in nine: how many, their mean, and quantiles (p5: 5 % are lower). Six significant digits."""

    count: int
    mean: float
    min: float
    p5: float
    p25: float
    p50: float
    p75: float
    p95: float
    max: float


class Contrasts(_Model):
    """What the cells of a grouping look like; masked cells stand in no distribution, None is one of nothing.

    groups, cells        of all views
    masked_cells         cells that do not count, by reason
    own_similarity       cosine in own cells, where win and loss answer one prompt (paired mode: are one pair)
    cross_similarity     cosine in the other cells
    weight               weights as written; their mean times beta is the beta that cells have on average
    effective_contrasts  of each win: exp(entropy of its weights), the number of losses that it really meets
    own_weight           of each win with an own cell: the share of its weight that lies there (the diagonal)
    column_sums          of each loss: sum of its weights in units of its group's mean, so that 1 is even (sinkhorn: 1)
    hubs                 losses with a column sum above 2: pushed down at least twice as hard as their group's mean
    """

    groups: int
    cells: int
    masked_cells: dict[str, int]
    own_similarity: Distribution | None
    cross_similarity: Distribution | None
    weight: Distribution | None
    effective_contrasts: Distribution | None
    own_weight: Distribution | None
    column_sums: Distribution | None
    hubs: int


class Quality(_Model):
    """How related the prompts of a group are (train split, all views), beside two yardsticks on the same rows.

    mean_similarity        mean cosine of a win and a loss of one group that are not one pair (answer two prompts,
                           outside paired mode), masked or not
    random_similarity      the same for random groups of the same sizes
    nearest_similarity     mean cosine of a row to its group_size - 1 nearest rows: no grouping can reach more;
                           None outside paired mode
    effective_contrasts    mean over wins of exp(entropy of the win's weights)
    random_contrasts       the same for random groups at temperature 0.5 (the paper's)
    cells, masked_cells    all cells of all groups and views, and those that do not count, by reason
    mined, random          distributions: of these groups, and of random ones with the paper's weights (row, 0.5)
    row_fallbacks          groups whose masks allow no sinkhorn weights, so that they have row weights; 0 otherwise
    calibration_groups     groups that temperature auto looked at; None where the temperature was given
    """

    mean_similarity: float | None
    random_similarity: float | None
    nearest_similarity: float | None
    effective_contrasts: float | None
    random_contrasts: float | None
    cells: int
    masked_cells: dict[str, int]
    mined: Contrasts | None = None
    random: Contrasts | None = None
    row_fallbacks: int = 0
    calibration_groups: int | None = None


class Manifest(_Model):
    """Everything a reader must know to trust, repeat or compare a build.

    moved_to_test      prompts that are test only because they belong to a test prompt (near-duplicate, same dialogue)
    previous           content hash of the manifest whose split was kept, if one was
    """

    format_version: int
    rpo_data_version: str
    package_versions: dict[str, str]
    mode: Mode
    recipe: Recipe
    limit: int | None
    sources: list[SourceCounts]
    left_out: dict[str, int]
    embedder: EmbedderInfo
    neighbors: NeighborsInfo
    temperature: float | tuple[float, ...]
    splits: dict[str, SplitInfo]
    moved_to_test: int
    previous: str | None = None
    quality: Quality
    warnings: list[str]
    tables: dict[str, str]

    @property
    def paired(self) -> bool:
        """Whether groups are made of pairs, not of responses."""
        return self.mode == "paired"

    @property
    def what(self) -> str:
        """What the rows of groups are, in the plural."""
        return {"paired": "preference pairs", "unpaired": "liked and disliked responses"}.get(
            self.mode, "scored or ranked responses"
        )

    @property
    def temperatures(self) -> str:
        """The temperature, or those of the views in turn, as text."""
        given = self.temperature if isinstance(self.temperature, tuple) else (self.temperature,)
        return ", ".join(f"{one:g}" for one in given)

    def to_json(self) -> str:
        """Stable text: sorted keys, one trailing newline."""
        return json.dumps(self.model_dump(mode="json"), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
