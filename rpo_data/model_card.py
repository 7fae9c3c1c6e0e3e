"""The page of a trained model: what it was made from, with which settings, and what it does on the held-out pairs."""

import hashlib
import re
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from rpo_data.schemas.citation import CITATION
from rpo_data.schemas.manifest import Manifest

_SETTINGS = (
    "loss_type", "beta", "temperature", "normalize", "learning_rate", "lr_scheduler_type", "warmup_steps", "optim",
    "per_device_train_batch_size", "gradient_accumulation_steps", "max_length", "bf16", "fp16", "seed",
    "processes", "steps",
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


def model_card(model: Any, args: Any, state: Any, manifest: Manifest | None, **metadata: Any) -> str:
    """README.md of a model on the Hub, as text.

    Args:
        model: as it was trained, maybe with peft adapters.
        args: RPOConfig of the run; the settings that say how a model was made are shown.
        state: TrainerState of the run; the held-out results are taken from its log.
        manifest: of the contrast dataset.
        metadata: model_name, finetuned_from, license, language, tags, dataset, as in Trainer.create_model_card.
    """
    given = {name: value for name, value in metadata.items() if value is not None}
    title = given.pop("model_name", None) or Path(args.output_dir).name
    base = str(given.pop("finetuned_from", None) or model.config._name_or_path)
    settings = vars(args) | {"processes": args.world_size, "steps": state.global_step}
    of_adapters = getattr(model, "peft_config", {}).values()
    adapters = {name: value for config in of_adapters for name, value in vars(config).items()} or None
    on_hub, tags = _HUB_ID.fullmatch(base) and not Path(base).exists(), given.pop("tags", [])
    head = ModelCardData(
        library_name="transformers" if adapters is None else "peft",
        base_model=base if on_hub else None,
        tags=["rpo-data", "preference-optimization", *([tags] if isinstance(tags, str) else tags)],
        datasets=given.pop("dataset", None),
        **given,
    )
    what = "Trained from" if adapters is None else "Adapters for"
    method = _METHODS.get(settings["loss_type"], _METHODS["rpo"])
    shown = {name: settings[name] for name in _SETTINGS}
    if manifest is not None:
        built = {"temperature": manifest.temperatures, "normalize": manifest.recipe.normalize}
        shown |= {name: f"{value} (as built)" for name, value in built.items() if shown[name] is None}
    shown |= {name: value for name, value in (adapters or {}).items() if name in _ADAPTER_SETTINGS}
    shown = {name: getattr(value, "value", value) for name, value in shown.items()}
    return f"""---
{head}
---

# {title}

{what} `{base if on_hub else Path(base).name}` with {method}, on a contrast dataset made by rpo-data.

## Dataset

{_dataset(manifest)}

## Settings

{_table([("setting", "value"), *shown.items()])}

## Held-out pairs

{_results(state.log_history)}

## Citation

```bibtex
{CITATION}
```
"""


def _dataset(manifest: Manifest | None) -> str:
    if manifest is None:
        return "None was given."
    digest = hashlib.sha256(manifest.to_json().encode()).hexdigest()
    rows = ", ".join(f"{info.rows:,} {split}" for split, info in manifest.splits.items())
    return f"sha256 of its manifest.json: `{digest}`\n\nRows: {rows} ({manifest.mode} mode)"


def _results(log: list[dict[str, float]]) -> str:
    held_out = [entry for entry in log if "eval_loss" in entry]
    if not held_out:
        return "Nothing was held out."
    columns = {"before": held_out[0]} if held_out[0]["step"] == 0 else {}
    columns["after"] = held_out[-1]
    rows = [
        (text, *(f"{entry[f'eval_{name}']:z.4f}" for entry in columns.values()))
        for name, text in _FIGURES.items()
        if f"eval_{name}" in held_out[-1]
    ]
    return _table([("", *columns), *rows])


def _table(rows: list[tuple]) -> str:
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])
