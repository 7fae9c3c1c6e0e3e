"""What each token of a row of trees sees (see packing.py), told to three kinds of attention."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import create_block_mask
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

PART_BY_PART = "rpo_part_by_part"
"""Name of `part_by_part` for `set_attn_implementation`; it is sdpa, but for the masks of `tree_parts`."""


def attention_mask_of(attention: str, tree: Tensor, branch: Tensor) -> Any:
    """The mask of rows of trees that the attention of this name takes.

    Args:
        attention: `sdpa`, `flex_attention`, or PART_BY_PART, which takes several rows as sdpa does.
        tree: number of each token's tree, -1 on padding, int64 (R, L).
        branch: 0 in a prompt, and another number in each completion, int64 (R, L).
    """
    if attention == "flex_attention":
        return tree_blocks(tree, branch)
    return tree_parts(tree, branch) if attention == PART_BY_PART and len(tree) == 1 else tree_mask(tree, branch)


def tree_mask(tree: Tensor, branch: Tensor) -> Tensor:
    """Which places each place sees, bool (R, 1, L, L): of its own tree those before it and itself, but for siblings."""
    position = torch.arange(tree.shape[1], device=tree.device)
    seen = (tree[:, :, None] == tree[:, None]) & (position[:, None] >= position)
    seen &= (branch[:, None] == 0) | (branch[:, :, None] == branch[:, None])
    return seen[:, None]


def tree_blocks(tree: Tensor, branch: Tensor) -> Any:
    """The same for FlexAttention, as a BlockMask: blocks of 128 x 128 places that see nothing are skipped."""

    def seen(row: Tensor, head: Tensor, place: Tensor, other: Tensor) -> Tensor:
        sibling = (branch[row, other] != 0) & (branch[row, other] != branch[row, place])
        return (tree[row, place] == tree[row, other]) & (place >= other) & ~sibling

    # uncompiled, it makes the whole table
    make = torch.compile(create_block_mask) if tree.is_cuda else create_block_mask
    return make(seen, len(tree), None, tree.shape[1], tree.shape[1], device=tree.device)


def tree_parts(tree: Tensor, branch: Tensor) -> Tensor:
    """The same of one row for `part_by_part`, int64 (1, 1, 3, parts): size, tree and branch of each prompt and completion.

    It has the four dimensions of a mask, since models hand on the masks of their callers as they are.

    >>> tree_parts(torch.tensor([[0, 0, 0, 0, 0, 1, 1]]), torch.tensor([[0, 0, 1, 1, 2, 0, 3]])).tolist()
    [[[[2, 2, 1, 1, 1], [0, 0, 0, 1, 1], [0, 1, 2, 0, 3]]]]
    """
    kinds, sizes = torch.unique_consecutive(torch.cat([tree, branch]), dim=1, return_counts=True)
    return torch.cat([sizes[None], kinds])[None, None]


@torch.compiler.disable  # its sizes are those of the texts: it would be compiled anew for each row
def part_by_part(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **how: Any
) -> tuple[Tensor, None]:
    """Attention of a row of trees, a call for each prompt and each completion: siblings and other trees are never met.

    Args:
        module: the layer.
        query: (1, heads, L, width).
        key: the same of, maybe, fewer heads.
        value: as the keys.
        attention_mask: what `tree_parts` gave; with any other mask, or none, this is transformers' sdpa.
        how: dropout, scaling and the like.

    Returns:
        (1, L, heads, width), and no weights.
    """
    if attention_mask is None or attention_mask.dtype != torch.int64:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **how)
    parts = attention_mask[0, 0].T.tolist()
    sizes = [size for size, _, _ in parts]
    states = zip(query.split(sizes, dim=2), key.split(sizes, dim=2), value.split(sizes, dim=2), strict=True)
    nothing = key[:, :, :0], value[:, :, :0]
    prompt, last, outputs = nothing, None, []
    for (size, tree, branch), (q, k, v) in zip(parts, states, strict=True):
        if tree != last:
            prompt, last = nothing, tree
        keys, values = torch.cat([prompt[0], k], dim=2), torch.cat([prompt[1], v], dim=2)
        before = keys.shape[2] - size
        mask = torch.ones(1, 1, size, before + size, dtype=torch.bool, device=q.device).tril(before) if before else None
        outputs.append(sdpa_attention_forward(module, q, keys, values, mask, **how | {"is_causal": True})[0])
        if branch == 0:
            prompt = k, v
    return torch.cat(outputs, dim=1), None


AttentionInterface.register(PART_BY_PART, part_by_part)
AttentionMaskInterface.register(PART_BY_PART, sdpa_mask)
