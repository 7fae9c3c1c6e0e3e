"""Train from precomputed contrast groups: Relative Preference Optimization (arXiv 2402.10958).

loss.py       the loss, pure: cells in, scalar out
packing.py    sequences in rows: as trees (each prompt once for all its completions), packed or padded
layouts.py    which of the three a model can read
attention.py  what each token of a tree sees, told to the model's attention
logprobs.py   log-probability of each completion
tokenize.py   chat rows to token ids, once, with every cut counted
collator.py   contrast groups to one batch of tensors
data.py       the groups of one view of a split, as a torch dataset
adapters.py   LoRA through peft: fresh adapters on a base model
reference.py  reference log-probs, computed once and kept on disk
metrics.py    sums that become exact means
models.py     load, fingerprint and still a model
config.py     RPOConfig: TrainingArguments plus what this loss needs
trainer.py    RPOTrainer: overrides of transformers.Trainer, nothing else
trl.py        the same tokens and reference log-probs for TRL's DPOTrainer

Needs none of the packages that build a dataset (faiss, polars, pandera, sentence-transformers).
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from rpo_data.errors import MissingExtra

if TYPE_CHECKING:
    from rpo_data.trainer.config import RPOConfig
    from rpo_data.trainer.loss import rpo_loss
    from rpo_data.trainer.trainer import RPOTrainer
    from rpo_data.trainer.trl import to_trl

_HOMES = {"RPOConfig": "config", "RPOTrainer": "trainer", "rpo_loss": "loss", "to_trl": "trl"}

__all__ = ["RPOConfig", "RPOTrainer", "rpo_loss", "to_trl"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'rpo_data.trainer' has no attribute '{name}'")
    missing = [package for package in ("accelerate", "torch", "transformers") if find_spec(package) is None]
    if missing:
        raise MissingExtra(f"training needs {', '.join(missing)}: pip install 'rpo-data[train]'")
    return getattr(import_module(f"rpo_data.trainer.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
