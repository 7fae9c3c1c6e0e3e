"""Contrast groups to one batch: distinct sequences, as forward passes read them, and the cells that count, flat."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rpo_data.trainer.packing import pack_sequences


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
    """

    completions: dict[int, Completion]
    wins: Sequence[int]
    losses: Sequence[int]
    weights: Sequence[float]
    own: Sequence[bool]


@dataclass(frozen=True)
class GroupCollator:
    """Collate groups into one batch.

    pad_token_id      what fills rows up; it is masked everywhere
    share_prompts     whether the pieces hold trees (see packing.py) or padded sequences
    micro_batch_size  sequences a piece; None: one piece
    count_prompts     whether prompt tokens count in the log-probs of the pieces, too

    Returns by name, for S distinct sequences of at most L tokens, C cells and G groups: `pieces`, what forward passes
    read (see `cut_pieces`), and tensors:
        input_ids (S, L) int64, attention_mask (S, L) int64, completion_mask (S, L) bool, ref_logps (S,) float32,
        cell_win, cell_loss (C,) int64: row numbers of input_ids; cell_weight (C,) float32; cell_own (C,) bool,
        group_cells (G,) int64: how many cells each group has (0: all masked); cells stand group by group.

    >>> first = Group({7: Completion([1, 2, 3], 2, -1.5), 8: Completion([1, 2, 4, 5], 2, -2.5)}, [7], [8], [1.0], [True])
    >>> second = Group(
    ...     {7: Completion([1, 2, 3], 2, -1.5), 9: Completion([6, 3], 1, -0.5), 4: Completion([6, 5, 5], 1, -3.0)},
    ...     wins=[9, 7], losses=[4, 4], weights=[0.75, 0.25], own=[True, False],
    ... )
    >>> batch = GroupCollator(pad_token_id=0)([first, second])
    >>> [sorted(piece) for piece in batch.pop("pieces")]
    [['attention_mask', 'completion_mask', 'input_ids', 'rows']]
    >>> for name, tensor in batch.items():
    ...     print(name, tensor.int().tolist() if name == "completion_mask" else tensor.tolist())
    input_ids [[1, 2, 3, 0], [1, 2, 4, 5], [6, 3, 0, 0], [6, 5, 5, 0]]
    attention_mask [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]]
    completion_mask [[0, 0, 1, 0], [0, 0, 1, 1], [0, 1, 0, 0], [0, 1, 1, 0]]
    ref_logps [-1.5, -2.5, -0.5, -3.0]
    cell_win [0, 2, 0]
    cell_loss [1, 3, 3]
    cell_weight [1.0, 0.75, 0.25]
    cell_own [True, True, False]
    group_cells [1, 2]
    """

    pad_token_id: int
    share_prompts: bool = False
    micro_batch_size: int | None = None
    count_prompts: bool = False

    def __call__(self, groups: Sequence[Group]) -> dict[str, Any]:
        """Collate at least one group."""
        completions = {number: item for group in groups for number, item in group.completions.items()}
        place = {number: row for row, number in enumerate(completions)}
        items = list(completions.values())
        tokens, prompt_lengths = [item.tokens for item in items], [item.prompt_length for item in items]
        return pad_sequences(tokens, prompt_lengths, self.pad_token_id) | {
            "pieces": cut_pieces(
                tokens,
                prompt_lengths,
                self.pad_token_id,
                share_prompts=self.share_prompts,
                micro_batch_size=self.micro_batch_size,
                count_prompts=self.count_prompts,
            ),
            "ref_logps": torch.tensor([item.ref_logp for item in items], dtype=torch.float32),
            "cell_win": torch.tensor([place[n] for group in groups for n in group.wins], dtype=torch.int64),
            "cell_loss": torch.tensor([place[n] for group in groups for n in group.losses], dtype=torch.int64),
            "cell_weight": torch.tensor([w for group in groups for w in group.weights], dtype=torch.float32),
            "cell_own": torch.tensor([own for group in groups for own in group.own], dtype=torch.bool),
            "group_cells": torch.tensor([len(group.wins) for group in groups], dtype=torch.int64),
        }


def pad_sequences(
    sequences: Sequence[np.ndarray], prompt_lengths: Sequence[int], pad_token_id: int
) -> dict[str, Tensor]:
    """input_ids, attention_mask and completion_mask, each (S, L), of S sequences padded on the right."""
    lengths = torch.tensor([len(tokens) for tokens in sequences])
    input_ids = torch.full((len(sequences), int(lengths.max())), pad_token_id, dtype=torch.int64)
    for row, tokens in enumerate(sequences):
        input_ids[row, : len(tokens)] = torch.as_tensor(np.asarray(tokens, dtype=np.int64))
    position = torch.arange(input_ids.shape[1])
    real = position < lengths[:, None]
    completion = real & (position >= torch.as_tensor(prompt_lengths)[:, None])
    return {"input_ids": input_ids, "attention_mask": real.long(), "completion_mask": completion}


def cut_pieces(
    sequences: Sequence[np.ndarray],
    prompt_lengths: Sequence[int],
    pad_token_id: int,
    *,
    share_prompts: bool,
    micro_batch_size: int | None,
    count_prompts: bool,
) -> list[dict[str, Tensor]]:
    """A batch of S sequences as pieces of at most `micro_batch_size` of them (None: all), each one forward pass.

    Returns:
        for each piece `rows`, the numbers of its sequences, and what `pack_sequences` or `pad_sequences` give for them.
        Pieces hold equal prompts or, padded, sequences of similar length.
    """
    borders = [0] * len(sequences) if not share_prompts else prompt_lengths
    prompts = [np.asarray(tokens[:end]).tobytes() for tokens, end in zip(sequences, borders, strict=True)]
    order = sorted(range(len(sequences)), key=lambda n: (len(prompts[n]), prompts[n], len(sequences[n])))
    step, pieces = micro_batch_size or len(order), []
    for start in range(0, len(order), step):
        rows = order[start : start + step] if micro_batch_size else list(range(len(order)))
        tokens, ends = [sequences[n] for n in rows], [prompt_lengths[n] for n in rows]
        if share_prompts:
            piece = pack_sequences(tokens, ends, pad_token_id, count_prompts=count_prompts)
        else:
            piece = pad_sequences(tokens, [0] * len(rows) if count_prompts else ends, pad_token_id)
        pieces.append(piece | {"rows": torch.tensor(rows)})
    return pieces
