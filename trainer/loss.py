"""The losses over the cells of contrast groups, pure: no model, no trainer.

A cell is one win against one loss. With r = log pi(y|x) - log pi_ref(y|x) and D = r_win - r_loss it costs

    rpo                       -logsigmoid(beta * weight * D)      the weight stands inside the sigmoid (arXiv 2402.10958)
    uniform, dpo, diagonal    -logsigmoid(beta * D)               its ablations, and DPO (arXiv 2305.18290, eq. 7)
    ipo                       (D - 1 / (2 * beta))^2              arXiv 2310.12036, eq. 17, its tau being beta
    lipo                      -delta * logsigmoid(beta * D)       LiPO-lambda (arXiv 2402.01878), see `lambda_weights`
    joint                     -logsigmoid(beta * D)               Joint Preference Optimization (arXiv 2404.00530)

and the loss is a mean of cells: all of them (rpo, uniform, lipo, joint), the own ones, where win and loss are one pair
(dpo, ipo), or alpha * mean(own) + (1 - alpha) * mean(other) (diagonal). Masked cells never count.

r is summed over completion tokens, with two exceptions, which are the caller's to make (the trainer does). Under `ipo` it
is the mean over them: eq. 17 has log pi(y|x), which is the sum, but a squared gap of sums grows with the length of the
responses; TRL (1.16) averages, and says that the authors did so too for the paper's results. Under `joint` it is log
pi(x, y) - log pi_ref(x, y), so prompt tokens count, and (prompt, response) pairs are compared across prompts; in a cell of
one prompt they cancel, which leaves DPO.

The mean is weighted. A cell has the importance sqrt(weight of its win's row * weight of its loss's row), so an own cell
that of its pair, and a mean of cells is sum(importance * cost) / sum(importance). (These are the weights that the logs give
to pairs or responses; what `rpo` puts inside the sigmoid is something else.) Weights of 1 give the plain mean.

Notation: M wins, N losses, C cells that are not masked. Everything is float32.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

LOSS_TYPES = ("rpo", "uniform", "dpo", "diagonal", "ipo", "lipo", "joint")
OF_PAIRS = ("dpo", "diagonal", "ipo")
"""Losses that need pairs: cell (i, i) is own."""

_TIE_DECIMALS = 3


def rpo_loss(
    chosen_logratios: Tensor,
    rejected_logratios: Tensor,
    weights: Tensor,
    beta: float,
    *,
    loss_type: str = "rpo",
    diagonal_alpha: float = 0.8,
    importance: Tensor | None = None,
    labels: Tensor | None = None,
) -> Tensor:
    """Loss of one contrast group.

    Args:
        chosen_logratios: r of each win, shape (M,).
        rejected_logratios: r of each loss, shape (N,).
        weights: shape (M, N), row = win; exactly 0 masks the cell, and else only `rpo` looks at them.
        beta: how strongly the policy is held to the reference, greater than 0 (paper: 0.1).
        loss_type: one of `LOSS_TYPES`. For dpo, diagonal and ipo cell (i, i) is own, so M = N. For lipo wins and losses
            are the same list of responses, so M = N and both tensors of r are equal; cell (i, j) counts where i is better.
        diagonal_alpha: share of the own cells under `diagonal`.
        importance: how much each cell counts in the mean, shape (M, N); alike where None.
        labels: of each response under `lipo`, in [0, 1], shape (M,).

    Returns:
        float32 scalar; 0 (with zero gradients) where every cell is masked.

    Raises:
        ValueError: shapes do not fit, a value is not finite, a weight is negative, or an unknown loss type.

    >>> rpo_loss(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 0.0]), torch.eye(2), 0.5)  # (log(1 + 1/e) + log 2) / 2
    tensor(0.5032)
    """
    importance = torch.ones_like(weights) if importance is None else importance
    _check(chosen_logratios, rejected_logratios, weights, beta, loss_type, diagonal_alpha, importance)
    win, loss = torch.nonzero(weights, as_tuple=True)
    cell_weights, own, counted = weights[win, loss], win == loss, importance[win, loss].float()
    if loss_type == "lipo":
        labels = _checked_labels(chosen_logratios, rejected_logratios, labels)
        cells, all_cells = torch.stack([labels[win], labels[loss]], dim=1), torch.tensor([len(win)], device=win.device)
        cell_weights = lambda_weights(chosen_logratios, win, loss, cells, all_cells)
    losses = cell_losses(chosen_logratios[win], rejected_logratios[loss], cell_weights, beta, loss_type)
    return mean_of_cells(losses, own, counted, cell_counts(own, counted), loss_type, diagonal_alpha)


def batch_losses(logps: Tensor, batch: dict[str, Tensor], beta: float, loss_type: str) -> Tensor:
    """What each cell of a batch costs, (C,), from the policy's log-probs (S,) of its sequences (see `GroupCollator`)."""
    win, loss, weights = batch["cell_win"], batch["cell_loss"], batch["cell_weight"]
    ratios = logps - batch["ref_logps"]
    if loss_type == "ipo":
        ratios = ratios / batch["response_tokens"].clamp(min=1)
    elif loss_type == "lipo":
        weights = lambda_weights(ratios, win, loss, batch["cell_labels"], batch["group_cells"])
    return cell_losses(ratios[win], ratios[loss], weights, beta, loss_type)


def cell_losses(win_logratios: Tensor, loss_logratios: Tensor, weights: Tensor, beta: float, loss_type: str) -> Tensor:
    """What each cell costs: three tensors of shape (C,) in, one out. Under `lipo` the weights are the deltas."""
    gaps = win_logratios.float() - loss_logratios.float()
    if loss_type == "ipo":
        return (gaps - 1 / (2 * beta)).square()
    if loss_type == "rpo":
        return -F.logsigmoid(weights.float() * (beta * gaps))
    costs = -F.logsigmoid(beta * gaps)
    return weights.float() * costs if loss_type == "lipo" else costs


@torch.no_grad()
def lambda_weights(logratios: Tensor, win: Tensor, loss: Tensor, labels: Tensor, group_cells: Tensor) -> Tensor:
    """How much each cell matters to the ranking of its group, the delta of LiPO-lambda (arXiv 2402.01878).

    delta = |gain(win) - gain(loss)| * |1 / log(1 + rank(win)) - 1 / log(1 + rank(loss))|,    gain = 2^label - 1

    A group's list is all responses that stand in one of its cells. Rank 1 has the highest log-ratio under the current
    policy. Log-ratios that agree to a thousandth of a nat tie, which is more than float32 and the batch a sequence stands
    in can change; then the lower label ranks first, and equal labels share their mean rank. So the order of rows plays no
    part, not even at the start, where all log-ratios are 0.

    Args:
        logratios: r of each response, (S,).
        win: number of each cell's win, (C,).
        loss: number of each cell's loss, (C,).
        labels: of win and loss of each cell, in [0, 1], (C, 2).
        group_cells: cells of each group, (G,); the cells stand group by group.

    Returns:
        float32, (C,), without gradient.

    >>> r, win, loss = torch.tensor([0.0, 2.0, 1.0]), torch.tensor([0, 0]), torch.tensor([1, 2])
    >>> lambda_weights(r, win, loss, torch.tensor([[1.0, 0.0], [1.0, 0.5]]), torch.tensor([2]))  # ranks 3, 1, 2
    tensor([0.7213, 0.1107])
    """
    group = torch.repeat_interleave(torch.arange(len(group_cells), device=win.device), group_cells).repeat(2)
    numbers = group * len(logratios) + torch.cat([win, loss])
    listed, place = torch.unique(numbers, return_inverse=True)
    label = torch.zeros(len(listed), device=win.device).scatter_reduce(0, place, labels.float().T.flatten(), "amax")
    score = torch.round(logratios.float()[listed % len(logratios)], decimals=_TIE_DECIMALS)
    together = (listed // len(logratios))[:, None] == (listed // len(logratios))
    tied = score[:, None] == score
    ahead = (score[:, None] < score) | (tied & (label[:, None] > label))
    rank = 0.5 + (together * (ahead + 0.5 * (tied & (label[:, None] == label)))).sum(dim=1)  # it ties with itself
    win_place, loss_place = place.chunk(2)
    discount = 1 / torch.log1p(rank)
    gain = torch.exp2(labels.float())
    return (gain[:, 0] - gain[:, 1]).abs() * (discount[win_place] - discount[loss_place]).abs()


def cell_counts(own: Tensor, importance: Tensor) -> Tensor:
    """Summed importance of own and of other cells: (C,), (C,) -> float32 (2,). Those of several batches may be added."""
    return torch.stack([importance[own].sum(), importance[~own].sum()])


def cell_scales(counts: Tensor, loss_type: str, diagonal_alpha: float) -> Tensor:
    """What the loss of an own and of another cell is multiplied with, so that the sum over all cells is the mean.

    Args:
        counts: summed importance of the own and other cells that the mean runs over, shape (2,); may reach over many
            batches and ranks.
        loss_type: one of `LOSS_TYPES`.
        diagonal_alpha: share of the own cells under `diagonal`; where one kind is absent the other takes all.

    Returns:
        float32, shape (2,); a cell's importance comes on top.

    >>> cell_scales(torch.tensor([2, 6]), "rpo", 0.8), cell_scales(torch.tensor([2, 6]), "diagonal", 0.7)
    (tensor([0.1250, 0.1250]), tensor([0.3500, 0.0500]))
    """
    own, other = counts.float()
    if loss_type not in OF_PAIRS:
        return _share(torch.ones_like(own), own + other).repeat(2)
    share = torch.ones_like(own)
    if loss_type == "diagonal":
        share = torch.where(other == 0, 1.0, torch.where(own == 0, 0.0, diagonal_alpha))
    return torch.stack([_share(share, own), _share(1.0 - share, other)])


def mean_of_cells(
    losses: Tensor, own: Tensor, importance: Tensor, counts: Tensor, loss_type: str, diagonal_alpha: float
) -> Tensor:
    """These cells' part of the mean over all cells that were summed into `counts`; three tensors (C,) and one (2,)."""
    own_scale, other_scale = cell_scales(counts, loss_type, diagonal_alpha)
    return (losses * importance * torch.where(own, own_scale, other_scale)).sum()


def _share(share: Tensor, count: Tensor) -> Tensor:
    return torch.where(count > 0, share / count, 0.0)


def _check(
    wins: Tensor, losses: Tensor, weights: Tensor, beta: float, loss_type: str, alpha: float, importance: Tensor
) -> None:
    if loss_type not in LOSS_TYPES:
        raise ValueError(f"loss_type must be one of {', '.join(LOSS_TYPES)}, got '{loss_type}'")
    if not 0 < beta < float("inf"):
        raise ValueError(f"beta must be greater than 0 and finite, got {beta}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"diagonal_alpha must lie between 0 and 1, got {alpha}")
    for name, values in (("weights", weights), ("importance", importance)):
        if wins.dim() != 1 or losses.dim() != 1 or values.shape != (len(wins), len(losses)):
            sides, found = f"{tuple(wins.shape)} wins and {tuple(losses.shape)} losses", tuple(values.shape)
            raise ValueError(f"{sides} need {name} of shape (wins, losses), got {found}")
    if loss_type in (*OF_PAIRS, "lipo") and len(wins) != len(losses):
        raise ValueError(f"'{loss_type}' needs as many wins as losses, got {len(wins)} and {len(losses)}")
    named = {"chosen_logratios": wins, "rejected_logratios": losses, "weights": weights, "importance": importance}
    for name, values in named.items():
        _refuse(name, values, ~torch.isfinite(values), "is not finite")
    for name in ("weights", "importance"):
        _refuse(name, named[name], named[name] < 0, "is negative")


def _checked_labels(wins: Tensor, losses: Tensor, labels: Tensor | None) -> Tensor:
    if labels is None or labels.shape != wins.shape:
        found = "none" if labels is None else str(tuple(labels.shape))
        raise ValueError(f"'lipo' needs labels of shape ({len(wins)},), one a response, got {found}")
    _refuse("labels", labels, ~((labels >= 0) & (labels <= 1)), "is not between 0 and 1")
    if not torch.equal(wins, losses):
        raise ValueError("'lipo' ranks one list: give the same log-ratios as chosen and as rejected, and mask cells")
    return labels


def _refuse(name: str, values: Tensor, wrong: Tensor, what: str) -> None:
    if wrong.any():
        place = torch.nonzero(wrong)[0].tolist()
        raise ValueError(f"{name}{place} = {values[tuple(place)].item()} {what}")
