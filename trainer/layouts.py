"""Which layout of sequences a model can read (see packing.py): asked by name, then tried on a first group."""

import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rpo_data.errors import TrainingError
from rpo_data.trainer.attention import PART_BY_PART
from rpo_data.trainer.collator import Group, GroupCollator
from rpo_data.trainer.logprobs import evaluated_logprobs
from rpo_data.trainer.packing import Layout

logger = logging.getLogger(__name__)

_FLEX_TOKENS = 8192
"""With fewer in a pass FlexAttention does not pay (docs/training.md, "How fast")."""

_WITH_MASKS = ("sdpa", "flex_attention", PART_BY_PART)
Way = tuple[Layout, str | None, str]
_NOT_FINITE = "the model gives log-probs that are not finite: its weights are damaged, or need a wider dtype"
_EXACT, _ROUGH = 1e-5, 2e-2
"""Of 16-bit log-probs padding alone moves a sum of 50 by half a percent."""


def layout_refusal(model: PreTrainedModel, layout: Layout) -> str | None:
    """Why this model cannot read `trees` or `packed` sequences, as far as its class and config say; else None."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model  # below adapters
    config = base.config.get_text_config()
    trees, known = layout == "trees", {"full_attention", *(["sliding_attention"] if layout == "packed" else [])}
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
        (trees and getattr(config, "sliding_window", None), "its layers attend to a sliding window"),
        (trees and attention not in _WITH_MASKS, f"its attention, '{attention}', takes no mask of trees, as sdpa does"),
    ]
    return next((reason for wrong, reason in reasons if wrong), None)


def fit_layout(collator: GroupCollator, model: PreTrainedModel, group: Group, share_prompts: bool) -> GroupCollator:
    """The collator in the fastest layout that this model can read: not refused by name, and right on a first group.

    Tried are `trees`, where prompts may be shared, then `packed`; what is left is `padded`, which every model reads. Where the
    attention is sdpa, trees are tried first with one that skips what is masked, and if they are right the model (of one that
    reads images the text part) keeps it: on a CPU `part_by_part`, on a GPU FlexAttention for long groups. Log-probs must equal
    those of single sequences to 1e-5 (relative, of the group), with the weights in float32; where the attention or the memory
    does not allow that, to 2e-2. One line warns of each layout that fails.

    Raises:
        TrainingError: memory cannot hold the group.
    """
    ways = _ways_to_try(collator, model, group, share_prompts)
    if ways[-1][1] in ("eager", *_WITH_MASKS):  # those of float32
        with suppress(TrainingError, torch.OutOfMemoryError), _in_float32(model):  # memory may hold 16 bits alone
            return _first_right(collator, model, group, ways, _EXACT)
    return _first_right(collator, model, group, ways, _ROUGH)


def _ways_to_try(collator: GroupCollator, model: PreTrainedModel, group: Group, share_prompts: bool) -> list[Way]:
    """Layouts and attentions, the fastest first, and what a warning says where one fails."""
    attention = model.config.get_text_config()._attn_implementation
    if attention == PART_BY_PART:  # of an earlier trainer
        attention = "sdpa"
    ways: list[Way] = [("packed", attention, "sequences are padded")]
    if share_prompts:
        ways.insert(0, ("trees", attention, "prompts are not shared"))
    if share_prompts and attention == "sdpa" and layout_refusal(model, "trees") is None:
        if model.device.type == "cpu":
            ways.insert(0, ("trees", PART_BY_PART, "masked places are computed"))
        elif model.device.type == "cuda" and getattr(model, "_supports_flex_attn", False):
            pieces = replace(collator, layout="trees", one_row=True)([group])["pieces"]
            if max(piece["input_ids"].numel() for piece in pieces) > _FLEX_TOKENS:
                ways.insert(0, ("trees", "flex_attention", "FlexAttention is not used"))
    return ways


def _first_right(
    collator: GroupCollator, model: PreTrainedModel, group: Group, ways: list[Way], tolerance: float
) -> GroupCollator:
    padded, config = replace(collator, layout="padded", one_row=False), model.config.get_text_config()
    alone: Tensor | None = None
    for layout, attention, otherwise in ways:
        one_row = attention not in ("sdpa", "eager")  # others skip what is masked
        fitted = replace(collator, layout=layout, one_row=one_row)
        reason = layout_refusal(model, layout)
        if reason is None:
            if alone is None:
                alone = evaluated_logprobs(model, replace(padded, micro_batch_size=1)([group])["pieces"])
                if not alone.isfinite().all():
                    raise TrainingError(_NOT_FINITE)
            try:
                if attention != config._attn_implementation:
                    config._attn_implementation = attention
                difference = evaluated_logprobs(model, fitted([group])["pieces"]) - alone
            except TrainingError:
                config._attn_implementation = ways[-1][1]
                raise
            except (ValueError, RuntimeError) as error:  # no such attention for this model, or no compiler for it
                reason = " ".join(str(error).split())[:200]
            else:
                if difference.norm() <= tolerance * alone.norm():
                    return fitted
                reason = f"log-probs of the first group come out otherwise, by up to {difference.abs().max():.2g} nats"
        logger.warning("%s, which is slower: %s (%s)", otherwise, reason, type(model).__name__)
    return padded


@contextmanager
def _in_float32(model: PreTrainedModel) -> Iterator[None]:
    """Weights of 16 bits in float32 for a while; there and back again changes no bit."""
    half = [(weight, weight.dtype) for weight in model.parameters() if weight.dtype in (torch.bfloat16, torch.float16)]
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")  # TF32 would be a thousandth off
    try:
        for weight, _ in half:
            weight.data = weight.data.float()
        yield
    finally:
        for weight, dtype in half:
            weight.data = weight.data.to(dtype)
        torch.set_float32_matmul_precision(precision)
