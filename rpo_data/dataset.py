"""Read a mined contrast dataset: `load(DIR)` gives a `ContrastDataset`, groups with their texts."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from datasets import Dataset, DatasetDict, Features, load_from_disk
from pydantic import ValidationError

from rpo_data.errors import DatasetError, HubError
from rpo_data.hub import download, is_repository
from rpo_data.parquet import read_parquet
from rpo_data.schemas import tables
from rpo_data.schemas.manifest import Manifest

RankBy = Literal["similarity", "hubs", "masked"]


def _mean_similarity(similarity: np.ndarray, weight: np.ndarray, own: np.ndarray) -> float:
    return float(similarity[~own].mean()) if not own.all() else math.nan


def _largest_column(similarity: np.ndarray, weight: np.ndarray, own: np.ndarray) -> float:
    sums = weight.sum(axis=0)
    return float(sums.max() / sums[sums > 0].mean()) if sums.any() else 0.0


def _masked(similarity: np.ndarray, weight: np.ndarray, own: np.ndarray) -> float:
    return float(np.count_nonzero(weight == 0))


FIGURES = {"similarity": _mean_similarity, "hubs": _largest_column, "masked": _masked}
"""What groups are ranked by: functions of similarity, weight and which cells are own cells, shape (wins, losses) each."""


def own_cells(wins: Sequence[Any], losses: Sequence[Any]) -> np.ndarray:
    """Cells of one pair, or in groups of responses of one prompt: where the names of win and loss are equal, (wins, losses).

    >>> own_cells(["a", "b"], ["b"]).tolist()
    [[False], [True]]
    """
    return np.array([[win == loss for loss in losses] for win in wins])


@dataclass(frozen=True)
class ContrastDataset:
    """The tables of a build. Rows of `groups` name rows of `rows` of the same split; texts stay on disk until read.

    `rows` are pairs (`pairs/`), or in unpaired and scored mode responses (`responses/`).

    >>> data = load("demo/dataset")  # doctest: +SKIP
    >>> data.group("train-0-12")["wins"][0]["chosen"]  # doctest: +SKIP
    """

    manifest: Manifest = field(repr=False)
    rows: DatasetDict
    groups: DatasetDict
    neighbors: DatasetDict
    path: Path | None = None

    @property
    def paired(self) -> bool:
        """Whether groups are made of pairs, not of responses."""
        return self.manifest.paired

    @property
    def pairs(self) -> DatasetDict:
        """The pairs by split.

        Raises:
            DatasetError: this dataset holds responses.
        """
        if not self.paired:
            raise DatasetError(
                f"this dataset was built in {self.manifest.mode} mode and holds no pairs: read `responses`"
            )
        return self.rows

    @property
    def responses(self) -> DatasetDict:
        """The responses by split.

        Raises:
            DatasetError: this dataset holds pairs.
        """
        if self.paired:
            raise DatasetError("this dataset was built in paired mode and holds no responses: read `pairs`")
        return self.rows

    @property
    def splits(self) -> list[str]:
        """Names of the splits that hold rows: train, and test where any prompt is held out."""
        return list(self.groups)

    @property
    def views(self) -> int:
        """How many complete assignments of the rows to groups there are."""
        return self.manifest.recipe.views

    def view(self, split: str, view: int) -> Dataset:
        """The groups of one view of a split, in order.

        Raises:
            DatasetError: there is no such split or view.
        """
        if split not in self.groups:
            raise DatasetError(f"there is no split '{split}' in this dataset; it has {', '.join(self.splits)}")
        if not 0 <= view < self.views:
            raise DatasetError(f"there is no view {view} in this dataset; it has {self.views}, counted from 0")
        groups = self.groups[split]
        per_view = len(groups) // self.views
        return groups.select(range(view * per_view, (view + 1) * per_view))

    def ranked_groups(self, split: str = "train", by: RankBy = "similarity") -> list[tuple[str, float]]:
        """Groups of view 0 as (id, figure), the highest figure first.

        Args:
            split: train or test.
            by: `similarity`: mean cosine of a win and a loss that are not one pair (in groups of responses: answer two
                prompts), groups without such a cell being left out where others have one, else nan; `hubs`: the largest
                sum of a column's weights, in units of the group's mean; `masked`: the number of masked cells.

        Raises:
            DatasetError: there is no such split.
        """
        groups = self.view(split, 0).with_format("arrow")[:]
        names = ("group_id", "similarity", "weight", "win_rows", "loss_rows")
        prompts = None if self.paired else self.rows[split].with_format("arrow")["prompt_id"][:].to_pylist()
        ranked = []
        for name, similarity, weight, *sides in zip(*(groups[name].to_pylist() for name in names), strict=True):
            wins, losses = sides if prompts is None else ([prompts[row] for row in side] for side in sides)
            figure = FIGURES[by](np.array(similarity, dtype=float), np.array(weight), own_cells(wins, losses))
            ranked.append((name, figure))
        measured = [group for group in ranked if not math.isnan(group[1])]
        return sorted(measured or ranked, key=lambda group: -group[1])

    def group(self, group_id: str) -> dict[str, Any]:
        """One group with its texts: the row of `groups`, plus `wins` and `losses` (rows of `rows`).

        Raises:
            DatasetError: no group has this id.
        """
        split, _, _ = group_id.partition("-")
        if split in self.groups:
            ids = self.groups[split].with_format("arrow")["group_id"][:].to_pylist()
            if group_id in ids:
                row = self.groups[split][ids.index(group_id)]
                rows = self.rows[split]
                return row | {
                    "wins": [rows[i] for i in row["win_rows"]],
                    "losses": [rows[i] for i in row["loss_rows"]],
                }
        example = self.groups[self.splits[0]][0]["group_id"]
        raise DatasetError(f"there is no group '{group_id}' in this dataset; ids look like '{example}'")


def judgement(response: Mapping[str, Any]) -> str:
    """How a row of `responses` is judged, in a word or two.

    >>> judgement({"label": None, "score": 4.5, "rank": None})
    'score 4.5'
    """
    if response["label"] is not None:
        return "liked" if response["label"] else "disliked"
    return f"score {response['score']:g}" if response["score"] is not None else f"rank {response['rank']}"


def load(path: str | Path, revision: str | None = None) -> ContrastDataset:
    """Open the folder that `rpo-data build` wrote, or a dataset that `rpo-data push` put on the Hugging Face Hub.

    Args:
        path: the folder, or USER/NAME where no folder of this name is here.
        revision: branch, tag or commit on the Hub.

    Raises:
        DatasetError: the folder is not there, is unfinished, was made by a newer version, or its tables do not fit.
        HubError: there is no such dataset on the Hub, or it cannot be reached.
    """
    if is_repository(str(path)) and not Path(path).exists():
        try:
            return _load_published(str(path), revision)
        except HubError as error:  # the name may be a mistyped path
            raise HubError(f"there is no folder {path} here, and {error}") from error
    if revision is not None:
        raise DatasetError(f"{path} is a folder and has no revision '{revision}': revisions are of datasets on the Hub")
    return load_folder(Path(path))


def load_folder(folder: Path) -> ContrastDataset:
    """Open the folder that `rpo-data build` wrote; no name on the Hub is meant.

    Raises:
        DatasetError: as of `load`.
    """
    manifest = read_manifest(folder)
    opened = {name: _open_table(folder, name) for name in _known(manifest)}
    data = _checked(folder, manifest, opened, folder)
    _check_hashes(folder, manifest)
    return data


def _load_published(repository: str, revision: str | None) -> ContrastDataset:
    known = ("pairs", "responses", "groups", "neighbors")
    folder = download(repository, revision, ["manifest.json", *(f"{name}/*.parquet" for name in known)])
    if not (folder / "manifest.json").is_file():
        raise DatasetError(f"{repository} on the Hub is no mined contrast dataset: it holds no manifest.json")
    manifest = read_manifest(folder)
    splits = sorted(manifest.splits, reverse=True)  # train first, as on disk
    opened = {
        name: read_parquet(folder, name, {split: manifest.tables[f"{name}/{split}"] for split in splits}, features)
        for name, features in _known(manifest).items()
    }
    return _checked(Path(repository), manifest, opened, None)


def _known(manifest: Manifest) -> dict[str, Features]:
    """The tables that a dataset has, rows first."""
    rows = {"pairs": tables.PAIRS} if manifest.paired else {"responses": tables.RESPONSES}
    return rows | {"groups": tables.GROUPS, "neighbors": tables.NEIGHBORS}


def _checked(place: Path, manifest: Manifest, opened: dict[str, DatasetDict], folder: Path | None) -> ContrastDataset:
    for name, features in _known(manifest).items():
        _check_features(place / name, opened[name], features)
    _check_counts(place, manifest, opened)
    rows, groups, neighbors = opened.values()
    return ContrastDataset(manifest, rows, groups, neighbors, folder)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a dataset folder.

    Raises:
        DatasetError: there is none, or it is not one this version can read.
    """
    file = folder / "manifest.json"
    if not file.is_file():
        hint = "it is not there" if not folder.exists() else "it holds no manifest.json"
        raise DatasetError(
            f"{folder} is no mined contrast dataset: {hint}; make one with: rpo-data build LOGS --out DIR"
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        version = content["format_version"]
        if version not in range(1, tables.FORMAT_VERSION + 1):
            raise DatasetError(
                f"{file} has format version {version}, this rpo-data reads up to {tables.FORMAT_VERSION}: update rpo-data"
            )
        return Manifest.model_validate(content)
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise DatasetError(f"{file} is damaged ({type(error).__name__}): build the dataset again") from error


def _open_table(folder: Path, name: str) -> DatasetDict:
    try:
        opened = load_from_disk(str(folder / name))
    except Exception as error:  # datasets raises many kinds here, down to pyarrow's own
        raise DatasetError(f"{folder / name} cannot be opened ({error}): build the dataset again") from error
    if not isinstance(opened, DatasetDict):
        raise DatasetError(f"{folder / name} holds one split where a DatasetDict is needed: build the dataset again")
    return opened


def _check_features(path: Path, table: DatasetDict, features: Features) -> None:
    for split, rows in table.items():
        if rows.features != features:
            wrong = {k for k in {*features, *rows.features} if features.get(k) != rows.features.get(k)}
            if wrong - tables.SINCE_VERSION_2:
                raise DatasetError(
                    f"{path}/{split}: column '{min(wrong)}' is not as the format has it: build the dataset again"
                )


def _check_counts(folder: Path, manifest: Manifest, opened: dict[str, DatasetDict]) -> None:
    for split, info in manifest.splits.items():
        rows_of = "pairs" if manifest.paired else "responses"
        wanted = {rows_of: info.rows, "groups": info.groups * manifest.recipe.views, "neighbors": info.prompts}
        for name, rows in wanted.items():
            found = len(opened[name][split]) if split in opened[name] else 0
            if found != rows:
                raise DatasetError(
                    f"{folder / name}/{split} has {found} rows where the manifest says {rows}: build the dataset again"
                )


def _check_hashes(folder: Path, manifest: Manifest) -> None:
    """Published tables carry their hash in each file, which `read_parquet` compares; these have it in state.json."""
    for name in _known(manifest):
        for split in manifest.splits:
            _check_hash(folder, manifest, name, split)


def _check_hash(folder: Path, manifest: Manifest, name: str, split: str) -> None:
    state = json.loads((folder / name / split / "state.json").read_text(encoding="utf-8"))
    if state["_fingerprint"] != manifest.tables[f"{name}/{split}"]:
        raise DatasetError(
            f"{folder / name}/{split} is not the table that the manifest names, it is from another build: "
            "build the dataset again"
        )


def load_vectors(data: ContrastDataset) -> DatasetDict | None:
    """The vectors of a dataset by split, in the order of `neighbors`; None where it holds none.

    Raises:
        DatasetError: they are damaged, or of another build.
    """
    if data.path is None or not (data.path / "vectors").is_dir():
        return None
    opened = _open_table(data.path, "vectors")
    for split in data.manifest.splits:
        if split not in opened:
            raise DatasetError(f"{data.path / 'vectors'} has no split '{split}': build the dataset again")
        _check_hash(data.path, data.manifest, "vectors", split)
    return opened
