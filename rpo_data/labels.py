"""How good each response is on one scale: what a listwise loss takes its gains from."""

import numpy as np
from datasets import concatenate_datasets

from rpo_data.dataset import ContrastDataset
from rpo_data.errors import TrainingError


def response_labels(data: ContrastDataset, split: str) -> np.ndarray:
    """How good each response is, in [0, 1]: what `lipo` takes gains from.

    A liked response has 1 and a disliked one 0. A score is put between the lowest (0) and the highest (1) of its source,
    over all splits, and so is a rank where there is no score.

    Returns:
        float64, shape (2, rows): of each row as a win and as a loss, which differ for pairs only.

    Raises:
        TrainingError: a response has no score.
    """
    rows = concatenate_datasets([data.rows[name] for name in data.splits])
    columns = {"paired": ("score_chosen", "score_rejected"), "unpaired": ("label",), "scored": ("score", "rank")}
    values = np.array([rows[name][:] for name in columns[data.manifest.mode]], dtype=np.float64)  # null is NaN
    scale = np.unique(rows["source"][:], return_inverse=True)[1]
    if data.manifest.mode == "scored":
        ranked = np.isnan(values[0])
        values, scale = np.where(ranked, -values[1], values[0])[None], 2 * scale + ranked
    missing = int(np.isnan(values).any(axis=0).sum())
    if missing:
        raise TrainingError(
            f"loss_type 'lipo' needs the score of every response, and {missing:,} of {len(rows):,} rows have none: use logs "
            "with scores, or another loss"
        )
    if data.manifest.mode != "unpaired":
        for kind in np.unique(scale):
            of_kind = values[:, scale == kind]
            values[:, scale == kind] = (of_kind - of_kind.min()) / (np.ptp(of_kind) or 1.0)
    start = sum(len(data.rows[name]) for name in data.splits[: data.splits.index(split)])
    return values[[0, -1], start : start + len(data.rows[split])]
