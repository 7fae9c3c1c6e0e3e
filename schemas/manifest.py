"""The manifest: what a build did, in numbers. No times and no paths, so that equal data gives equal bytes.

Every similarity is the cosine of two prompts' embeddings.
"""

import json

from pydantic import BaseModel, ConfigDict

from rpo_data.schemas.recipe import Recipe


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceCounts(_Model):
    """What became of one log file.

    records_read = records_used + records_rejected, rows_made = rows_kept + rows_rejected + rows_merged. A record of a
    ranking gives several rows; responses that form a pair are one row, the pair. `shapes` counts records by shape.
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


class NeighborsInfo(_Model):
    """How the neighbour graph was made. `recall` is the share of true nearest prompts found (1 where search is exact)."""

    k: int
    index: str
    recall: float


class SplitInfo(_Model):
    """Size of one split. `groups` counts one view."""

    prompts: int
    pairs: int
    groups: int


class Quality(_Model):
    """How related the prompts of a group are (train split, all views), beside two yardsticks on the same rows.

    mean_similarity        mean cosine of two different rows of one group
    random_similarity      the same for random groups of the same sizes
    nearest_similarity     mean cosine of a row to its group_size - 1 nearest rows: no grouping can reach more
    effective_contrasts    mean over wins of exp(entropy of the win's weights)
    random_contrasts       the same for random groups at temperature 0.5 (the paper's)
    cells, masked_cells    all cells of all groups and views, and those that do not count, by reason
    """

    mean_similarity: float | None
    random_similarity: float | None
    nearest_similarity: float | None
    effective_contrasts: float | None
    random_contrasts: float | None
    cells: int
    masked_cells: dict[str, int]


class Manifest(_Model):
    """Everything a reader must know to trust, repeat or compare a build.

    moved_to_test      prompts that are test only because they belong to a test prompt (near-duplicate, same dialogue)
    previous           content hash of the manifest whose split was kept, if one was
    """

    format_version: int
    rpo_data_version: str
    package_versions: dict[str, str]
    mode: str
    recipe: Recipe
    limit: int | None
    sources: list[SourceCounts]
    left_out: dict[str, int]
    embedder: EmbedderInfo
    neighbors: NeighborsInfo
    temperature: float
    splits: dict[str, SplitInfo]
    moved_to_test: int
    previous: str | None = None
    quality: Quality
    warnings: list[str]
    tables: dict[str, str]

    def to_json(self) -> str:
        """Stable text: sorted keys, one trailing newline."""
        return json.dumps(self.model_dump(mode="json"), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
