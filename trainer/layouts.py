"""Which layout of sequences a model can read (see packing.py): asked by name, then tried on a first group."""

import inspect
import logging
from dataclasses import replace

import torch
from accelerate.utils import send_to_device
from transformers import PreTrainedModel

from rpo_data.trainer.collator import Group, GroupCollator
from rpo_data.trainer.logprobs import batch_logprobs
from rpo_data.trainer.packing import Layout

logger = logging.getLogger(__name__)


def layout_refusal(model: PreTrainedModel, layout: Layout) -> str | None:
    """Why this model cannot read `trees` or `packed` sequences, as far as its class and config say; else None."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model  # below adapters
    config = base.config.get_text_config()
    known = {"full_attention"} if layout == "trees" else {"full_attention", "sliding_attention"}
    kinds = sorted({*(getattr(config, "layer_types", None) or ["full_attention"])} - known)
    attention = getattr(config, "_attn_implementation", None)
    adapter = getattr(model, "active_peft_config", None)
    reasons = [
        (kinds, f"it has layers of the kind {', '.join(kinds)}"),
        (getattr(config, "attention_chunk_size", None), "its layers attend to chunks"),
        (getattr(base, "_is_stateful", False), "it reads tokens into a state, one after the other"),
        (config.is_encoder_decoder, "it is an encoder and a decoder"),
        (not getattr(config, "is_causal", True), "its tokens see those behind them"),
        (getattr(config, "use_bidirectional_attention", False), "its tokens see those behind them"),
        (getattr(config, "alibi", False), "it counts positions along the row (ALiBi)"),
        (getattr(adapter, "is_prompt_learning", False), "its adapter puts tokens before the prompt"),
        ("position_ids" not in inspect.signature(base.forward).parameters, "it takes no position_ids"),
    ]
    if layout == "trees":
        reasons += [
            (getattr(config, "sliding_window", None), "its layers attend to a sliding window"),
            (attention != "sdpa", f"its attention is '{attention}', and a mask of trees is sure under 'sdpa' alone"),
        ]
    return next((reason for wrong, reason in reasons if wrong), None)


def fit_layout(collator: GroupCollator, model: PreTrainedModel, group: Group, share_prompts: bool) -> GroupCollator:
    """The collator in the fastest layout that this model can read: not refused by name, and right on a first group.

    Tried are `trees`, where prompts may be shared, then `packed`; what is left is `padded`, which every model reads. Log-probs
    must equal those of single sequences to 1e-5 (relative, of the group); in bfloat16 and float16 to 1e-3, and three times
    what padding changes. One line warns of each layout that a model cannot read.
    """
    config = model.config.get_text_config()
    one_row = getattr(config, "_attn_implementation", None) not in ("sdpa", "eager")  # others skip what is masked
    tried: list[tuple[Layout, str]] = [("packed", "sequences are padded")]
    if share_prompts:
        tried.insert(0, ("trees", "prompts are not shared"))
    for layout, otherwise in tried:
        fitted = replace(collator, layout=layout, one_row=one_row)
        reason = layout_refusal(model, layout) or _difference(fitted, model, group)
        if reason is None:
            return fitted
        logger.warning("%s, which is slower: %s (%s)", otherwise, reason, type(model).__name__)
    return collator


@torch.no_grad()
def _difference(fitted: GroupCollator, model: PreTrainedModel, group: Group) -> str | None:
    training = model.training
    padded = replace(fitted, layout="padded", one_row=False)
    logps: list[torch.Tensor] = []
    model.eval()
    try:
        for collator in (replace(padded, micro_batch_size=1), padded, fitted):
            logps.append(batch_logprobs(model, send_to_device(collator([group])["pieces"], model.device)))
    finally:
        model.train(training)
    alone, with_padding, got = logps
    if torch.finfo(model.dtype).bits >= 32:
        allowed = 1e-5 * alone.norm()
    else:  # padding alone moves a sum of 50 log-probs by half a percent here
        allowed = 1e-3 * alone.norm() + 3 * (with_padding - alone).norm()
    if (got - alone).norm() <= allowed:
        return None
    return f"log-probs of the first group come out otherwise, by up to {(got - alone).abs().max():.2g} nats"
