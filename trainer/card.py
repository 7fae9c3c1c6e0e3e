"""The page of a trained model: what it was made from, with which settings, and what it does on the held-out pairs."""

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelCardData

if TYPE_CHECKING:
    from rpo_data.trainer.trainer import RPOTrainer

_SETTINGS = (
    "loss_type", "beta", "temperature", "normalize", "learning_rate", "lr_scheduler_type", "warmup_steps", "optim",
    "per_device_train_batch_size", "gradient_accumulation_steps", "max_length", "bf16", "fp16", "seed",
)  # fmt: skip
_ADAPTER_SETTINGS = ("r", "lora_alpha", "lora_dropout")
_FIGURES = {
    "loss": "loss",
    "rewards/accuracies": "accuracy",
    "rewards/margins": "margin of rewards",
    "logps/chosen": "log-prob of chosen (nats)",
    "logps/rejected": "log-prob of rejected (nats)",
}
_METHODS = {
    "rpo": "[Relative Preference Optimization](https://arxiv.org/abs/2402.10958)",
    "dpo": "[Direct Preference Optimization](https://arxiv.org/abs/2305.18290)",
    "ipo": "[Identity Preference Optimization](https://arxiv.org/abs/2310.12036)",
    "lipo": "[Listwise Preference Optimization](https://arxiv.org/abs/2402.01878)",
    "joint": "[Joint Preference Optimization](https://arxiv.org/abs/2404.00530)",
}
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_CITATION = """@article{yin2024relative,
  title   = {Relative Preference Optimization: Enhancing {LLM} Alignment through Contrasting Responses across Identical and Diverse Prompts},
  author  = {Yin, Yueqin and Wang, Zhendong and Gu, Yi and Huang, Hai and Chen, Weizhu and Zhou, Mingyuan},
  journal = {arXiv preprint arXiv:2402.10958},
  year    = {2024}
}"""  # noqa: E501


def model_card(trainer: "RPOTrainer", **metadata: Any) -> str:
    """README.md of a model on the Hub, as text.

    Args:
        trainer: after training; its log is where the held-out results come from.
        metadata: license, language, tags, dataset, model_name, finetuned_from, as in Trainer.create_model_card.
    """
    given = {name: value for name, value in metadata.items() if value is not None}
    base = str(given.pop("finetuned_from", None) or trainer.model.config._name_or_path)
    on_hub, adapters = _HUB_ID.fullmatch(base) and not Path(base).exists(), hasattr(trainer.model, "peft_config")
    title, tags = given.pop("model_name", Path(trainer.args.output_dir).name), given.pop("tags", [])
    head = ModelCardData(
        library_name="peft" if adapters else "transformers",
        base_model=base if on_hub else None,
        tags=["rpo-data", "preference-optimization", *([tags] if isinstance(tags, str) else tags)],
        datasets=given.pop("dataset", None),
        **given,
    )
    what, method = "Adapters for" if adapters else "Trained from", _METHODS.get(trainer.args.loss_type, _METHODS["rpo"])
    return f"""---
{head}
---

# {title}

{what} `{base if on_hub else Path(base).name}` with {method}, on a contrast dataset made by rpo-data.

## Dataset

{_dataset(trainer)}

## Settings

{_settings(trainer)}

## Held-out pairs

{_results(trainer.state.log_history)}

## Citation

```bibtex
{_CITATION}
```
"""


def _dataset(trainer: "RPOTrainer") -> str:
    manifest = trainer.manifest
    if manifest is None:
        return "None was given."
    digest = hashlib.sha256(manifest.to_json().encode()).hexdigest()
    rows = ", ".join(f"{info.rows:,} {split}" for split, info in manifest.splits.items())
    return f"sha256 of its manifest.json: `{digest}`\n\nRows: {rows} ({manifest.mode} mode)"


def _settings(trainer: "RPOTrainer") -> str:
    values = {name: getattr(trainer.args, name) for name in _SETTINGS}
    values |= {"processes": trainer.accelerator.num_processes, "steps": trainer.state.global_step}
    for adapter in getattr(trainer.model, "peft_config", {}).values():
        values |= {name: value for name, value in vars(adapter).items() if name in _ADAPTER_SETTINGS}
    return _table([("setting", "value"), *((name, getattr(value, "value", value)) for name, value in values.items())])


def _results(log: list[dict[str, float]]) -> str:
    held_out = [entry for entry in log if "eval_loss" in entry]
    if not held_out:
        return "Nothing was held out."
    columns = {"before": held_out[0]} if held_out[0]["step"] == 0 else {}
    columns["after"] = held_out[-1]
    rows = [
        (text, *(f"{entry[f'eval_{name}']:.4f}" for entry in columns.values()))
        for name, text in _FIGURES.items()
        if f"eval_{name}" in held_out[-1]
    ]
    return _table([("", *columns), *rows])


def _table(rows: list[tuple]) -> str:
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])
