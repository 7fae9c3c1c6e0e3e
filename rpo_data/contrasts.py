"""The cells of a group: similarity of win and loss, and which cells are masked because the data says otherwise.

A cell assumes that win i is better than loss j. It is masked
same_response   where both sides are the same text,
judged_other    where the two responses are judged the other way somewhere in the logs, or this judgement is in a cycle,
judged_equal    where they are judged a tie, and this way nowhere,
scored_other    where both have a score from one source and annotator, same prompt, and the loss's is the higher.

Judgements speak of the responses to one prompt and, where near-identical prompts are given, to those too. A pair's own
cell, on the diagonal, is masked only as judged_other: conflicts.py leaves such pairs in where it keeps and masks.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import polars as pl

from rpo_data.conflicts import edges_in_cycles

MASK_REASONS = ("same_response", "judged_other", "judged_equal", "scored_other")

_EDGE = ["prompt_id", "chosen_id", "rejected_id"]


class Known(Protocol):
    """What the logs say against cells: of pairs (`Judgements`), or of responses (response_masks.py).

    reasons     why a cell is masked, in the order of `masks`
    maskable    the row is a side of a cell that may be masked at all, shape (rows,)
    """

    @property
    def reasons(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def maskable(self) -> np.ndarray: ...  # noqa: D102

    def masks(self, wins: np.ndarray, losses: np.ndarray) -> dict[str, np.ndarray]:
        """For each reason the cells masked for it, shape (..., wins, losses); a cell counts under one reason."""

    def own(self, wins: np.ndarray, losses: np.ndarray) -> np.ndarray:
        """Cells that are one pair, or, where there are no pairs, of one prompt, shape (..., wins, losses)."""


@dataclass(frozen=True)
class Judgements:
    """What the logs say of each row, as numbers to compare.

    prompt, chosen, rejected, judge, score_chosen, score_rejected   shape (rows,)
    win, loss       number of the chosen and of the rejected response as an answer to its prompt, shape (rows,)
    other, equal    rising codes `win * answers + loss` of the cells to mask as judged_other and judged_equal
    contradicted    the row's own cell is masked, shape (rows,)
    suspect         a cell of this row may be masked by `other` or `equal`, shape (rows,)
    maskable        the row is a side of a cell that may be masked at all, shape (rows,)
    """

    prompt: np.ndarray
    chosen: np.ndarray
    rejected: np.ndarray
    score_chosen: np.ndarray
    score_rejected: np.ndarray
    judge: np.ndarray
    win: np.ndarray
    loss: np.ndarray
    answers: int
    other: np.ndarray
    equal: np.ndarray
    contradicted: np.ndarray
    suspect: np.ndarray
    maskable: np.ndarray
    reasons: tuple[str, ...] = MASK_REASONS

    def masks(self, wins: np.ndarray, losses: np.ndarray) -> dict[str, np.ndarray]:
        """As `group_masks` has it."""
        return group_masks(wins, losses, self)

    def own(self, wins: np.ndarray, losses: np.ndarray) -> np.ndarray:
        """Cells of one pair."""
        return wins[..., :, None] == losses[..., None, :]


def judgements(rows: pl.DataFrame, ties: pl.DataFrame | None = None, near: pl.DataFrame | None = None) -> Judgements:
    """Collect them.

    Args:
        rows: pairs with the columns of `rows.identities`, in its order; the row numbers of groups are theirs.
        ties: rows judged equal, with the same ids.
        near: near-identical prompts in both orders, prompt_id and near_id (`conflicts.near_prompts`).
    """
    ties = rows.clear() if ties is None else ties
    told = pl.concat([rows.select(_EDGE), ties.select(_EDGE)])
    prompt, response, answer = _numbers(told)
    answers = int(answer.max(initial=-1)) + 1
    win, loss = answer[0, : len(rows)], answer[1, : len(rows)]
    own = win * answers + loss
    other = [loss * answers + win, own[_in_cycle(rows)]]
    if near is not None:
        edges = pl.DataFrame({"prompt": prompt, "chosen": response[0], "rejected": response[1]})
        numbered = pl.DataFrame({"id": told["prompt_id"], "prompt": prompt}).unique()
        known = pl.DataFrame({"prompt": np.tile(prompt, 2), "response": response.ravel(), "answer": answer.ravel()})
        other += _near_other(edges[: len(rows)].unique(), near, numbered, known.unique(), answers)
    tie_one, tie_two = answer[:, len(rows) :]
    equal = np.concatenate([tie_one * answers + tie_two, tie_two * answers + tie_one])
    masked_other, masked_equal = (_possible(codes, win, loss, answers) for codes in (np.concatenate(other), equal))
    masked_equal = masked_equal[~among(masked_equal, np.sort(own))]
    masked = np.concatenate([masked_other, masked_equal])
    chosen, rejected = response[:, : len(rows)]
    again = (pl.len().over("prompt_id") > 1) & pl.col("score_chosen").is_not_null()
    maskable = np.isin(win, masked // max(answers, 1)) | np.isin(loss, masked % max(answers, 1))
    maskable |= np.isin(chosen, rejected) | np.isin(rejected, chosen) | rows.select(again).to_series().to_numpy()
    judge = rows.select(pl.struct("source", "annotator").rank("dense")).to_series().to_numpy().astype(np.int64)
    return Judgements(
        prompt[: len(rows)],
        response[0, : len(rows)],
        response[1, : len(rows)],
        rows["score_chosen"].cast(pl.Float64).fill_null(float("nan")).to_numpy(),
        rows["score_rejected"].cast(pl.Float64).fill_null(float("nan")).to_numpy(),
        judge,
        win,
        loss,
        answers,
        masked_other,
        masked_equal,
        contradicted=among(own, masked_other),
        suspect=np.isin(win, masked // max(answers, 1)),
        maskable=maskable,
    )


def _numbers(told: pl.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers of the prompts, (rows,), of the chosen and rejected texts, (2, rows), and of these as answers, (2, rows)."""
    texts = pl.concat([told["chosen_id"], told["rejected_id"]]).rank("dense")
    response = texts.to_numpy().astype(np.int64).reshape(2, len(told))
    prompt = told["prompt_id"].rank("dense").to_numpy().astype(np.int64)
    pairs = prompt * (int(response.max(initial=0)) + 1) + response
    return prompt, response, np.unique(pairs, return_inverse=True)[1].reshape(2, len(told)).astype(np.int64)


def _in_cycle(rows: pl.DataFrame) -> np.ndarray:
    numbered = rows.with_columns(kind=pl.lit("pair")).with_row_index("row")
    found = numbered.join(edges_in_cycles(numbered), on=_EDGE, how="semi")
    return np.sort(found["row"].to_numpy().astype(np.int64))


def _near_other(
    edges: pl.DataFrame, near: pl.DataFrame, numbered: pl.DataFrame, known: pl.DataFrame, answers: int
) -> list[np.ndarray]:
    """Codes of cells with a side at a near-identical prompt of the one where the two responses are judged the other way."""
    shared = known.filter(pl.len().over("response") > 1)["response"].unique().implode()
    edges = edges.filter(pl.col("chosen").is_in(shared) | pl.col("rejected").is_in(shared))
    near = near.join(numbered, left_on="prompt_id", right_on="id")
    near = near.join(numbered.rename({"prompt": "near"}), left_on="near_id", right_on="id").select("prompt", "near")
    beside = edges.join(near, on="prompt")
    for name, at, text in (
        ("better", "prompt", "chosen"),
        ("worse", "prompt", "rejected"),
        ("near_better", "near", "chosen"),
        ("near_worse", "near", "rejected"),
    ):
        there = known.rename({"answer": name})
        beside = beside.join(there, left_on=[at, text], right_on=["prompt", "response"], how="left")
    cells = (("near_worse", "near_better"), ("worse", "near_better"), ("near_worse", "better"))
    found = [beside.select(win=win, loss=loss).drop_nulls() for win, loss in cells]
    return [cell["win"].to_numpy() * answers + cell["loss"].to_numpy() for cell in found]


def _possible(codes: np.ndarray, win: np.ndarray, loss: np.ndarray, answers: int) -> np.ndarray:
    """Codes, rising, of which some row has the win and some row the loss: no group has a cell for the others."""
    is_win, is_loss = np.zeros(answers, dtype=bool), np.zeros(answers, dtype=bool)
    is_win[win], is_loss[loss] = True, True
    wins, losses = np.divmod(codes, max(answers, 1))
    return np.sort(codes[is_win[wins] & is_loss[losses]])


def among(codes: np.ndarray, rising: np.ndarray) -> np.ndarray:
    """Which of these codes stand among the rising ones."""
    if not len(rising):
        return np.zeros(codes.shape, dtype=bool)
    place = np.minimum(np.searchsorted(rising, codes), len(rising) - 1)
    return rising[place] == codes


def group_masks(wins: np.ndarray, losses: np.ndarray, known: Judgements) -> dict[str, np.ndarray]:
    """For each reason the cells masked for it, shape (..., wins, losses); a cell counts under its first reason.

    Args:
        wins: rows whose chosen response stands in each cell, shape (..., wins).
        losses: rows whose rejected response does, shape (..., losses).
        known: what the logs say.
    """
    wins, losses = wins[..., :, None], losses[..., None, :]
    same_response = known.chosen[wins] == known.rejected[losses]
    judged_other = judged_equal = np.zeros(same_response.shape, dtype=bool)
    if known.suspect[wins].any():
        codes = known.win[wins] * known.answers + known.loss[losses]
        judged_other = among(codes, known.other) & ~same_response
        judged_equal = among(codes, known.equal) & ~same_response & ~judged_other
    same_prompt = known.prompt[wins] == known.prompt[losses]
    same_judge = known.judge[wins] == known.judge[losses]
    higher = known.score_rejected[losses] > known.score_chosen[wins]  # NaN: not known, so False
    scored_other = same_prompt & same_judge & higher & ~same_response & ~judged_other & ~judged_equal
    scored_other &= wins != losses
    return dict(zip(MASK_REASONS, (same_response, judged_other, judged_equal, scored_other), strict=True))


def fully_masked(rows: np.ndarray, known: Judgements) -> bool:
    """Whether no cell of these rows counts: as a group they would train nothing."""
    if not known.contradicted[rows].all():
        return False
    some = rows[:: max(1, len(rows) // 64)]  # of a large set a few rows most often show a cell that counts
    return _all_masked(some, known) and (len(some) == len(rows) or _all_masked(rows, known))


def _all_masked(rows: np.ndarray, known: Judgements) -> bool:
    return bool(np.logical_or.reduce(list(group_masks(rows, rows, known).values())).all())
