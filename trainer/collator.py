"""Contrast groups to one batch: distinct sequences, as forward passes read them, and the cells that count, flat."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rpo_data.trainer.packing import Layout, pack_sequences, reading_order


@dataclass(frozen=True)
class Completion:
    """One sequence: its token ids, how many of them are prompt, and its reference log-prob (nats, summed)."""

    tokens: np.ndarray
    prompt_length: int
    ref_logp: float


@dataclass(frozen=True)
class Group:
    """One contrast group in tokens; its unmasked cells are flat, so any number of wins and losses fits.

    completions   by a number that is unique in the split: equal sequences of two groups share one
    wins, losses  (C,) numbers of the completions that each cell sets against each other
    weights       (C,) what the loss multiplies the cell's logit with
    own           (C,) whether win and loss are chosen and rejected of one pair, or, of responses, answer one prompt
    cross         (C,) whether they answer different prompts
    importance    (C,) how much the cell counts in the mean, see `loss`
    contrasts     effective contrasts of each win with a cell
    labels        (C, 2) of win and loss, in [0, 1]; empty but for `lipo`
    """

    completions: dict[int, Completion]
    wins: Sequence[int]
    losses: Sequence[int]
    weights: Sequence[float]
    own: Sequence[bool]
    cross: Sequence[bool]
    importance: Sequence[float]
    contrasts: Sequence[float]
    labels: Sequence[Sequence[float]] = ()


@dataclass(frozen=True)
class GroupCollator:
    """Collate groups into one batch.

    pad_token_id      what fills rows up; it is masked everywhere
    layout            how sequences stand in rows, see packing.py
    one_row           whether they all stand in one row
    micro_batch_size  sequences a piece; None: one piece
    count_prompts     whether prompt tokens count in the log-probs of the pieces, too

    Returns by name, for S distinct sequences, C cells and G groups: `pieces`, what forward passes read (see `cut`),
    and tensors:
        input_ids (T,) int64: all places of the pieces, padding included, for what transformers counts,
        ref_logps (S,) float32, response_tokens (S,) int64,
        cell_win, cell_loss (C,) int64: numbers of the sequences; cell_own, cell_cross (C,) bool,
        cell_weight, cell_importance (C,) float32; cell_labels (C, 2) float32, (0, 2) where the groups have none,
        group_cells (G,) int64: how many cells each group has (0: all masked); cells stand group by group,
        group_contrasts (G, 2) float32: summed effective contrasts of its wins, and their number.

    The log-prob of a sequence is that of its completion; with `count_prompts` that of all of it.

    >>> first = Group(
    ...     {7: Completion([1, 2, 3], 2, -1.5), 8: Completion([1, 2, 4, 5], 2, -2.5)},
    ...     wins=[7], losses=[8], weights=[1.0], own=[True], cross=[False], importance=[1.0], contrasts=[1.0],
    ... )
    >>> second = Group(
    ...     {7: Completion([1, 2, 3], 2, -1.5), 9: Completion([6, 3], 1, -0.5), 4: Completion([6, 5, 5], 1, -3.0)},
    ...     wins=[9, 7], losses=[4, 4], weights=[0.75, 0.25], own=[True, False], cross=[False, True],
    ...     importance=[2.0, 0.5], contrasts=[1.0, 1.5],
    ... )
    >>> batch = GroupCollator(pad_token_id=0)([first, second])
    >>> for name, tensor in batch.pop("pieces")[0].items():
    ...     print(name, tensor.tolist())
    input_ids [[6, 3, 0, 0], [1, 2, 3, 0], [6, 5, 5, 0], [1, 2, 4, 5]]
    attention_mask [[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    source [0, 5, 8, 9, 13, 14]
    target [3, 3, 5, 5, 4, 5]
    segment [0, 1, 2, 2, 3, 3]
    prompt_segment [4, 5, 6, 7]
    rows [2, 0, 3, 1]
    >>> for name, tensor in batch.items():
    ...     print(name, tensor.tolist())
    input_ids [6, 3, 0, 0, 1, 2, 3, 0, 6, 5, 5, 0, 1, 2, 4, 5]
    ref_logps [-1.5, -2.5, -0.5, -3.0]
    response_tokens [1, 2, 1, 2]
    cell_win [0, 2, 0]
    cell_loss [1, 3, 3]
    cell_weight [1.0, 0.75, 0.25]
    cell_own [True, True, False]
    cell_cross [False, False, True]
    cell_importance [1.0, 2.0, 0.5]
    cell_labels []
    group_cells [1, 2]
    group_contrasts [[1.0, 1.0], [2.5, 2.0]]
    """

    pad_token_id: int
    layout: Layout = "padded"
    one_row: bool = False
    micro_batch_size: int | None = None
    count_prompts: bool = False

    def __call__(self, groups: Sequence[Group]) -> dict[str, Any]:
        """Collate at least one group."""
        completions = {number: item for group in groups for number, item in group.completions.items()}
        place = {number: row for row, number in enumerate(completions)}
        items = list(completions.values())

        def flat(values: Iterable[Any], dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.tensor(list(values), dtype=dtype)

        pieces = self.cut([item.tokens for item in items], [item.prompt_length for item in items])
        return {
            "pieces": pieces,
            "input_ids": torch.cat([piece["input_ids"].flatten() for piece in pieces]),
            "ref_logps": flat(item.ref_logp for item in items),
            "response_tokens": flat((len(item.tokens) - item.prompt_length for item in items), torch.int64),
            "cell_win": flat((place[n] for group in groups for n in group.wins), torch.int64),
            "cell_loss": flat((place[n] for group in groups for n in group.losses), torch.int64),
            "cell_weight": flat(w for group in groups for w in group.weights),
            "cell_own": flat((own for group in groups for own in group.own), torch.bool),
            "cell_cross": flat((cross for group in groups for cross in group.cross), torch.bool),
            "cell_importance": flat(i for group in groups for i in group.importance),
            "cell_labels": flat(two for group in groups for two in group.labels).reshape(-1, 2),
            "group_cells": flat((len(group.wins) for group in groups), torch.int64),
            "group_contrasts": flat([sum(group.contrasts), len(group.contrasts)] for group in groups),
        }

    def cut(self, sequences: Sequence[np.ndarray], prompt_lengths: Sequence[int]) -> list[dict[str, Tensor]]:
        """Sequences as pieces of at most `micro_batch_size` of them, each one forward pass.

        Returns:
            for each piece what `pack_sequences` gives, and `rows`, the numbers of its sequences.
        """
        order = reading_order(sequences, prompt_lengths, self.layout)
        how = {"count_prompts": self.count_prompts, "one_row": self.one_row}
        pieces, size = [], self.micro_batch_size or len(order)
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            tokens, ends = [sequences[n] for n in rows], [prompt_lengths[n] for n in rows]
            piece = pack_sequences(tokens, ends, self.pad_token_id, self.layout, **how)
            pieces.append({**piece, "rows": torch.tensor(rows)})
        return pieces
