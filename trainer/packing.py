"""Prompt sharing: each prompt is read once, and its completions, one behind the other, see it and not each other.

A tree is a prompt with completions of it. Its mask hides siblings, and the positions of each completion go on from the
prompt's end, so a model whose layers know mask and positions alone gives what it gives for single sequences. Trees are
packed into rows as long as the longest of them.

Notation: S sequences, T trees, R rows of L places, K tokens that count.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_TREE_TOKENS = 1024
"""Attention grows with the square of a row: longer trees are cut, where no single sequence is longer."""


def pack_sequences(
    sequences: Sequence[np.ndarray], prompt_lengths: Sequence[int], pad_token_id: int, *, count_prompts: bool = False
) -> dict[str, Tensor]:
    """S sequences as trees in rows. Equal prompts are one tree, unless it would be longer than 1,024 tokens.

    Args:
        sequences: token ids of prompt and completion.
        prompt_lengths: how many of them are prompt.
        pad_token_id: what fills the rows.
        count_prompts: whether prompt tokens count, too: all but the first, which has no context.

    Returns:
        int64 tensors by name:
        input_ids, position_ids (R, L);
        tree (R, L): number of the token's tree, -1 on padding; branch (R, L): 0 in a prompt, else 1 + its sequence;
        source (K,): flat place (row * L + column) of the logits that predict a token that counts; target (K,): its id;
        segment (K,): its sequence, or S + its tree in a prompt; prompt_segment (S,): S + the tree of each sequence.

    >>> for name, tensor in pack_sequences([[5, 6, 7, 8], [5, 6, 9], [3, 4]], [2, 2, 1], pad_token_id=0).items():
    ...     print(name, tensor.tolist())
    input_ids [[5, 6, 7, 8, 9], [3, 4, 0, 0, 0]]
    position_ids [[0, 1, 2, 3, 2], [0, 1, 0, 0, 0]]
    tree [[0, 0, 0, 0, 0], [1, 1, -1, -1, -1]]
    branch [[0, 0, 1, 1, 2], [0, 3, 0, 0, 0]]
    source [1, 2, 1, 5]
    target [7, 8, 9, 4]
    segment [0, 0, 1, 2]
    prompt_segment [3, 3, 4]
    """
    items = [np.asarray(tokens, dtype=np.int64) for tokens in sequences]
    trees = _grow_trees(items, prompt_lengths)
    parts: list[np.ndarray] = []
    kinds: list[tuple[int, ...]] = []  # tree, branch, segment of a part, and where its prompt ends
    for number, members in enumerate(trees):
        end = prompt_lengths[members[0]]
        parts += [items[members[0]][:end], *(items[member][end:] for member in members)]
        kinds += [(number, 0, len(items) + number, end), *((number, 1 + m, m, end) for m in members)]
    sizes, tokens = np.array([len(part) for part in parts]), np.concatenate(parts)
    tree, branch, segment, border = np.repeat(np.array(kinds).T, sizes, axis=1)
    lengths, flat = np.bincount(tree, minlength=len(trees)), np.arange(len(tokens))
    starts, shape = _place_trees(lengths.tolist())
    place = flat + (starts - np.cumsum(lengths) + lengths)[tree]
    position = flat - np.repeat(np.cumsum(sizes) - sizes, sizes) + np.where(branch > 0, border, 0)
    before = np.where(position == border, starts[tree] + border, place) - 1  # a completion follows on its prompt
    counted = (position > 0) & ((branch > 0) | count_prompts)
    prompt_segment = np.empty(len(items), dtype=np.int64)
    prompt_segment[np.concatenate(trees)] = np.repeat(len(items) + np.arange(len(trees)), [len(m) for m in trees])
    packed = {
        "input_ids": _in_rows(tokens, place, shape, pad_token_id),
        "position_ids": _in_rows(position, place, shape, 0),
        "tree": _in_rows(tree, place, shape, -1),
        "branch": _in_rows(branch, place, shape, 0),
        "source": before[counted],
        "target": tokens[counted],
        "segment": segment[counted],
        "prompt_segment": prompt_segment,
    }
    return {name: torch.from_numpy(values) for name, values in packed.items()}


def _grow_trees(sequences: Sequence[np.ndarray], prompt_lengths: Sequence[int]) -> list[list[int]]:
    """Numbers of the sequences of each tree."""
    limit = max(_TREE_TOKENS, *(len(tokens) for tokens in sequences))
    trees: list[list[int]] = []
    growing: dict[bytes, tuple[list[int], int]] = {}  # the last tree of each prompt, and its length
    for number, (tokens, end) in enumerate(zip(sequences, prompt_lengths, strict=True)):
        prompt = tokens[:end].tobytes()
        tree, length = growing.get(prompt, ([], limit + 1))
        if length + len(tokens) - end > limit:
            tree, length = [], end
            trees.append(tree)
        tree.append(number)
        growing[prompt] = tree, length + len(tokens) - end
    return trees


def _place_trees(lengths: Sequence[int]) -> tuple[np.ndarray, tuple[int, int]]:
    """Flat start of each tree in rows as long as the longest tree (first fit, longest first), and the shape of the rows."""
    width = max(lengths)
    ends: list[int] = []  # of the rows
    starts = np.empty(len(lengths), dtype=np.int64)
    for tree in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        row = next((row for row, end in enumerate(ends) if end + lengths[tree] <= width), len(ends))
        if row == len(ends):
            ends.append(0)
        starts[tree] = row * width + ends[row]
        ends[row] += lengths[tree]
    return starts, (len(ends), width)


def _in_rows(values: np.ndarray, place: np.ndarray, shape: tuple[int, int], fill: int) -> np.ndarray:
    rows = np.full(shape, fill, dtype=np.int64)
    rows.flat[place] = values
    return rows
