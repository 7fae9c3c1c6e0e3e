"""The folder of a training run: the note of what it holds (rpo_run.json), its checkpoints, and what is refused there."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xxhash

from rpo_data.dataset import ContrastDataset
from rpo_data.errors import TrainingError
from rpo_data.trainer import RPOConfig

FIXED_BY_A_RUN = (
    "bf16",
    "fp16",
    "beta",
    "loss_type",
    "diagonal_alpha",
    "max_length",
    "temperature",
    "normalize",
    "learning_rate",
    "seed",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "optim",
    "optim_args",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "weight_decay",
    "max_grad_norm",
    "warmup_steps",
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "data_seed",
    "train_sampling_strategy",
    "disable_dropout",
)
_NOTE = "rpo_run.json"


def last_checkpoint(out: Path) -> str | None:
    """The newest checkpoint in a folder that was written to its end: transformers writes the trainer's state last."""
    folders = [path for path in out.glob("checkpoint-*") if path.name.partition("-")[2].isdigit()]
    for folder in sorted(folders, key=lambda path: -int(path.name.partition("-")[2])):
        try:
            json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
            return str(folder)
        except (OSError, ValueError):
            continue  # a kill while it was saved
    return None


def holds_run(out: Path) -> bool:
    """Whether a folder holds a checkpoint or trained weights, and not a note alone."""
    return last_checkpoint(out) is not None or any(out.glob("*.safetensors"))


def identity(args: RPOConfig, lora: Mapping[str, Any] | None, dataset: ContrastDataset) -> dict[str, Any]:
    """What may not change when a run is resumed, as far as it is known before a model is loaded."""
    tables = json.dumps(dataset.manifest.tables, sort_keys=True).encode()
    fixed = {name: getattr(args, name) for name in FIXED_BY_A_RUN}
    return fixed | {"lora": lora, "dataset": xxhash.xxh3_128_hexdigest(tables)}


def check_folder(out: Path) -> None:
    """Refuse a folder that no run can go on in.

    Raises:
        TrainingError: it holds something else (a model, a dataset, somebody's work), or a checkpoint without optimizer.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / _NOTE).is_file()):
        raise TrainingError(f"{out} exists and is no training run of rpo-data: choose another --out")
    checkpoint = last_checkpoint(out)
    if checkpoint and not any([*Path(checkpoint).glob("optimizer*"), *Path(checkpoint).glob("global_step*")]):
        raise TrainingError(
            f"{checkpoint} holds no state of the optimizer (save_only_model), so no run can go on from it: "
            "choose another --out"
        )


def check_same_run(out: Path, identity: Mapping[str, Any]) -> None:
    """Refuse where what a folder holds is of another run than the one of this identity, or of a part of it.

    Raises:
        TrainingError: a value differs from the one noted.
    """
    if not holds_run(out):
        return
    found = _note(out)
    for name, value in identity.items():
        if found.get(name) != value:
            raise TrainingError(
                f"{last_checkpoint(out) or out} is of another run: its {name} is {found.get(name, 'not known')}, now it is "
                f"{value}; choose another --out, or ask for the same"
            )


def check_same_length(out: Path, args: RPOConfig) -> None:
    """Refuse to go on from a checkpoint of a run that was ever asked for another length: its schedule was another.

    Raises:
        TrainingError: the note tells of another length.
    """
    noted = _note(out).get("lengths", []) if last_checkpoint(out) else []
    other = next((length for length in noted if length != _length(args)), None)
    if other:
        raise TrainingError(
            f"{out} was asked for {other}, now for {_length(args)}: the two runs would not have the same steps; "
            "choose another --out"
        )


def claim(out: Path, identity: Mapping[str, Any], args: RPOConfig) -> None:
    """Note in a folder which run it holds, and each length that it was asked for.

    Raises:
        TrainingError: it holds another run.
    """
    check_same_run(out, identity)
    lengths = _note(out).get("lengths", []) if last_checkpoint(out) else []
    content = {**identity, "lengths": [*dict.fromkeys([*lengths, _length(args)])]}
    file = out / _NOTE
    out.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    unfinished.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(unfinished, file)


def _length(args: RPOConfig) -> str:
    steps = f"max_steps {args.max_steps}" if args.max_steps > 0 else f"num_train_epochs {args.num_train_epochs:g}"
    return f"{steps} (world size {args.world_size})"


def _note(out: Path) -> dict[str, Any]:
    file = out / _NOTE
    try:
        return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}
    except (ValueError, TypeError) as error:
        raise TrainingError(
            f"{file} is damaged, and what run it is of cannot be known: choose another --out"
        ) from error
