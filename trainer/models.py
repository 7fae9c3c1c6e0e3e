"""Load, fingerprint and still a model."""

import json
import re
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from rpo_data.errors import TrainingError

# names, places and versions in the settings of a model or a peft adapter
_NOT_CONTENT = (
    "_name_or_path", "transformers_version", "use_cache", "bos_token_id", "eos_token_id", "pad_token_id",
    "base_model_name_or_path", "revision", "peft_version", "inference_mode", "auto_mapping",
)  # fmt: skip
_PEFT_WRAPPERS = re.compile(r"\b(base_layer|original_module)\.")  # in the names of weights that peft wraps


def load_model(name: str | Path) -> PreTrainedModel:
    """A causal language model in float32: in bfloat16 a step of the paper's size (5e-7) would be rounded away.

    Raises:
        TrainingError: it cannot be loaded.
    """
    return _load("model", AutoModelForCausalLM, name, dtype=torch.float32)


def load_tokenizer(name: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer that belongs to a model.

    Raises:
        TrainingError: it cannot be loaded.
    """
    tokenizer = _load("tokenizer", AutoTokenizer, name)
    if not tokenizer("a")["input_ids"]:
        raise TrainingError(f"'{name}' holds no tokenizer: save one beside the model with tokenizer.save_pretrained")
    return tokenizer


def padding_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id to pad with. Padding is masked everywhere, so any token will do where the tokenizer has none for it."""
    return next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)


def disable_dropout(model: nn.Module) -> None:
    """Set every dropout of a model to 0 in place; what is saved with its config stays as it was."""
    for module in model.modules():
        for name, value in list(vars(module).items()):  # attention layers keep theirs as plain numbers
            if isinstance(value, float) and ("drop" in name or isinstance(module, nn.Dropout)):
                setattr(module, name, 0.0)


def model_id(model: PreTrainedModel) -> str:
    """Class, content and number type of a model, as a folder name: equal ids give equal log-probs.

    The weights are hashed as they lie in memory, so files, shards and Hub commits of one checkpoint have one id. Active
    peft adapters and their settings are part of it; with adapters switched off it is the id of the model below them.

    Raises:
        TrainingError: some weights are not in memory.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    active = _active_adapters(model)
    left_out, weights = {*getattr(model, "peft_config", {})} - {*active}, {}
    for part in (base, getattr(model, "prompt_encoder", nn.Module())):  # peft keeps tuned prompts beside the model
        for name, tensor in part.state_dict().items():
            if left_out.isdisjoint(name.split(".")):
                weights[_PEFT_WRAPPERS.sub("", name)] = tensor
    settings = [model.config.to_dict(), *(adapter.to_dict() for adapter in active.values())]
    content = [{key: value for key, value in item.items() if key not in _NOT_CONTENT} for item in settings]
    digest = xxhash.xxh3_128(json.dumps(content, sort_keys=True, default=_as_json).encode())
    for name, tensor in sorted(weights.items(), key=lambda item: item[0]):
        if tensor.is_meta:
            raise TrainingError(f"the weights '{name}' are not in memory: load the model whole, without offloading")
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return f"{type(base).__name__}-{digest.hexdigest()}-{str(base.dtype).removeprefix('torch.')}"


def _active_adapters(model: PreTrainedModel) -> dict[str, Any]:
    """Settings of the peft adapters that take part in a forward pass, by name; none within peft's `disable_adapter`."""
    adapters = getattr(model, "peft_config", {})
    off = any(getattr(module, "disable_adapters", None) is True for module in model.modules())  # else it is a method
    if not adapters or off or not getattr(model, "has_active_enabled_adapter", True):
        return {}
    active = model.active_adapters() if callable(model.active_adapters) else model.active_adapters
    return {name: adapters[name] for name in sorted(active)}


def _as_json(value: Any) -> Any:
    return sorted(value) if isinstance(value, set) else str(value)


def _load(what: str, kind: Any, name: str | Path, **settings: Any) -> Any:
    try:
        return kind.from_pretrained(str(name), trust_remote_code=False, **settings)
    except Exception as error:  # torn weights, wrong sizes, no network: four libraries raise their own kinds
        reason = str(error).strip().split("\n")[0].rstrip(".")
        there = "" if Path(name).exists() else "there is no such folder; as a Hub id: "
        raise TrainingError(
            f"{what} '{name}' cannot be loaded ({there}{reason}): give a folder that save_pretrained wrote, or a Hub id"
        ) from error
