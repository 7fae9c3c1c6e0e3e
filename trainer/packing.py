"""Sequences laid out in rows for one forward pass, in one of three layouts.

trees   each prompt is read once, and its completions, one behind the other, see it and not each other
packed  sequences stand behind each other in a row, each seeing itself alone: no row is mostly padding
padded  one sequence a row, which any causal model reads

A tree is a prompt with completions of it; outside `trees` each sequence is a tree of its own. The mask hides siblings and
other trees, and the positions of each completion go on from the prompt's end, so a model whose layers know mask and
positions alone gives what it gives for single sequences.

Notation: S sequences, T trees, R rows of L places, K tokens that count.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Layout = Literal["trees", "packed", "padded"]

_TREE_TOKENS = 1024
"""Where attention looks at whole rows its cost grows with their square: longer trees are cut, but for single sequences."""


def pack_sequences(
    sequences: Sequence[np.ndarray],
    prompt_lengths: Sequence[int],
    pad_token_id: int,
    layout: Layout = "trees",
    *,
    count_prompts: bool = False,
    one_row: bool = False,
) -> dict[str, Tensor]:
    """S sequences in rows, and the places that their log-probs are read from.

    Args:
        sequences: token ids of prompt and completion.
        prompt_lengths: how many of them are prompt.
        pad_token_id: what fills the rows.
        layout: under `trees` equal prompts are one tree, unless rows are several and it would be longer than 1,024 tokens.
        count_prompts: whether prompt tokens count, too: all but the first, which has no context.
        one_row: all trees in one row, for attention that skips what is masked; else rows are as long as the longest tree.

    Returns:
        int64 tensors by name. For the model:
        input_ids (R, L);
        position_ids (R, L), but for `padded`; attention_mask (R, L) of `padded`, 0 on padding;
        of `trees` what the mask is made from: tree (R, L), number of the token's tree, -1 on padding;
        branch (R, L): 0 in a prompt, else 1 + its sequence.
        For the sums:
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
    >>> packed = pack_sequences([[5, 6, 7, 8], [5, 6, 9], [3, 4]], [2, 2, 1], 0, "packed")
    >>> packed["input_ids"].tolist(), packed["position_ids"].tolist(), packed["source"].tolist()
    ([[5, 6, 7, 8], [5, 6, 9, 0], [3, 4, 0, 0]], [[0, 1, 2, 3], [0, 1, 2, 0], [0, 1, 0, 0]], [1, 2, 5, 8])
    """
    items = [np.asarray(tokens, dtype=np.int64) for tokens in sequences]
    trees = _grow_trees(items, prompt_lengths, one_row) if layout == "trees" else [[n] for n in range(len(items))]
    parts: list[np.ndarray] = []
    kinds: list[tuple[int, ...]] = []  # tree, branch, segment of a part, and where its prompt ends
    for number, members in enumerate(trees):
        end = prompt_lengths[members[0]]
        parts += [items[members[0]][:end], *(items[member][end:] for member in members)]
        kinds += [(number, 0, len(items) + number, end), *((number, 1 + m, m, end) for m in members)]
    sizes, tokens = np.array([len(part) for part in parts]), np.concatenate(parts)
    tree, branch, segment, border = np.repeat(np.array(kinds).T, sizes, axis=1)
    lengths, flat = np.bincount(tree, minlength=len(trees)), np.arange(len(tokens))
    width = lengths.sum() if one_row else lengths.max()
    starts, rows = width * np.arange(len(trees)), len(trees)
    if layout != "padded":
        starts, rows = _first_fit(lengths, width)
    place = flat + (starts - np.cumsum(lengths) + lengths)[tree]
    position = flat - np.repeat(np.cumsum(sizes) - sizes, sizes) + np.where(branch > 0, border, 0)
    before = np.where(position == border, starts[tree] + border, place) - 1  # a completion follows on its prompt
    counted = (position > 0) & ((branch > 0) | count_prompts)
    prompt_segment = np.empty(len(items), dtype=np.int64)
    prompt_segment[np.concatenate(trees)] = np.repeat(len(items) + np.arange(len(trees)), [len(m) for m in trees])

    def in_rows(values: np.ndarray, fill: int) -> np.ndarray:
        table = np.full((rows, width), fill, dtype=np.int64)
        table.flat[place] = values
        return table

    packed = {"input_ids": in_rows(tokens, pad_token_id)}
    if layout == "padded":
        packed["attention_mask"] = in_rows(np.ones_like(tokens), 0)
    else:
        packed["position_ids"] = in_rows(position, 0)
    if layout == "trees":
        packed |= {"tree": in_rows(tree, -1), "branch": in_rows(branch, 0)}
    packed |= {"source": before[counted], "target": tokens[counted], "segment": segment[counted]}
    packed |= {"prompt_segment": prompt_segment}
    return {name: torch.from_numpy(values) for name, values in packed.items()}


def reading_order(sequences: Sequence[np.ndarray], prompt_lengths: Sequence[int], layout: Layout) -> list[int]:
    """Numbers of the sequences, ordered so that those of equal prompts (`trees`) or similar length stand together."""
    if layout != "trees":
        return sorted(range(len(sequences)), key=lambda n: len(sequences[n]))
    prompts = [np.asarray(tokens[:end]).tobytes() for tokens, end in zip(sequences, prompt_lengths, strict=True)]
    return sorted(range(len(sequences)), key=lambda n: (len(prompts[n]), prompts[n], len(sequences[n])))


def _grow_trees(sequences: Sequence[np.ndarray], prompt_lengths: Sequence[int], one_row: bool) -> list[list[int]]:
    """Numbers of the sequences of each tree."""
    limit = sum(map(len, sequences)) if one_row else max(_TREE_TOKENS, *map(len, sequences))
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


def _first_fit(lengths: np.ndarray, width: int) -> tuple[np.ndarray, int]:
    """Flat start of each tree in rows of this width, each in the first row with room, longest first; and how many rows."""
    ends: list[int] = []  # of the rows
    starts = np.empty(len(lengths), dtype=np.int64)
    for tree in np.argsort(-lengths, kind="stable"):
        row = next((row for row, end in enumerate(ends) if end + lengths[tree] <= width), len(ends))
        if row == len(ends):
            ends.append(0)
        starts[tree] = row * width + ends[row]
        ends[row] += lengths[tree]
    return starts, len(ends)
