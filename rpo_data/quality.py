"""How good a grouping is, beside two yardsticks on the same rows: random groups, and no grouping at all."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from rpo_data.contrasts import Cells
from rpo_data.groups import mean_similarity
from rpo_data.schemas.manifest import Quality
from rpo_data.weights import PAPER_TEMPERATURE, mean_effective_contrasts


def nearest_similarity(
    prompt_of_row: np.ndarray, neighbors: np.ndarray, similarity: np.ndarray, others: int
) -> float | None:
    """Mean cosine of a row to its `others` nearest rows (rows of its own prompt first): the bound of any grouping.

    Args:
        prompt_of_row: prompt of each row, shape (rows,), int64.
        neighbors: nearest prompts of each prompt, shape (prompts, k), int64, -1 where there is none.
        similarity: their cosines.
        others: group_size - 1.
    """
    rows_of_prompt = np.bincount(prompt_of_row, minlength=len(neighbors))
    total, count = 0.0, 0
    for prompt in np.flatnonzero(rows_of_prompt):
        present = neighbors[prompt] >= 0
        cosines = np.concatenate(
            [
                np.ones(rows_of_prompt[prompt] - 1),
                np.repeat(similarity[prompt][present], rows_of_prompt[neighbors[prompt][present]]),
            ]
        )[:others]
        total += float(cosines.sum(dtype=np.float64)) * rows_of_prompt[prompt]
        count += len(cosines) * int(rows_of_prompt[prompt])
    return total / count if count else None


def measure(
    vectors: np.ndarray,
    prompt_of_row: np.ndarray,
    views: Sequence[Sequence[np.ndarray]],
    random_groups: Sequence[np.ndarray],
    cells: Sequence[Cells],
    random_cells: Sequence[Cells],
    nearest: float | None,
    temperature: float,
) -> Quality:
    """The quality figures of the manifest; see `Quality` for each one's meaning."""
    masked: Counter[str] = Counter()
    for group in cells:
        masked.update(group.masked)

    def contrasts(of: Sequence[Cells], at: float) -> float | None:
        return _rounded(mean_effective_contrasts([(c.similarity, c.mask) for c in of], at)) if of else None

    return Quality(
        mean_similarity=_rounded(mean_similarity(vectors, prompt_of_row, [g for view in views for g in view])),
        random_similarity=_rounded(mean_similarity(vectors, prompt_of_row, list(random_groups))),
        nearest_similarity=_rounded(nearest),
        effective_contrasts=contrasts(cells, temperature),
        random_contrasts=contrasts(random_cells, PAPER_TEMPERATURE),
        cells=sum(c.mask.size for c in cells),
        masked_cells=dict(sorted(masked.items())),
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
