"""The page of a trained model: what it was made from, with which settings, and what it does on the held-out pairs."""

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from rpo_data.schemas.citation import CITATION

if TYPE_CHECKING:
    from rpo_data.trainer.trainer import RPOTrainer

_SETTINGS = (
    "loss_type", "beta", "temperature", "normalize", "learning_rate", "lr_scheduler_type", "warmup_steps", "optim",
    "per_device_train_batch_size", "gradient_accumulation_steps", "max_length", "bf16", "fp16", "seed",
)  # fmt: skip
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


def model_card(trainer: "RPOTrainer", **metadata: Any) -> str:
    """README.md of a model on the Hub, as text.

    Args:
        trainer: after training; its log is where the held-out results come from.
        metadata: license, language, tags, dataset, model_name, finetuned_from, as in Trainer.create_model_card.
    """
    given = {name: value for name, value in metadata.items() if value is not None}
    base = given.pop("finetuned_from", None) or trainer.model.config._name_or_path
    title = given.pop("model_name", None) or Path(trainer.args.output_dir).name
    adapters = hasattr(trainer.model, "peft_config")
    tags = given.pop("tags", [])
    head: dict[str, Any] = {"library_name": "peft" if adapters else "transformers"}
    if _HUB_ID.fullmatch(str(base)) and not Path(base).exists():
        head["base_model"] = str(base)
    head["tags"] = ["rpo-data", "preference-optimization", *([tags] if isinstance(tags, str) else tags)]
    head |= {"datasets" if name == "dataset" else name: value for name, value in given.items()}
    what = "Adapters for" if adapters else "Trained from"
    method = _METHODS.get(trainer.args.loss_type, _METHODS["rpo"])
    sections = [
        f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---",
        f"# {title}",
        f"{what} `{base if 'base_model' in head else Path(base).name}` with {method}, on a contrast dataset made by rpo-data.",
        "## Dataset",
        _dataset(trainer),
        "## Settings",
        _settings(trainer),
        "## Held-out pairs",
        _results(trainer.state.log_history),
        f"## Citation\n\n```bibtex\n{CITATION}\n```",
    ]
    return "\n\n".join(sections) + "\n"


def _dataset(trainer: "RPOTrainer") -> str:
    manifest = trainer.manifest
    if manifest is None:
        return "None was given."
    digest = hashlib.sha256(manifest.to_json().encode()).hexdigest()
    rows = ", ".join(f"{info.rows:,} {split}" for split, info in manifest.splits.items())
    return f"sha256 of its manifest.json: `{digest}`\n\nRows: {rows} ({manifest.mode} mode)"


def _settings(trainer: "RPOTrainer") -> str:
    values = {name: getattr(trainer.args, name) for name in _SETTINGS if hasattr(trainer.args, name)}
    values |= {"processes": trainer.accelerator.num_processes, "steps": trainer.state.global_step}
    for adapter in getattr(trainer.model, "peft_config", {}).values():
        values |= {
            name: getattr(adapter, name) for name in ("r", "lora_alpha", "lora_dropout") if hasattr(adapter, name)
        }
    return "\n".join(
        ["| setting | value |", "|---|---|", *(f"| {n} | {getattr(v, 'value', v)} |" for n, v in values.items())]
    )


def _results(log: list[dict[str, float]]) -> str:
    held_out = [entry for entry in log if "eval_loss" in entry]
    if not held_out:
        return "Nothing was held out."
    columns = [("before", entry) for entry in held_out[:1] if entry["step"] == 0] + [("after", held_out[-1])]
    rows = [
        f"| {text} | " + " | ".join(f"{entry[f'eval_{name}']:.4f}" for _, entry in columns) + " |"
        for name, text in _FIGURES.items()
        if f"eval_{name}" in held_out[-1]
    ]
    names = " | ".join(name for name, _ in columns)
    return "\n".join([f"| | {names} |", "|---|" + "---|" * len(columns), *rows])
