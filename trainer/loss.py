"""The loss of Relative Preference Optimization (arXiv 2402.10958), pure: no model, no trainer.

A cell is one win against one loss. With r = log pi(y|x) - log pi_ref(y|x), summed over completion tokens, it costs

    rpo                       -logsigmoid(beta * weight * (r_win - r_loss))       the weight stands inside the sigmoid
    uniform, dpo, diagonal    -logsigmoid(beta * (r_win - r_loss))

and the loss is a mean of cells: all of them (rpo, uniform), the own ones, where win and loss are one pair (dpo), or
alpha * mean(own) + (1 - alpha) * mean(other) (diagonal). Masked cells never count.

Notation: M wins, N losses, C cells that are not masked. Everything is float32.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

LOSS_TYPES = ("rpo", "uniform", "dpo", "diagonal")


def rpo_loss(
    chosen_logratios: Tensor,
    rejected_logratios: Tensor,
    weights: Tensor,
    beta: float,
    *,
    loss_type: str = "rpo",
    diagonal_alpha: float = 0.8,
) -> Tensor:
    """Loss of one contrast group.

    Args:
        chosen_logratios: r of each win, shape (M,).
        rejected_logratios: r of each loss, shape (N,).
        weights: shape (M, N), row = win; exactly 0 masks the cell.
        beta: how strongly the policy is held to the reference, greater than 0 (paper: 0.1).
        loss_type: rpo, uniform, dpo or diagonal. For the last two, cell (i, i) is own, so M = N.
        diagonal_alpha: share of the own cells under `diagonal`.

    Returns:
        float32 scalar; 0 (with zero gradients) where every cell is masked.

    Raises:
        ValueError: shapes do not fit, a value is not finite, a weight is negative, or an unknown loss type.

    >>> rpo_loss(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 0.0]), torch.eye(2), 0.5)  # (log(1 + 1/e) + log 2) / 2
    tensor(0.5032)
    """
    _check(chosen_logratios, rejected_logratios, weights, beta, loss_type, diagonal_alpha)
    win, loss = torch.nonzero(weights, as_tuple=True)
    own = win == loss
    losses = cell_losses(chosen_logratios[win], rejected_logratios[loss], weights[win, loss], beta, loss_type)
    own_scale, other_scale = cell_scales(cell_counts(own), loss_type, diagonal_alpha)
    return (losses * torch.where(own, own_scale, other_scale)).sum()


def cell_losses(win_logratios: Tensor, loss_logratios: Tensor, weights: Tensor, beta: float, loss_type: str) -> Tensor:
    """What each cell costs: three tensors of shape (C,) in, one out."""
    logits = beta * (win_logratios.float() - loss_logratios.float())
    return -F.logsigmoid(weights.float() * logits if loss_type == "rpo" else logits)


def cell_counts(own: Tensor) -> Tensor:
    """How many cells are own and how many are not: bool (C,) -> int64 (2,). Counts of several batches may be added."""
    own_count = own.sum()
    return torch.stack([own_count, own.numel() - own_count])


def cell_scales(counts: Tensor, loss_type: str, diagonal_alpha: float) -> Tensor:
    """What the loss of an own and of another cell is multiplied with, so that the sum over all cells is the mean.

    Args:
        counts: own and other cells that the mean runs over, shape (2,); may reach over many batches and ranks.
        loss_type: one of `LOSS_TYPES`.
        diagonal_alpha: share of the own cells under `diagonal`; where one kind is absent the other takes all.

    Returns:
        float32, shape (2,).

    >>> cell_scales(torch.tensor([2, 6]), "rpo", 0.8), cell_scales(torch.tensor([2, 6]), "diagonal", 0.7)
    (tensor([0.1250, 0.1250]), tensor([0.3500, 0.0500]))
    """
    own, other = counts.float()
    if loss_type in ("rpo", "uniform"):
        return (1.0 / (own + other).clamp(min=1.0)).repeat(2)
    share = torch.ones_like(own)
    if loss_type == "diagonal":
        share = torch.where(other == 0, 1.0, torch.where(own == 0, 0.0, diagonal_alpha))
    return torch.stack([share / own.clamp(min=1.0), (1.0 - share) / other.clamp(min=1.0)])


def _check(wins: Tensor, losses: Tensor, weights: Tensor, beta: float, loss_type: str, alpha: float) -> None:
    if loss_type not in LOSS_TYPES:
        raise ValueError(f"loss_type must be one of {', '.join(LOSS_TYPES)}, got '{loss_type}'")
    if not 0 < beta < float("inf"):
        raise ValueError(f"beta must be greater than 0 and finite, got {beta}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"diagonal_alpha must lie between 0 and 1, got {alpha}")
    if wins.dim() != 1 or losses.dim() != 1 or weights.shape != (len(wins), len(losses)):
        raise ValueError(
            f"chosen_logratios {tuple(wins.shape)} and rejected_logratios {tuple(losses.shape)} need weights "
            f"of shape (wins, losses), got {tuple(weights.shape)}"
        )
    if loss_type in ("dpo", "diagonal") and len(wins) != len(losses):
        raise ValueError(f"'{loss_type}' needs as many wins as losses, got {len(wins)} and {len(losses)}")
    for name, values in (("chosen_logratios", wins), ("rejected_logratios", losses), ("weights", weights)):
        _refuse(name, values, ~torch.isfinite(values), "is not finite")
    _refuse("weights", weights, weights < 0, "is negative")


def _refuse(name: str, values: Tensor, wrong: Tensor, what: str) -> None:
    if wrong.any():
        place = torch.nonzero(wrong)[0].tolist()
        raise ValueError(f"{name}{place} = {values[tuple(place)].item()} {what}")
