"""The cells of a group: similarity of win and loss, and which cells are masked because the data says otherwise.

A cross-prompt cell assumes that win i is better than loss j. It is masked
same_response   where both sides are the same text,
judged_other    where the same prompt's two responses are judged the other way somewhere in the logs,
scored_other    where both have a score from one source and annotator, same prompt, and the loss's is the higher.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

MASK_REASONS = ("same_response", "judged_other", "scored_other")


@dataclass(frozen=True)
class Judgements:
    """What the logs say of each row, as integers and floats to compare; all shape (rows,)."""

    prompt: np.ndarray
    chosen: np.ndarray
    rejected: np.ndarray
    score_chosen: np.ndarray
    score_rejected: np.ndarray
    judge: np.ndarray
    known: frozenset[tuple[int, int, int]]


def judgements(rows: pl.DataFrame) -> Judgements:
    """Collect them from rows with prompt_id, chosen_id, rejected_id, score_*, source and annotator."""
    both = pl.concat([rows["chosen_id"], rows["rejected_id"]]).rank("dense").to_numpy().astype(np.int64)
    chosen, rejected = both[: len(rows)], both[len(rows) :]
    prompt = rows["prompt_id"].rank("dense").to_numpy().astype(np.int64)
    judge = rows.select(pl.struct("source", "annotator").rank("dense")).to_series().to_numpy().astype(np.int64)
    return Judgements(
        prompt,
        chosen,
        rejected,
        rows["score_chosen"].cast(pl.Float64).fill_null(float("nan")).to_numpy(),
        rows["score_rejected"].cast(pl.Float64).fill_null(float("nan")).to_numpy(),
        judge,
        frozenset(zip(prompt.tolist(), chosen.tolist(), rejected.tolist(), strict=True)),
    )


def group_similarity(vectors: np.ndarray, prompts: np.ndarray) -> np.ndarray:
    """Cosine of each prompt of a group with each, shape (M, M), float32; exactly 1 where the prompt is the same."""
    members = vectors[prompts].astype(np.float64)
    exact = np.einsum("id,jd->ij", members, members)
    same = prompts[:, None] == prompts[None, :]
    return np.where(same, 1.0, np.clip(exact, -1.0, 1.0)).astype(np.float32)


def group_masks(rows: np.ndarray, known: Judgements) -> dict[str, np.ndarray]:
    """For each reason the cells masked for it, shape (M, M), row = win; a cell counts under its first reason.

    The diagonal is never masked: a pair judged both ways is left out before groups are formed.
    """
    prompt, chosen, rejected = known.prompt[rows], known.chosen[rows], known.rejected[rows]
    same_response = chosen[:, None] == rejected[None, :]
    same_prompt = prompt[:, None] == prompt[None, :]
    judged_other = np.zeros_like(same_prompt)
    for i, j in np.argwhere(same_prompt & ~same_response):
        judged_other[i, j] = (int(prompt[i]), int(rejected[j]), int(chosen[i])) in known.known
    same_judge = known.judge[rows][:, None] == known.judge[rows][None, :]
    higher = known.score_rejected[rows][None, :] > known.score_chosen[rows][:, None]  # NaN: not known, so False
    scored_other = same_prompt & same_judge & higher & ~same_response & ~judged_other
    np.fill_diagonal(scored_other, False)
    return dict(zip(MASK_REASONS, (same_response, judged_other, scored_other), strict=True))


@dataclass(frozen=True)
class Cells:
    """The cells of one group: similarity and mask, shape (M, M), row = win, and how many are masked for each reason."""

    similarity: np.ndarray
    mask: np.ndarray
    masked: dict[str, int]


def group_cells(rows: np.ndarray, vectors: np.ndarray, prompt_of_row: np.ndarray, known: Judgements) -> Cells:
    """Similarity and masks of one group of rows."""
    masks = group_masks(rows, known)
    mask = np.logical_or.reduce(list(masks.values()))
    return Cells(
        group_similarity(vectors, prompt_of_row[rows]), mask, {reason: int(m.sum()) for reason, m in masks.items()}
    )
