"""Log-probability of completions under a causal language model."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from accelerate.utils import send_to_device
from torch import Tensor, nn
from transformers import PreTrainedModel

from rpo_data.errors import TrainingError
from rpo_data.trainer.attention import attention_mask_of


def piece_logprobs(model: nn.Module, piece: dict[str, Tensor]) -> Tensor:
    """Sum of log p(token | tokens before it) over the tokens that count of each sequence of a piece: one forward pass.

    Args:
        model: causal language model that can read the piece's layout (see layouts.py), also wrapped for several processes.
        piece: what `pack_sequences` gave, on the model's device.

    Returns:
        float32 (float64 of a float64 model), shape (S,), in the order of the piece; 0 where no token counts.
    """
    inputs = {name: piece[name] for name in ("input_ids", "position_ids", "attention_mask") if name in piece}
    if "tree" in piece:
        unwrapped: Any = getattr(model, "module", model)
        attention = unwrapped.config.get_text_config()._attn_implementation
        inputs["attention_mask"] = attention_mask_of(attention, piece["tree"], piece["branch"])
    token_logps = token_logprobs(model, piece["source"], piece["target"], **inputs)
    prompt = piece["prompt_segment"]
    sums = token_logps.new_zeros(2 * len(prompt)).index_add(0, piece["segment"], token_logps)  # no more trees than S
    return sums[: len(prompt)] + sums[prompt]


def batch_logprobs(model: nn.Module, pieces: Sequence[dict[str, Tensor]]) -> Tensor:
    """Log-probs of all sequences of a batch, (S,), in the order of the batch."""
    logps = torch.cat([piece_logprobs(model, piece) for piece in pieces])
    return logps[torch.argsort(torch.cat([piece["rows"] for piece in pieces]))]


@torch.no_grad()
def evaluated_logprobs(model: PreTrainedModel, pieces: Sequence[dict[str, Tensor]]) -> Tensor:
    """The same under the model in evaluation mode, whose mode is put back, and on its device, wherever the pieces are.

    Raises:
        TrainingError: memory cannot hold a piece.
    """
    training = model.training
    model.eval()
    try:
        with refused_where_memory_is_full(pieces):
            return batch_logprobs(model, send_to_device(pieces, model.device))
    finally:
        model.train(training)


@contextmanager
def refused_where_memory_is_full(pieces: Sequence[dict[str, Tensor]]) -> Iterator[None]:
    """One sentence, a TrainingError, in place of torch's OutOfMemoryError, which is its cause."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        rows = max(len(piece["rows"]) for piece in pieces)
        longest = max(piece["input_ids"].shape[1] for piece in pieces)
        raise TrainingError(
            f"a forward pass over {rows} sequences in rows of {longest} tokens does not fit in memory: set "
            f"micro_batch_size below {rows}, a smaller max_length, or activation_checkpointing"
        ) from error


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
