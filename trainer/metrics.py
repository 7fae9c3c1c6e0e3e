"""Metrics as in TRL, kept as sums, so that means over batches, accumulation steps and ranks are exact.

Rewards are beta * (log pi - log pi_ref), summed over tokens whatever the loss. PAIR_METRICS are means over the true pairs
(own cells that are not masked), each counted once whatever its weight. `rewards/cross_prompt_accuracies` is the share of
cells between different prompts in which the win's reward is higher, and `effective_contrasts` the mean over wins of
exp(entropy of the win's weights): how many losses a win really meets (under `rpo`; no other loss looks at the weights).

One deliberate difference: a tie of rewards counts one half in the accuracies, so that a policy equal to its reference shows
0.5 (chance) and not 0. Two log-ratios tie when they differ by less than a millionth of the log-probs they were taken from,
which is what float32 and the batch a sequence stands in can change.
"""

import torch
from torch import Tensor

from rpo_data.trainer.loss import cell_scales

PAIR_METRICS = (
    "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "logps/chosen", "logps/rejected",
)  # fmt: skip
TOTALS = {
    "own losses": None, "other losses": None, "own cells": None, "other cells": None,
    **dict.fromkeys(PAIR_METRICS, "pairs"), "rewards/cross_prompt_accuracies": "cross cells",
    "pairs": None, "cross cells": None, "effective_contrasts": "wins", "wins": None,
}  # fmt: skip
"""Columns of what `group_totals` gives, and what a metric is a mean over; the first four are weighted by importance."""

_TIE = 1e-6


def group_totals(losses: Tensor, logps: Tensor, batch: dict[str, Tensor], beta: float) -> Tensor:
    """Sums over the cells, pairs and wins of each group of a batch (see `GroupCollator`).

    Args:
        losses: loss of each cell, (C,).
        logps: log-probs of the policy, (S,).
        batch: the batch.
        beta: as in the loss.

    Returns:
        (G, 15), float32, columns as in TOTALS. Sums of such rows may be added.
    """
    win, loss, own, importance = (batch[f"cell_{name}"] for name in ("win", "loss", "own", "importance"))
    is_own, is_cross = own.float(), batch["cell_cross"].float()
    ratios = logps - batch["ref_logps"]
    chosen, rejected = ratios[win], ratios[loss]
    margin = chosen - rejected
    tie = margin.abs() <= _TIE * (logps[win].abs() + logps[loss].abs())
    accuracy = torch.where(tie, 0.5, (margin > 0).float())
    of_pairs = torch.stack([beta * chosen, beta * rejected, beta * margin, accuracy, logps[win], logps[loss]])
    of_own, of_other = importance * is_own, importance * (1 - is_own)
    weighted = torch.stack([losses * of_own, losses * of_other, of_own, of_other])
    by_cell = torch.cat([weighted, is_own * of_pairs, torch.stack([is_cross * accuracy, is_own, is_cross])])
    cells = batch["group_cells"]
    group = torch.repeat_interleave(torch.arange(len(cells), device=own.device), cells)
    sums = torch.zeros(len(cells), len(by_cell), device=own.device).index_add_(0, group, by_cell.T)
    return torch.cat([sums, batch["group_contrasts"]], dim=1)


def mean_loss(totals: Tensor, loss_type: str, diagonal_alpha: float) -> float:
    """The loss over everything that was summed into `totals`, shape (15,); 0 where no cell counts."""
    return float((totals[:2] * cell_scales(totals[2:4], loss_type, diagonal_alpha)).sum())


def mean_metrics(totals: Tensor) -> dict[str, float]:
    """The metrics by name over everything that was summed into `totals`, shape (15,), but for means over nothing."""
    sums = dict(zip(TOTALS, totals.tolist(), strict=True))
    return {name: sums[name] / sums[over] for name, over in TOTALS.items() if over and sums[over]}
