"""The view that `rpo-data explore` opens: one row for each prompt, with its place, neighbours, group and weights."""

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from datasets import DatasetDict

from rpo_data.dataset import ContrastDataset, load_vectors
from rpo_data.errors import DatasetError
from rpo_data.page.cells import group_figures, read_groups
from rpo_data.page.map import TOPICS, name_topics, project, topic_centres, topics_of
from rpo_data.page.rows import dialogue, excerpt
from rpo_data.row_table import take_rows

FITTED = 5000
"""Prompts that topics are found from, at most: an even sample."""
UMAP_PROMPTS = 100_000
"""Most prompts that UMAP lays out, in some minutes; more are laid out along two axes."""
NEAREST = 15
"""Neighbours that UMAP keeps together."""
_TEXT = 2000  # characters of a text
_BATCH = 10_000


def explore_view(data: ContrastDataset) -> tuple[pa.Table, pa.Table]:
    """The view, and the labels of the map.

    Returns:
        A row for each prompt of all splits, in the order of `neighbors`, with `prompt`, `chosen` and `rejected` (or
        `completion`) as text, `x`, `y`, `topic`, `neighbors` (`ids`, rows of this table, and `distances`, 1 - cosine),
        `split`, `group` of view 0 and its `group_cosine`, `own_weight` (share of the first row's weight in own cells),
        `rows`, `language`, `annotator`, `source`; and for each topic `x`, `y` and `text`.

    Raises:
        DatasetError: the dataset holds no vectors.
    """
    stored = load_vectors(data)
    if stored is None:
        raise DatasetError(f"{data.path} holds no vectors/, which the map needs: build the dataset again")
    starts = np.cumsum([0, *(len(data.neighbors[split]) for split in data.splits)])
    table = pa.concat_tables(_split(data, split, int(start)) for split, start in zip(data.splits, starts, strict=False))
    vectors = _vectors(stored, data.splits)
    sample = np.unique(np.linspace(0, len(vectors) - 1, min(len(vectors), FITTED)).round().astype(np.int64))
    topics = topics_of(vectors, topic_centres(vectors[sample].astype(np.float64), TOPICS).astype(np.float32))
    texts = table["prompt"].take(pa.array(sample)).to_pylist()
    names = name_topics(texts, topics[sample])
    places = _layout(vectors, topics)
    columns = {"x": places[:, 0], "y": places[:, 1], "topic": [names.get(topic, "") for topic in topics.tolist()]}
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values))
    middles = np.array([np.median(places[topics == topic], axis=0) for topic in names])
    return table, pa.table({"x": middles[:, 0], "y": middles[:, 1], "text": list(names.values())})


def _vectors(tables: DatasetDict, splits: list[str]) -> np.ndarray:
    """Vectors of all prompts, split after split, in the order of `neighbors`."""
    parts = [tables[split].data.table["vector"].combine_chunks() for split in splits]
    return np.concatenate([part.flatten().to_numpy().reshape(len(part), -1) for part in parts])


def _split(data: ContrastDataset, split: str, start: int) -> pa.Table:
    """The prompts of a split, without their places."""
    rows, near = data.rows[split].data.table, data.neighbors[split].data.table
    told = _groups(data, split).sort("row")
    first = pl.DataFrame({"prompt_id": pl.Series(rows["prompt_id"])}).with_row_index("row").group_by("prompt_id")
    known = first.agg(pl.col("row").min().cast(pl.Int64), rows=pl.len()).join(told, on="row", how="left")
    wanted = pl.DataFrame({"prompt_id": pl.Series(near["prompt_id"])}).join(
        known, on="prompt_id", how="left", maintain_order="left"
    )
    sides = ["prompt", "chosen", "rejected"] if data.paired else ["prompt", "completion"]
    texts: dict[str, list[str]] = {side: [] for side in sides}
    place = wanted["row"].to_numpy()
    for at in range(0, len(place), _BATCH):
        part = take_rows(rows.select(sides), place[at : at + _BATCH])
        texts["prompt"] += [dialogue(messages, _TEXT) for messages in part["prompt"].to_pylist()]
        for side in sides[1:]:
            texts[side] += [excerpt(messages, _TEXT) for messages in part[side].to_pylist()]
    facts = take_rows(rows.select(["language", "annotator", "source"]), place)
    columns: dict[str, Any] = texts | {name: facts[name] for name in facts.column_names}
    columns |= {name: wanted[name].to_arrow() for name in ("group", "group_cosine", "own_weight", "rows")}
    return pa.table(columns | {"split": [split] * len(wanted), "neighbors": _neighbors(near, start)})


def _groups(data: ContrastDataset, split: str) -> pl.DataFrame:
    """For each row its `group` of view 0, the group's mean cosine, and the share of its weight in own cells as a win."""
    groups = read_groups(data, split)
    count = len(groups.ids) // data.views
    means = group_figures(groups).head(count).select("group", group_cosine=pl.col("similarity").round(4))
    shares = np.zeros(int(groups.cells.shapes[:count, 0].sum()))
    ends = np.cumsum(groups.cells.shapes[:, 0])
    chosen = np.arange(len(groups.ids)) < count
    for numbers, cells in groups.stacks(chosen):
        weight = groups.weight[cells].astype(np.float64)
        total = weight.sum(axis=2)
        own = np.where(groups.cells.own[cells], weight, 0.0).sum(axis=2) / np.where(total > 0, total, 1.0)
        wins = (ends[numbers] - cells.shape[1])[:, None] + np.arange(cells.shape[1])
        shares[wins] = own.round(4)
    frames = []
    for side, width in (("wins", 0), ("losses", 1)):
        sizes = groups.cells.shapes[:count, width]
        rows = getattr(groups, side)[: sizes.sum()]
        own_weight = pl.Series(shares) if side == "wins" else pl.Series([None] * len(rows), dtype=pl.Float64)
        frames.append(
            pl.DataFrame({"row": rows, "group": np.repeat(groups.ids[:count], sizes), "own_weight": own_weight})
        )
    told = pl.concat(frames).unique("row", keep="first", maintain_order=True)
    return told.join(means, on="group", how="left")


def _neighbors(near: pa.Table, start: int) -> pa.Array:
    """The neighbour lists as the map reads them: row numbers of the whole view, and distances."""
    ids, cosines = (near[name].combine_chunks() for name in ("neighbors", "similarity"))
    distances = pc.subtract(pa.scalar(1, pa.float32()), cosines.flatten())
    lists = [
        pa.ListArray.from_arrays(ids.offsets, pc.add(ids.flatten(), start)),
        pa.ListArray.from_arrays(cosines.offsets, distances),
    ]
    return pa.StructArray.from_arrays(lists, names=["ids", "distances"])


def _layout(vectors: np.ndarray, topics: np.ndarray) -> np.ndarray:
    """Places of all prompts, (prompts, 2): by UMAP where there are not too many, else along the axes of the topics."""
    if NEAREST < len(vectors) <= UMAP_PROMPTS:
        from umap import UMAP

        return UMAP(n_neighbors=NEAREST, metric="cosine", random_state=0, n_jobs=1).fit_transform(vectors)
    return project(vectors, topics)[0]
