"""Log-probability of completions under a causal language model."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sequence_logprobs(model: nn.Module, input_ids: Tensor, attention_mask: Tensor, completion_mask: Tensor) -> Tensor:
    """Sum of log p(token | tokens before it) over the completion tokens of each sequence.

    Logits of prompt and padding are dropped before they are cast up, so memory goes with the completions.

    Args:
        model: causal language model; its output has `logits` of shape (S, L, V).
        input_ids: (S, L), padded on the right.
        attention_mask: (S, L), 0 on padding.
        completion_mask: (S, L), bool, True on completion tokens. A token at position 0 has no context and never counts.

    Returns:
        float32, shape (S,); 0 for a sequence without completion tokens.
    """
    logits = model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits[:, :-1]
    counted = completion_mask[:, 1:].bool()
    token_logps = -F.cross_entropy(logits[counted].float(), input_ids[:, 1:][counted], reduction="none")
    spread = torch.zeros(counted.shape, dtype=torch.float32, device=logits.device)
    return spread.masked_scatter(counted, token_logps).sum(dim=1)
