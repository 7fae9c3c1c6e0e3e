"""Log-probability of completions under a causal language model."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sequence_logprobs(model: nn.Module, input_ids: Tensor, attention_mask: Tensor, completion_mask: Tensor) -> Tensor:
    """Sum of log p(token | tokens before it) over the completion tokens of each sequence.

    Args:
        model: causal language model; its output has `logits` of shape (S, L, V).
        input_ids: (S, L), padded on the right.
        attention_mask: (S, L), 0 on padding.
        completion_mask: (S, L), bool, True on completion tokens. A token at position 0 has no context and never counts.

    Returns:
        float32 (float64 of a float64 model), shape (S,); 0 for a sequence without completion tokens.
    """
    row, column = torch.nonzero(completion_mask[:, 1:], as_tuple=True)
    source, target = row * input_ids.shape[1] + column, input_ids[row, column + 1]
    token_logps = token_logprobs(model, source, target, input_ids=input_ids, attention_mask=attention_mask)
    return token_logps.new_zeros(len(input_ids)).index_add(0, row, token_logps)


def packed_logprobs(model: nn.Module, packed: dict[str, Tensor]) -> Tensor:
    """Log-probs of the S sequences in `packed`, as `sequence_logprobs` gives them: one forward pass.

    Args:
        model: causal language model that `sharing_refusal` does not refuse, also wrapped for several processes.
        packed: what `pack_sequences` gave, on the model's device.

    Returns:
        float32 (float64 of a float64 model), shape (S,).
    """
    tree, branch, position = packed["tree"], packed["branch"], torch.arange(packed["tree"].shape[1])
    seen = (tree[:, :, None] == tree[:, None]) & (position[:, None] >= position).to(tree.device)
    seen &= (branch[:, None] == 0) | (branch[:, :, None] == branch[:, None])
    inputs = {"input_ids": packed["input_ids"], "position_ids": packed["position_ids"], "attention_mask": seen[:, None]}
    token_logps = token_logprobs(model, packed["source"], packed["target"], **inputs)
    prompt = packed["prompt_segment"]
    sums = token_logps.new_zeros(2 * len(prompt)).index_add(0, packed["segment"], token_logps)  # no more trees than S
    return sums[: len(prompt)] + sums[prompt]


def piece_logprobs(model: nn.Module, piece: dict[str, Tensor]) -> Tensor:
    """Log-probs of the sequences of one piece, in its order."""
    inputs = {name: tensor for name, tensor in piece.items() if name != "rows"}
    return packed_logprobs(model, inputs) if "tree" in piece else sequence_logprobs(model, **inputs)


def batch_logprobs(model: nn.Module, pieces: Sequence[dict[str, Tensor]]) -> Tensor:
    """Log-probs of all sequences of a batch, (S,), in the order of the batch."""
    logps = torch.cat([piece_logprobs(model, piece) for piece in pieces])
    return logps[torch.argsort(torch.cat([piece["rows"] for piece in pieces]))]


def token_logprobs(model: nn.Module, source: Tensor, target: Tensor, **inputs: Tensor) -> Tensor:
    """Log p(target) at some places of a batch; there alone are logits made, so memory and time go with the places.

    Args:
        model: causal language model, also wrapped for several processes.
        source: flat places (row * L + column) whose logits are read, (K,).
        target: token ids, (K,).
        inputs: what the model is called with.

    Returns:
        float32 (float64 of a float64 model), shape (K,).
    """
    unwrapped: Any = getattr(model, "module", model)
    head = unwrapped.get_output_embeddings()
    pick = head.register_forward_pre_hook(lambda _, args: (args[0].flatten(0, -2)[source],)) if head else None
    try:
        logits = model(**inputs, use_cache=False).logits
    finally:
        if pick:
            pick.remove()
    if not head:
        logits = logits.flatten(0, -2)[source]
    return -F.cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), target, reduction="none")
