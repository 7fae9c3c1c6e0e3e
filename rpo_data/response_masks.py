"""The cells of groups of responses: what the logs say against "win i is better than loss j", and who has no counterpart.

same_response    both sides are the same text.
judged_other     the logs order the two responses to one prompt the other way, too: each is liked and disliked, or the loss
                 has the higher score or the better rank elsewhere.
not_comparable   (scored) the two are judged on different scales: another source or annotator, ranks of two records.
not_better       (scored) the win's score does not exceed the loss's, or not by the margin.
"""

from dataclasses import dataclass, replace

import numba
import numpy as np
import polars as pl

from rpo_data.contrasts import Known, among
from rpo_data.nearest import nearest
from rpo_data.schemas.recipe import Recipe

_BLOCK = 256
_TRIES = 256
"""Rows that are looked at for a partner, beyond those of the same text."""
_SLACK = 1e-9
"""0.3 exceeds 0.2 by 0.1, whatever binary fractions make of it."""


@dataclass(frozen=True)
class Labels:
    """What the logs say of each liked or disliked response, shape (rows,) each.

    prompt, text   numbers of prompt and response
    liked          the label
    both_ways      the response is liked and disliked as an answer to its prompt
    """

    prompt: np.ndarray
    text: np.ndarray
    liked: np.ndarray
    both_ways: np.ndarray
    maskable: np.ndarray
    reasons: tuple[str, ...] = ("same_response", "judged_other")

    def masks(self, wins: np.ndarray, losses: np.ndarray) -> dict[str, np.ndarray]:
        """As in `Known`; which of the two rows is the win makes no difference."""
        same = _equal(self.text, wins, losses)
        both = self.both_ways[wins][..., :, None] & self.both_ways[losses][..., None, :]
        return dict(zip(self.reasons, (same, both & self.own(wins, losses) & ~same), strict=True))

    def own(self, wins: np.ndarray, losses: np.ndarray) -> np.ndarray:
        """Cells of one prompt."""
        return _equal(self.prompt, wins, losses)


@dataclass(frozen=True)
class Scores:
    """What the logs say of each scored or ranked response.

    prompt, text        numbers of prompt and response, shape (rows,)
    value               the score, or -rank, shape (rows,)
    scale               values of one scale may be compared, shape (rows,)
    answer              number of the response as an answer to its prompt, shape (rows,)
    other               rising codes `win * answers + loss` of the cells to mask as judged_other
    suspect             a cell of this row may be masked by `other`, shape (rows,)
    absolute, relative  margins: a cell counts where win - loss reaches `absolute` and `relative` * |win|
    """

    prompt: np.ndarray
    text: np.ndarray
    value: np.ndarray
    scale: np.ndarray
    answer: np.ndarray
    answers: int
    other: np.ndarray
    suspect: np.ndarray
    absolute: float
    relative: float
    reasons: tuple[str, ...] = ("same_response", "not_comparable", "not_better", "judged_other")

    @property
    def maskable(self) -> np.ndarray:
        """Every row."""
        return np.ones(len(self.prompt), dtype=bool)

    def masks(self, wins: np.ndarray, losses: np.ndarray) -> dict[str, np.ndarray]:
        """As in `Known`."""
        same, comparable = _equal(self.text, wins, losses), _equal(self.scale, wins, losses)
        win = self.value[wins][..., :, None]
        better = _exceeds(win, self.value[losses][..., None, :], self.absolute, self.relative)
        told = np.zeros(same.shape, dtype=bool)
        if self.suspect[wins].any():
            codes = self.answer[wins][..., :, None] * self.answers + self.answer[losses][..., None, :]
            told = among(codes, self.other) & comparable & better & ~same
        masks = (same, ~comparable & ~same, comparable & ~better & ~same, told)
        return dict(zip(self.reasons, masks, strict=True))

    def own(self, wins: np.ndarray, losses: np.ndarray) -> np.ndarray:
        """Cells of one prompt."""
        return _equal(self.prompt, wins, losses)


def known_labels(rows: pl.DataFrame) -> Labels:
    """Collect them from responses with the columns of `rows.identities`, in its order."""
    prompt, text = (_number(rows, name) for name in ("prompt_id", "chosen_id"))
    liked = rows["label"].to_numpy().astype(bool)
    both = rows.select(pl.col("label").n_unique().over("prompt_id", "chosen_id") > 1).to_series().to_numpy()
    shared = np.intersect1d(text[liked], text[~liked])
    return Labels(prompt, text, liked, both, np.isin(text, shared) | both)


def known_scores(
    rows: pl.DataFrame, absolute_margin: float = 0.0, relative_margin: float = 0.0, mix_scales: bool = False
) -> Scores:
    """Collect them from responses with the columns of `rows.identities`, in its order.

    Args:
        rows: scored or ranked responses; where one has both, its score counts.
        absolute_margin: what the win's value must exceed the loss's by; of ranks: places.
        relative_margin: the same as a share of the win's value, below 1.
        mix_scales: scores of all sources and annotators are on one scale, and so are the ranks of all records.
    """
    scored = pl.col("score").is_not_null()
    place = pl.when(scored).then(pl.lit(None, pl.Int64)).otherwise("source_row")
    found = rows.select(
        value=pl.coalesce("score", -pl.col("rank").cast(pl.Float64)),
        strict=pl.struct("source", "annotator", place.alias("place")).rank("dense").cast(pl.Int64),
        mixed=scored.cast(pl.Int64),
        answer=pl.struct("prompt_id", "chosen_id").rank("dense").cast(pl.Int64) - 1,
        prompt=pl.col("prompt_id").rank("dense").cast(pl.Int64) - 1,
    )
    answer = found["answer"].to_numpy()
    answers = int(answer.max(initial=0)) + 1
    other = _ordered_both_ways(found, answers)
    return Scores(
        prompt=found["prompt"].to_numpy(),
        text=_number(rows, "chosen_id"),
        value=found["value"].to_numpy(),
        scale=found["mixed" if mix_scales else "strict"].to_numpy(),
        answer=answer,
        answers=answers,
        other=other,
        suspect=np.isin(answer, other // answers) | np.isin(answer, other % answers),
        absolute=absolute_margin,
        relative=relative_margin,
    )


def known_responses(rows: pl.DataFrame, recipe: Recipe, mode: str) -> Labels | Scores:
    """What the logs say of the responses of a mode, unpaired or scored."""
    if mode == "unpaired":
        return known_labels(rows)
    return known_scores(rows, recipe.absolute_margin, recipe.relative_margin, recipe.mix_scales)


def no_counterpart(rows: pl.DataFrame, block: np.ndarray, vectors: np.ndarray, recipe: Recipe, mode: str) -> np.ndarray:
    """Rows that no group could contrast with another, or has a place for, shape (rows,), bool.

    Args:
        rows: responses with the columns of `rows.identities`, in its order.
        block: rows of different blocks (split, language) never share a group, shape (rows,).
        vectors: unit vectors of the prompts in order of their ids, shape (prompts, dimension), float32.
        recipe: sizes and margins.
        mode: unpaired or scored.
    """
    known = known_responses(rows, recipe, mode)
    stays = np.arange(len(rows))
    while len(stays):
        some, inside = _of_rows(known, stays), block[stays]
        gone = without_counterpart(some, inside)
        if not gone.any() and isinstance(some, Labels):
            gone = left_over_labels(some, inside, vectors, recipe.group_size, recipe.max_group)
        elif not gone.any():
            assert isinstance(some, Scores)
            gone = left_over_scores(some, inside, vectors, recipe.group_size)
        if not gone.any():
            break
        stays = stays[~gone]
    return ~np.isin(np.arange(len(rows)), stays)


def _of_rows(known: Labels | Scores, rows: np.ndarray) -> Labels | Scores:
    """What is known of some rows."""
    arrays = {name: value for name, value in vars(known).items() if isinstance(value, np.ndarray) and name != "other"}
    parts = {name: value[rows] for name, value in arrays.items()}
    return replace(known, **parts)


def without_counterpart(known: Known, block: np.ndarray) -> np.ndarray:
    """Rows that could be contrasted with no row of their block, shape (rows,), bool.

    Args:
        known: `Labels` or `Scores`.
        block: rows of different blocks never share a group, shape (rows,).
    """
    if isinstance(known, Scores):
        lone, doubtful = ~_reaches(known, block), known.suspect
    else:
        assert isinstance(known, Labels)
        lone, doubtful = np.zeros(len(block), dtype=bool), known.maskable
    for number in np.unique(block):
        inside = np.flatnonzero(block == number)
        sides = [inside] if isinstance(known, Scores) else [inside[known.liked[inside]], inside[~known.liked[inside]]]
        for rows, others in zip(sides, sides[::-1], strict=True):
            if not len(others):
                lone[rows] = True
                continue
            rows = rows[doubtful[rows] & ~lone[rows]]
            few = others[:: max(1, len(others) // 64)]  # of many rows a few most often show a cell that counts
            rows = rows[~_open(known, rows, few)]
            lone[rows] = ~_open(known, rows, others)
    return lone


def left_over_labels(
    known: Labels, block: np.ndarray, vectors: np.ndarray, group_size: int, max_group: int
) -> np.ndarray:
    """Rows for which the groups of their block have no place: one label is so rare that `max_group` is not enough.

    Those stay whose prompt is nearest to one of the rare label; of equally near ones the earlier row. Where nearly all rows
    are one and the same text, rows of the rare label that find none of another text have no place either.

    Args:
        known: the labels.
        block: as above.
        vectors: unit vectors of the prompts by number, shape (prompts, dimension), float32.
        group_size: rows of a group.
        max_group: rows of a group at most.
    """
    over = np.zeros(len(block), dtype=bool)
    partner = partners(known, block)
    for number in np.unique(block):
        inside = np.flatnonzero(block == number)
        rare, common = sorted((inside[known.liked[inside] == label] for label in (True, False)), key=len)
        surplus = len(common) - len(rare) * (max_group - 1)
        if surplus > 0:
            over[_farthest(common, rare, known.prompt, vectors, surplus)] = True
        elif np.count_nonzero(partner[rare] >= 0) < min(len(rare), -(-len(inside) // group_size)):
            over[rare[partner[rare] < 0]] = True
    return over


def left_over_scores(known: Scores, block: np.ndarray, vectors: np.ndarray, group_size: int) -> np.ndarray:
    """Rows for which the groups of their block have no place, since not every group could have a cell that counts.

    So few rows exceed another one there. Those stay whose prompt is nearest to one of a row that has a partner.

    Args:
        known: the scores.
        block: as above.
        vectors: unit vectors of the prompts by number, shape (prompts, dimension), float32.
        group_size: rows of a group.
    """
    over = np.zeros(len(block), dtype=bool)
    partner = partners(known, block)
    for number in np.unique(block):
        inside = np.flatnonzero(block == number)
        matched, rest = inside[partner[inside] >= 0], inside[partner[inside] < 0]
        surplus = len(inside) - len(matched) // 2 * group_size
        if surplus > 0:
            over[_farthest(rest, matched, known.prompt, vectors, min(surplus, len(rest)))] = True
    return over


def partners(known: Labels | Scores, block: np.ndarray) -> np.ndarray:
    """A row for each row to make a cell that counts with, no row for two of them, shape (rows,), int64, -1 for none.

    As many as can be are paired off, but for what equal texts and contradictions forbid.
    """
    none = np.zeros(len(block), dtype=np.int64)
    if isinstance(known, Scores):
        value, scale, doubtful, margins = known.value, known.scale, known.suspect, (known.absolute, known.relative)
    else:
        value, scale, doubtful, margins = known.liked.astype(np.float64), none, known.both_ways, (0.0, 0.0)
    order = np.lexsort((np.arange(len(block)), value, scale, block))
    stretch = np.stack([block[order], scale[order]])
    starts = np.flatnonzero(np.append(True, (stretch[:, 1:] != stretch[:, :-1]).any(axis=0))[: len(order)])
    fields = (array[order] for array in (value, known.text, known.prompt, doubtful))
    found = _match(*fields, np.append(starts, len(order)), *margins)
    partner = none - 1
    partner[order] = np.where(found >= 0, order[found], -1)
    return partner


def _farthest(rows: np.ndarray, others: np.ndarray, prompt: np.ndarray, vectors: np.ndarray, count: int) -> np.ndarray:
    """The `count` rows whose prompt is least like any prompt of the others; all rows are as good where there are none."""
    if not len(others):
        return rows[len(rows) - count :]
    asking, place = np.unique(prompt[rows], return_inverse=True)
    _, cosine = nearest(vectors[asking], np.ascontiguousarray(vectors[np.unique(prompt[others])]), 1)
    return rows[np.argsort(-cosine[place, 0], kind="stable")[len(rows) - count :]]


def _reaches(known: Scores, block: np.ndarray) -> np.ndarray:
    """Rows that exceed, or are exceeded by, another response on their scale and in their block, shape (rows,)."""
    frame = pl.DataFrame({"block": block, "scale": known.scale, "value": known.value, "text": known.text})
    other_text = pl.col("text") != pl.col("text").first()
    ends = {}
    for name, falling in (("low", False), ("high", True)):
        by_value = frame.sort("block", "scale", "value", "text", descending=[False, False, falling, False])
        ends[name] = by_value.group_by("block", "scale").agg(
            pl.col("value").first().alias(name),
            pl.col("text").first().alias(f"{name}_text"),
            pl.col("value").filter(other_text).first().alias(f"{name}_other"),
        )
    joined = frame
    for end in ends.values():
        joined = joined.join(end, on=["block", "scale"], maintain_order="left")
    of = {
        name: joined.select(pl.when(pl.col("text") == pl.col(f"{name}_text")).then(f"{name}_other").otherwise(name))
        .to_series()
        .cast(pl.Float64)
        .fill_null(float("nan"))
        .to_numpy()
        for name in ends
    }
    margins = known.absolute, known.relative
    return _exceeds(known.value, of["low"], *margins) | _exceeds(of["high"], known.value, *margins)


@numba.njit(cache=True)
def _match(
    value: np.ndarray,
    text: np.ndarray,
    prompt: np.ndarray,
    doubtful: np.ndarray,
    bounds: np.ndarray,
    absolute: float,
    relative: float,
) -> np.ndarray:
    """Pair off rows of each stretch, whose values rise: one of the lower half with one of the upper, the place of each.

    Taking both halves from their lowest finds as many as can be where texts differ.
    """
    partner = np.full(len(value), -1, dtype=np.int64)
    for number in range(len(bounds) - 1):
        low, start, end = bounds[number], bounds[number], bounds[number + 1]
        middle = start + (end - start) // 2
        for high in range(start + (end - start + 1) // 2, end):
            while low < middle and partner[low] >= 0:
                low += 1
            for other in range(low, min(low + _TRIES, middle)):
                gap = value[high] - value[other]
                if gap <= 0 or gap < absolute - _SLACK or gap < relative * abs(value[high]) - _SLACK:
                    break
                unsure = prompt[high] == prompt[other] and (doubtful[high] or doubtful[other])
                if partner[other] < 0 and text[high] != text[other] and not unsure:
                    partner[high], partner[other] = other, high
                    break
    return partner


def _exceeds(win: np.ndarray, loss: np.ndarray, absolute: float, relative: float) -> np.ndarray:
    gap = win - loss
    return (gap > 0) & (gap >= absolute - _SLACK) & (gap >= relative * np.abs(win) - _SLACK)


def _ordered_both_ways(found: pl.DataFrame, answers: int) -> np.ndarray:
    """Codes of cells that the scores or ranks of their prompt order the other way; each needs an answer judged twice."""
    twice = pl.len().over("answer") > 1
    some = found.with_columns(twice=twice).filter(pl.col("twice").any().over("prompt"))
    both = some.join(some, on=["prompt", "strict"])
    told = both.filter(
        (pl.col("value") > pl.col("value_right"))
        & (pl.col("answer") != pl.col("answer_right"))
        & (pl.col("twice") | pl.col("twice_right"))
    )
    return np.unique(told["answer_right"].to_numpy() * answers + told["answer"].to_numpy())


def _open(known: Known, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which of the rows have a cell that counts with one of the others, on either side, shape (rows,)."""
    found = np.zeros(len(rows), dtype=bool)
    for at in range(0, len(rows), _BLOCK):
        part = rows[at : at + _BLOCK]
        masked = np.logical_or.reduce(list(known.masks(part, others).values()))
        turned = np.logical_or.reduce(list(known.masks(others, part).values())).T
        found[at : at + _BLOCK] = ~(masked & turned).all(axis=1)
    return found


def _equal(numbers: np.ndarray, wins: np.ndarray, losses: np.ndarray) -> np.ndarray:
    return numbers[wins][..., :, None] == numbers[losses][..., None, :]


def _number(rows: pl.DataFrame, name: str) -> np.ndarray:
    return rows[name].rank("dense").to_numpy().astype(np.int64) - 1
