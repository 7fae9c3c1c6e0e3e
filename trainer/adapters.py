"""Adapters through peft: the policy is a base model with adapters, and its reference is the same model with them off."""

import warnings
from typing import Any

from transformers import PreTrainedModel, set_seed

from rpo_data.errors import MissingExtra, TrainingError


def add_adapters(model: PreTrainedModel, peft_config: Any, seed: int) -> PreTrainedModel:
    """The model with fresh adapters, which alone are trained; their first values hang on nothing but the seed.

    Args:
        model: base model; it is changed in place.
        peft_config: a peft.LoraConfig, or another config whose adapters leave the base weights as they are.
        seed: of the adapters' first values.

    Raises:
        MissingExtra: peft is not installed.
        TrainingError: the model has adapters, or the config would change what the reference is.
    """
    try:
        from peft import get_peft_model
    except ImportError as error:
        raise MissingExtra("adapters need peft: pip install 'rpo-data[lora]'") from error

    if hasattr(model, "peft_config"):
        raise TrainingError("the model has adapters already: merge them (merge_and_unload), or ask for no new ones")
    start = getattr(peft_config, "init_lora_weights", True)
    if not isinstance(start, bool) and start != "gaussian":
        raise TrainingError(f"init_lora_weights '{start}' changes the base, the reference: use true or gaussian")
    if peft_config.is_prompt_learning:
        raise TrainingError(f"{peft_config.peft_type.value} adds tokens to the prompt: use adapters such as LoRA")
    set_seed(seed)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft (0.21) asks transformers (5.23) by an old name
            return get_peft_model(model, peft_config)
    except ValueError as error:
        raise TrainingError(f"these adapters do not fit the model: {' '.join(str(error).split())[:300]}") from error
