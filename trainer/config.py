"""RPOConfig: transformers.TrainingArguments plus what this loss needs."""

import copy
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from math import inf
from typing import Any, get_args

import torch
from transformers import TrainingArguments
from transformers.utils import is_torch_xla_available

from rpo_data.errors import TrainingError
from rpo_data.trainer.loss import LOSS_TYPES
from rpo_data.weights import Normalize

_CHOICES = {"loss_type": LOSS_TYPES, "normalize": get_args(Normalize)}
_COUNTS = ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps")


def _whole(least: int) -> Callable[[Any], bool]:
    return lambda v: v is None or (isinstance(v, int) and v >= least)


_LIMITS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "beta": (lambda v: 0 < v < inf, "it must be greater than 0 and finite (paper: 0.1)"),
    "temperature": (lambda v: v is None or 0 < v < inf, "it must be greater than 0 and finite"),
    "diagonal_alpha": (lambda v: 0 <= v <= 1, "it is a share, between 0 and 1 (paper: 0.8)"),
    "max_length": (_whole(4), "it must be a whole number, at least 4; none sets no limit"),
    **dict.fromkeys(_COUNTS, (lambda v: v >= 1, "it must be at least 1")),
    "micro_batch_size": (_whole(1), "it must be a whole number, at least 1; none takes a batch whole"),
    "learning_rate": (lambda v: 0 <= v < inf, "it must be finite and not negative"),
    "seed": (lambda v: 0 <= v < 2**32, "it must be at least 0 and below 2^32"),
    "remove_unused_columns": (lambda v: not v, "a row is a whole contrast group; leave it off"),
    "dataloader_drop_last": (lambda v: not v, "it would leave groups out of the evaluation; leave it off"),
    "logging_nan_inf_filter": (lambda v: not v, "it shows a loss that is not finite as 0; leave it off"),
    "label_smoothing_factor": (lambda v: not v, "there are no labels here; leave it at 0"),
    "train_sampling_strategy": (
        lambda v: v in ("random", "sequential"),
        "a row is a whole contrast group; use random or sequential",
    ),
    "n_gpu": (lambda v: v <= 1, "it cuts batches up; start a process a GPU (torchrun), or set CUDA_VISIBLE_DEVICES=0"),
    "fp16": (lambda v: not v or torch.accelerator.is_available(), "it needs a GPU, a CPU would not heed it; use bf16"),
    "auto_find_batch_size": (lambda v: not v, "a batch too large is one sentence here; set micro_batch_size instead"),
    "accelerator_config": (lambda v: not v.dispatch_batches, "dispatch_batches cuts batches up; leave it off"),
    "bf16_full_eval": (lambda v: not v, "it changes the policy's number type for good; use bf16"),
    "fp16_full_eval": (lambda v: not v, "it changes the policy's number type for good; use fp16"),
}
"""What a setting must be, and what is said where it is not."""


def _setting(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass
class RPOConfig(TrainingArguments):
    """Settings of a training run. Batch sizes count contrast groups: the paper's 8 pairs a GPU are one group of eight.

    >>> RPOConfig(output_dir="run", loss_type="diagonal", num_train_epochs=1).beta
    0.1
    """

    learning_rate: float = _setting(5e-7, "Peak learning rate (paper: 5e-7).")
    per_device_train_batch_size: int = _setting(1, "Contrast groups a step and device.")
    per_device_eval_batch_size: int = _setting(1, "Contrast groups an evaluation step.")
    logging_steps: float = _setting(10, "Steps between two lines of the log.")
    remove_unused_columns: bool = _setting(False, "Must stay off: a row is a whole group.")
    logging_nan_inf_filter: bool = _setting(False, "Must stay off: it shows NaN as 0.")
    fsdp: bool | str | None = _setting(None, "Shard model and optimizer over GPUs (FSDP2).")  # type: ignore[assignment]
    beta: float = _setting(0.1, "How strongly the policy is held to the reference.")
    loss_type: str = _setting("rpo", f"One of {', '.join(LOSS_TYPES)}.")
    temperature: float | None = _setting(None, "Weigh the cells anew at this temperature [as the dataset was built].")
    normalize: str | None = _setting(None, "Weigh them anew by row, sinkhorn or none [as the dataset was built].")
    diagonal_alpha: float = _setting(0.8, "Share of the pairs' own cells under 'diagonal'.")
    max_length: int | None = _setting(1024, "Longest sequence in tokens; none: no limit.")
    disable_dropout: bool = _setting(True, "Train without dropout, as the reference is scored.")
    share_prompts: bool = _setting(True, "Read each prompt once for all its responses, where the model can.")
    micro_batch_size: int | None = _setting(None, "Sequences a forward pass, to save memory; none: all in one.")
    cache_dir: str | None = _setting(None, "Where reference log-probs are kept [$XDG_CACHE_HOME/rpo-data].")

    def __post_init__(self) -> None:
        """Refuse what cannot work before anything is loaded.

        Raises:
            TrainingError: a setting of ours is out of range, or one of transformers' does not go with contrast groups.
        """
        if self.bf16 and not (torch.accelerator.is_available() or is_torch_xla_available()):
            self.use_cpu = True  # where there is nothing else; transformers wants to be told
        super().__post_init__()
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices and value != getattr(type(self), name):
                near = get_close_matches(str(value), choices, n=1)
                hint = f"did you mean '{near[0]}'? " if near else ""
                raise TrainingError(f"{name} '{value}' is not known: {hint}it is one of {', '.join(choices)}")
        for name, (works, why) in _LIMITS.items():
            value = getattr(self, name)
            with suppress(TypeError):  # of a text where a number belongs
                if works(value):
                    continue
            raise TrainingError(f"{name} {value!r} cannot work: {why}")

    def for_scoring(self, output_dir: str) -> "RPOConfig":
        """The same settings for a trainer that scores the reference and is then done: it reports and pushes nothing."""
        settings = copy.copy(self)
        settings.output_dir, settings.report_to, settings.push_to_hub = output_dir, [], False
        settings.eval_strategy, settings.load_best_model_at_end = "no", False
        return settings
