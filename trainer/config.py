"""RPOConfig: transformers.TrainingArguments plus what this loss needs."""

from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import get_args

from transformers import TrainingArguments

from rpo_data.errors import TrainingError
from rpo_data.trainer.loss import LOSS_TYPES
from rpo_data.weights import Normalize

_SHUFFLES = ("random", "sequential")


@dataclass
class RPOConfig(TrainingArguments):
    """Settings of a training run. Batch sizes count contrast groups: the paper's 8 pairs a GPU are one group of eight.

    >>> RPOConfig(output_dir="run", loss_type="diagonal", num_train_epochs=1).beta
    0.1
    """

    learning_rate: float = field(default=5e-7, metadata={"help": "Peak learning rate (paper: 5e-7)."})
    per_device_train_batch_size: int = field(default=1, metadata={"help": "Contrast groups a step and device."})
    per_device_eval_batch_size: int = field(default=1, metadata={"help": "Contrast groups an evaluation step."})
    logging_steps: float = field(default=10, metadata={"help": "Steps between two lines of the log."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Must stay off: a row is a whole group."})
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "Must stay off: it shows NaN as 0."})
    fsdp: bool | str | None = field(  # type: ignore[assignment]  # it takes True, and says it takes text alone
        default=None, metadata={"help": "Shard model and optimizer over the processes' GPUs (FSDP2)."}
    )
    beta: float = field(default=0.1, metadata={"help": "How strongly the policy is held to the reference."})
    loss_type: str = field(default="rpo", metadata={"help": f"One of {', '.join(LOSS_TYPES)}."})
    temperature: float | None = field(
        default=None, metadata={"help": "Weigh the cells anew at this temperature [as the dataset was built]."}
    )
    normalize: str | None = field(
        default=None, metadata={"help": "Weigh them anew by row, sinkhorn or none [as the dataset was built]."}
    )
    diagonal_alpha: float = field(default=0.8, metadata={"help": "Share of the pairs' own cells under 'diagonal'."})
    max_length: int | None = field(default=1024, metadata={"help": "Longest sequence in tokens; none: no limit."})
    disable_dropout: bool = field(default=True, metadata={"help": "Train without dropout, as the reference is scored."})
    share_prompts: bool = field(
        default=True, metadata={"help": "Read each prompt once for all its responses, where the model can."}
    )
    micro_batch_size: int | None = field(
        default=None, metadata={"help": "Sequences a forward pass, in two passes, to save memory; none: all in one."}
    )
    cache_dir: str | None = field(
        default=None, metadata={"help": "Where reference log-probs are kept [$XDG_CACHE_HOME/rpo-data]."}
    )

    def __post_init__(self) -> None:
        """Refuse what cannot work before anything is loaded.

        Raises:
            TrainingError: a setting of ours is out of range, or one of transformers' does not go with contrast groups.
        """
        super().__post_init__()
        if self.loss_type not in LOSS_TYPES:
            near = get_close_matches(str(self.loss_type), LOSS_TYPES, n=1)
            hint = f"did you mean '{near[0]}'? " if near else ""
            raise TrainingError(
                f"loss_type '{self.loss_type}' is not known: {hint}it is one of {', '.join(LOSS_TYPES)}"
            )
        if not 0 < self.beta < float("inf"):
            raise TrainingError(f"beta {self.beta} cannot work: it must be greater than 0 and finite (paper: 0.1)")
        if self.temperature is not None and not 0 < self.temperature < float("inf"):
            raise TrainingError(f"temperature {self.temperature} cannot work: it must be greater than 0 and finite")
        if self.normalize not in (None, *get_args(Normalize)):
            raise TrainingError(
                f"normalize '{self.normalize}' is not known: it is one of {', '.join(get_args(Normalize))}"
            )
        if not 0 <= self.diagonal_alpha <= 1:
            raise TrainingError(
                f"diagonal_alpha {self.diagonal_alpha} cannot work: it is a share, between 0 and 1 (paper: 0.8)"
            )
        if self.max_length is not None and self.max_length < 4:
            raise TrainingError(
                f"max_length {self.max_length} cannot work: it must hold a piece of prompt and of response, so at "
                "least 4 tokens; none sets no limit"
            )
        self._refuse_out_of_range()
        self._refuse_what_groups_cannot_do()

    def _refuse_out_of_range(self) -> None:
        for name in ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name} {getattr(self, name)} cannot work: it must be at least 1")
        if self.micro_batch_size is not None and self.micro_batch_size < 1:
            raise TrainingError(
                f"micro_batch_size {self.micro_batch_size} cannot work: it must be at least 1; none takes a batch whole"
            )
        if not 0 <= self.learning_rate < float("inf"):
            raise TrainingError(f"learning_rate {self.learning_rate} cannot work: it must be finite and not negative")
        if not 0 <= self.seed < 2**32:
            raise TrainingError(f"seed {self.seed} cannot work: it must be at least 0 and below 2^32")

    def _refuse_what_groups_cannot_do(self) -> None:
        if self.remove_unused_columns:
            raise TrainingError("remove_unused_columns cannot be on: a row is a whole contrast group; leave it off")
        if self.dataloader_drop_last:
            raise TrainingError("dataloader_drop_last would leave groups out of the evaluation: leave it off")
        if self.label_smoothing_factor:
            raise TrainingError(
                f"label_smoothing_factor {self.label_smoothing_factor} has no meaning here: there are no labels; leave "
                "it at 0"
            )
        if self.train_sampling_strategy not in _SHUFFLES:
            raise TrainingError(
                f"train_sampling_strategy '{self.train_sampling_strategy}' sorts single sequences, and a row is a whole "
                f"contrast group: use one of {', '.join(_SHUFFLES)}"
            )
        if self.bf16_full_eval or self.fp16_full_eval:
            raise TrainingError(
                "bf16_full_eval and fp16_full_eval change the policy's number type for good, and with it its distance "
                "to the reference: use bf16 or fp16"
            )
