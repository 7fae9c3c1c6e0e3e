"""A map of prompts: whole groups of an even sample, laid out by PCA of their embeddings, with topics named by their words."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from rpo_data.dataset import ContrastDataset, load_vectors
from rpo_data.page.cells import GroupCells
from rpo_data.page.rows import dialogue, one_line, opening
from rpo_data.row_table import take_rows

POINTS = 2000
"""Prompts on the map, at most (the last group may add a few)."""
PAIRS = 20_000
"""Pairs of rows drawn for the cosines of random prompts, at most."""
TOPICS = 8
TEXT = 140
"""Characters of a prompt that are shown."""
DIALOGUE = 4000
"""Characters of a dialogue whose words are looked at."""

_WORD = re.compile(r"[^\W\d_]{3,}")
_ROUNDS = 30
_TELLING = 2  # a word that names a topic is at least so many times as frequent there as everywhere,
_ELSEWHERE = (
    0.05  # and stands in at most this share of the other topics' texts: a language's small words are everywhere
)


def vectors_of(data: ContrastDataset, prompt_ids: Sequence[str]) -> np.ndarray | None:
    """Unit vectors of these train prompts, (prompts, dimension), float32; None where the dataset holds no vectors."""
    vectors = load_vectors(data)
    if vectors is None:
        return None
    table = vectors["train"].data.table
    known = pl.DataFrame({"prompt_id": pl.Series(table["prompt_id"])}).with_row_index("row")
    rows = pl.DataFrame({"prompt_id": prompt_ids}, schema={"prompt_id": pl.String}).join(
        known, on="prompt_id", how="left", maintain_order="left"
    )
    taken = take_rows(table.select(["vector"]), rows["row"].to_numpy().astype(np.int64))["vector"].combine_chunks()
    return taken.flatten().to_numpy().reshape(len(prompt_ids), -1)


def random_cosines(data: ContrastDataset) -> np.ndarray | None:
    """Cosines of random pairs of train rows that could stand in one group, float64; None without vectors."""
    rows = data.rows["train"].data.table.select(["prompt_id", "language"])
    drawn = np.random.default_rng(0).integers(0, len(rows), size=(2, min(PAIRS, 20 * len(rows))))
    pairs = [pl.DataFrame(pl.from_arrow(take_rows(rows, side))) for side in drawn[:, drawn[0] != drawn[1]]]
    if not data.manifest.recipe.mix_languages:
        alike = pairs[0]["language"].eq_missing(pairs[1]["language"])
        pairs = [side.filter(alike) for side in pairs]
    vectors = vectors_of(data, pl.concat(pairs)["prompt_id"].to_list()) if len(pairs[0]) else None
    if vectors is None:
        return None
    one, other = np.split(vectors.astype(np.float64), 2)
    return np.einsum("rd,rd->r", one, other)


class PromptMap(NamedTuple):
    """The prompts on the map.

    points  one row for each: `x`, `y`, `topic` (its most telling words), `group`, `cosine` (mean of its group) and `text`
    shown   share of the variance that x and y hold
    topics  one row for each topic: `topic`, `prompts`, mean `cosine` of their groups, and the prompt nearest to its centre,
            with its first user turn as `opening` and its last one as `text`
    """

    points: pl.DataFrame
    shown: float
    topics: list[dict[str, Any]]


def map_points(data: ContrastDataset, groups: GroupCells, figures: pl.DataFrame) -> PromptMap | None:
    """Lay out a sample of the prompts, with the groups of view 0; None without vectors, or with fewer than 3 prompts.

    Args:
        data: the dataset.
        groups: of its train split.
        figures: `group_figures` of these.
    """
    members = _sample(groups, len(groups.ids) // data.views)
    table = data.rows["train"].data.table.select(["prompt_id", "prompt"])
    rows = take_rows(table, members["row"].to_numpy())
    prompts = rows["prompt"].to_pylist()
    frame = members.with_columns(
        prompt_id=pl.Series(rows["prompt_id"].to_pylist()),
        text=pl.Series([one_line(prompt, TEXT) for prompt in prompts]),
        opening=pl.Series([opening(prompt, TEXT) for prompt in prompts]),
        dialogue=pl.Series([dialogue(prompt, DIALOGUE) for prompt in prompts]),
    ).unique("prompt_id", keep="first", maintain_order=True)
    vectors = vectors_of(data, frame["prompt_id"].to_list())
    if vectors is None or len(frame) < 3:
        return None
    unit = vectors.astype(np.float64)
    centres = topic_centres(unit, TOPICS)
    topics = topics_of(unit, centres)
    places, shown = project(unit, topics)
    names = name_topics(frame["dialogue"].to_list(), topics)
    frame = frame.join(figures.select("group", cosine=pl.col("similarity").round(3)), on="group", maintain_order="left")
    points = frame.select(
        x=pl.Series(places[:, 0].round(3)),
        y=pl.Series(places[:, 1].round(3)),
        topic=pl.Series([names[topic] for topic in topics.tolist()]),
        group="group",
        cosine="cosine",
        text="text",
    )
    central = frame.select("text", "opening", near=pl.Series((unit * centres[topics]).sum(axis=1)))
    return PromptMap(points, shown, topic_rows(pl.concat([points.drop("text"), central], how="horizontal")))


def project(vectors: np.ndarray, topics: np.ndarray) -> tuple[np.ndarray, float]:
    """The two directions in which the topics' means differ most, (rows, 2), and their share of the variance.

    Principal components of the means, each counted as often as the topic has rows. Which way an axis points is set by its
    skew, so that it does not hang on the linear algebra library.
    """
    centred = vectors - vectors.mean(axis=0)
    means = np.zeros((int(topics.max()) + 1, vectors.shape[1]))
    np.add.at(means, topics, centred)
    means /= np.sqrt(np.maximum(np.bincount(topics), 1))[:, None]
    axes = np.linalg.eigh(means.T @ means)[1][:, [-1, -2]]
    places = centred @ axes
    places *= np.where((places**3).sum(axis=0) < 0, -1.0, 1.0)
    return places, float((places**2).sum() / max(float((centred**2).sum()), 1e-300))


def topic_centres(vectors: np.ndarray, count: int) -> np.ndarray:
    """Centres of topics by spherical k-means, each first one far from those before; the largest topic first.

    Args:
        vectors: unit vectors, shape (rows, dimension), float64.
        count: topics, at most.

    Returns:
        Unit vectors, shape (topics, dimension); a row's topic is the centre with the highest dot product.
    """
    first = [vectors[int((vectors @ vectors.mean(axis=0)).argmax())]]
    while len(first) < min(count, len(vectors)):
        first.append(vectors[int((vectors @ np.array(first).T).max(axis=1).argmin())])
    centres = np.array(first)
    for _ in range(_ROUNDS):
        topics = topics_of(vectors, centres)
        sums = np.zeros_like(centres)
        np.add.at(sums, topics, vectors)
        length = np.linalg.norm(sums, axis=1, keepdims=True)
        moved = np.where(length > 0, sums / np.where(length > 0, length, 1.0), centres)
        if np.array_equal(moved, centres):
            break
        centres = moved
    sizes = np.bincount(topics_of(vectors, centres), minlength=len(centres))
    return centres[np.argsort(-sizes, kind="stable")]


def topics_of(vectors: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Number of the topic of each row, shape (rows,)."""
    return (vectors @ centres.T).argmax(axis=1)


def name_topics(texts: Sequence[str], topics: np.ndarray) -> dict[int, str]:
    """A name for each topic: its number from 1 and the three words that tell it best from the others.

    A word counts by its share of the relative entropy between the topic's texts and all texts; see `_TELLING`, `_ELSEWHERE`.
    """
    words = [set(_WORD.findall(text.lower())) for text in texts]
    everywhere = Counter(word for text in words for word in text)
    names = {}
    for topic in np.unique(topics).tolist():
        inside = [words[place] for place in np.flatnonzero(topics == topic)]
        here = Counter(word for text in inside for word in text)
        told = {}
        for word, count in here.items():
            telling = count * len(texts) / (len(inside) * everywhere[word])
            if telling >= _TELLING and everywhere[word] - count <= _ELSEWHERE * (len(texts) - len(inside)):
                told[word] = count * math.log(telling)
        best = sorted(told, key=lambda word: (-told[word], word))[:3]
        names[topic] = f"{topic + 1}: {', '.join(best)}" if best else f"{topic + 1}"
    return names


def topic_rows(points: pl.DataFrame) -> list[dict[str, Any]]:
    """A row for each topic, as `PromptMap.topics` has it.

    Args:
        points: `topic`, `cosine`, `text`, `opening` and `near`, the cosine of a prompt and the centre of its topic.
    """
    nearest = pl.col("text", "opening").get(pl.col("near").arg_max())
    told = points.group_by("topic").agg(nearest, prompts=pl.len(), cosine=pl.col("cosine").mean())
    return told.sort(pl.col("topic").str.extract(r"^(\d+)").cast(pl.Int64)).to_dicts()


def _sample(groups: GroupCells, count: int) -> pl.DataFrame:
    """The rows of whole groups, evenly spaced among the first `count`: `row` and its `group`; of responses both sides."""
    ends = np.cumsum(groups.cells.shapes, axis=0)
    rows = int(ends[count - 1, 0])  # about as many prompts as there are wins
    chosen = np.unique(np.linspace(0, count - 1, max(1, min(count, count * POINTS // rows))).round().astype(int))
    parts = []
    for number in chosen.tolist():
        (first_win, first_loss), (win, loss) = ends[number] - groups.cells.shapes[number], ends[number]
        members = np.unique(np.concatenate([groups.wins[first_win:win], groups.losses[first_loss:loss]]))
        parts.append(pl.DataFrame({"row": members, "group": [groups.ids[number]] * len(members)}))
    return pl.concat(parts)
