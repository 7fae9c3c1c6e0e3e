"""Metrics as in TRL, kept as sums, so that means over batches, accumulation steps and ranks are exact.

Rewards are beta * (log pi - log pi_ref) of the true pairs (own cells that are not masked). One deliberate difference: a
tie of rewards counts one half in `rewards/accuracies`, so that a policy equal to its reference shows 0.5 (chance) and
not 0. Two log-ratios tie when they differ by less than a millionth of the log-probs they were taken from, which is
what float32 and the batch a sequence stands in can change.
"""

import torch
from torch import Tensor

from rpo_data.trainer.loss import cell_scales

PAIR_METRICS = (
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "rewards/accuracies",
    "logps/chosen",
    "logps/rejected",
)
TOTALS = ("own losses", "other losses", "own cells", "other cells", *PAIR_METRICS)
"""Columns of what `group_totals` gives."""

_TIE = 1e-6


def group_totals(losses: Tensor, own: Tensor, group_cells: Tensor, pair_values: Tensor) -> Tensor:
    """Sums over the cells and pairs of each group.

    Args:
        losses: loss of each cell, (C,).
        own: bool, (C,).
        group_cells: cells of each group, (G,); the cells stand group by group.
        pair_values: PAIR_METRICS of each own cell, in order, (P, 6).

    Returns:
        (G, 10), float32, columns as in TOTALS. Sums of such rows may be added.
    """
    group = torch.repeat_interleave(torch.arange(len(group_cells), device=own.device), group_cells)
    is_own = own.float()
    by_cell = torch.stack([losses * is_own, losses * (1 - is_own), is_own, 1 - is_own], dim=1)
    totals = torch.zeros(len(group_cells), len(TOTALS), device=own.device)
    totals[:, :4].index_add_(0, group, by_cell)
    totals[:, 4:].index_add_(0, group[own], pair_values)
    return totals


def pair_values(win_logps: Tensor, loss_logps: Tensor, win_ref: Tensor, loss_ref: Tensor, beta: float) -> Tensor:
    """PAIR_METRICS of each pair, (P, 6), from four tensors of shape (P,): log-probs of policy and reference."""
    chosen, rejected = win_logps - win_ref, loss_logps - loss_ref
    margin = chosen - rejected
    tie = margin.abs() <= _TIE * (win_logps.abs() + loss_logps.abs())
    accuracy = torch.where(tie, 0.5, (margin > 0).float())
    return torch.stack([beta * chosen, beta * rejected, beta * margin, accuracy, win_logps, loss_logps], dim=1)


def mean_loss(totals: Tensor, loss_type: str, diagonal_alpha: float) -> float:
    """The loss over everything that was summed into `totals`, shape (10,); 0 where no cell counts."""
    return float((totals[:2] * cell_scales(totals[2:4], loss_type, diagonal_alpha)).sum())


def mean_metrics(totals: Tensor) -> dict[str, float]:
    """PAIR_METRICS by name over everything that was summed into `totals`, shape (10,); none where no pair counts."""
    pairs = float(totals[2])
    return {name: float(total) / pairs for name, total in zip(PAIR_METRICS, totals[4:], strict=True)} if pairs else {}
