"""Whether the completions of a prompt can share it under a model: asked by name, then tried."""

import inspect
import logging
from dataclasses import replace

import torch
from transformers import PreTrainedModel

from rpo_data.trainer.collator import Group, GroupCollator
from rpo_data.trainer.logprobs import batch_logprobs

logger = logging.getLogger(__name__)


def sharing_refusal(model: PreTrainedModel) -> str | None:
    """Why the completions of a prompt cannot share it under this model, as far as its class and config say; else None."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model  # below adapters
    config = base.config.get_text_config()
    kinds = sorted({*(getattr(config, "layer_types", None) or ["full_attention"])} - {"full_attention"})
    attention = getattr(config, "_attn_implementation", None)
    adapter = getattr(model, "active_peft_config", None)
    reasons = (
        (kinds, f"it has layers of the kind {', '.join(kinds)}"),
        (getattr(config, "sliding_window", None), "its layers attend to a sliding window"),
        (getattr(config, "attention_chunk_size", None), "its layers attend to chunks"),
        (getattr(base, "_is_stateful", False), "it reads tokens into a state, one after the other"),
        (config.is_encoder_decoder, "it is an encoder and a decoder"),
        (not getattr(config, "is_causal", True), "its tokens see those behind them"),
        (getattr(config, "use_bidirectional_attention", False), "its tokens see those behind them"),
        (getattr(config, "alibi", False), "it counts positions along the row (ALiBi)"),
        (getattr(adapter, "is_prompt_learning", False), "its adapter puts tokens before the prompt"),
        ("position_ids" not in inspect.signature(base.forward).parameters, "it takes no position_ids"),
        (attention != "sdpa", f"its attention is '{attention}', and a mask of trees is sure under 'sdpa' alone"),
    )
    return next((reason for wrong, reason in reasons if wrong), None)


def sharing_collator(collator: GroupCollator, model: PreTrainedModel, group: Group) -> GroupCollator:
    """The collator, with prompts shared where this model can: not refused by name, and right on a first group.

    There, log-probs of trees must equal those of single sequences to 1e-5 (relative, of the group); in bfloat16 and
    float16 to 1e-3, and three times what padding changes. Where they don't, one line warns and prompts are not shared:
    padded sequences are as right as ever, only slower.
    """
    shared = replace(collator, share_prompts=True)
    reason = sharing_refusal(model) or _difference(collator, shared, model, group)
    if reason is None:
        return shared
    logger.warning("prompts are not shared, which is slower: %s (%s)", reason, type(model).__name__)
    return collator


@torch.no_grad()
def _difference(plain: GroupCollator, shared: GroupCollator, model: PreTrainedModel, group: Group) -> str | None:
    training = model.training
    logps: list[torch.Tensor] = []
    model.eval()
    try:
        for collator in (replace(plain, micro_batch_size=1), plain, shared):
            pieces = collator([group])["pieces"]
            logps.append(batch_logprobs(model, [{k: v.to(model.device) for k, v in p.items()} for p in pieces]))
    finally:
        model.train(training)
    alone, padded, in_trees = logps
    if torch.finfo(model.dtype).bits >= 32:
        allowed = 1e-5 * alone.norm()
    else:  # padding alone moves a sum of 50 log-probs by half a percent here
        allowed = 1e-3 * alone.norm() + 3 * (padded - alone).norm()
    if (in_trees - alone).norm() <= allowed:
        return None
    return f"log-probs of the first group come out otherwise, by up to {(in_trees - alone).abs().max():.2g} nats"
