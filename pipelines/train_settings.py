"""Settings of a training run, from YAML and command line, cast to what RPOConfig's fields hold."""

import difflib
import re
import textwrap
import types
import typing
from collections.abc import Mapping
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from rpo_data.dataset import ContrastDataset
from rpo_data.errors import MissingExtra, TrainingError
from rpo_data.pipelines.recipes import read_yaml
from rpo_data.schemas.recipe import Recipe
from rpo_data.trainer import RPOConfig
from rpo_data.trainer.metrics import TOTALS

_SET_ELSEWHERE = {
    "output_dir": "it is what --out says",
    "resume_from_checkpoint": "a checkpoint in --out is resumed by itself",
    "save_only_model": "a run goes on from its checkpoints, which need the optimizer; save_total_limit keeps them few",
    "eval_on_start": "the test split is measured before the first step by itself",
    "disable_tqdm": "a line a step is shown instead of a bar, see logging_steps",
}
_LORA = "lora_"
_WORDS = ("all-linear", "none", "null")
_PATTERN = re.compile(r"[*+?()\[\]{}\\^$|]")
_SCIENTIFIC = re.compile(r"[-+]?\d+\.?\d*[eE][-+]?\d+")
_YES, _NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def make_config(settings: Mapping[str, Any], out: Path) -> RPOConfig:
    """RPOConfig from settings by name, whose values may be text; those of `make_lora` are passed over.

    Raises:
        TrainingError: a name is not known, a value is not of its field's type, or the settings cannot work together.
    """
    hints = typing.get_type_hints(RPOConfig)
    names = [item.name for item in fields(RPOConfig) if item.init and item.name not in _SET_ELSEWHERE]
    values: dict[str, Any] = {"logging_first_step": True, "report_to": "none"}
    values["dataloader_pin_memory"] = torch.cuda.is_available()  # else torch warns of it at each evaluation
    for name, value in settings.items():
        if name.startswith(_LORA):
            continue
        if name in _SET_ELSEWHERE:
            raise TrainingError(f"'{name}' cannot be set: {_SET_ELSEWHERE[name]}")
        if name not in names:
            raise TrainingError(f"'{name}' is no setting of a training run: {_what_instead(name, names)}")
        values[name] = _cast(name, value, hints[name])
    try:
        args = RPOConfig(**values | {"output_dir": str(out), "disable_tqdm": True})
    except (ValueError, TypeError, ImportError) as error:
        raise TrainingError(f"these training settings cannot work: {in_short(error)}") from error
    return args


def check_metric(name: str | None, dataset: ContrastDataset) -> None:
    """Refuse what no evaluation gives now, and not where transformers first looks for it, at the first checkpoint.

    Raises:
        TrainingError: there is no such metric, or it needs pairs and no held-out group has one.
    """
    if name is None:
        return
    metrics = ["loss", *(metric for metric, over in TOTALS.items() if over and metric.startswith(("rewards", "logps")))]
    if "test" in dataset.splits and not _has_pairs(dataset):
        metrics = [metric for metric in metrics if TOTALS.get(metric) != "pairs"]
    if name.removeprefix("eval_") not in metrics:
        if TOTALS.get(name.removeprefix("eval_")) == "pairs":
            what = "needs two responses to a prompt, and no held-out group has them"
            raise TrainingError(f"metric_for_best_model '{name}' {what}: use one of {', '.join(metrics)}")
        near = difflib.get_close_matches(name, metrics, n=1, cutoff=0.4)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise TrainingError(f"metric_for_best_model '{name}' is not known: {hint}it is one of {', '.join(metrics)}")


def _has_pairs(dataset: ContrastDataset) -> bool:
    """Whether some held-out group has a win and a loss of one prompt."""
    if dataset.paired:
        return True
    prompts = dataset.rows["test"]["prompt_id"][:]
    groups = dataset.view("test", 0)
    return any(
        not {prompts[row] for row in group["win_rows"]}.isdisjoint(prompts[row] for row in group["loss_rows"])
        for group in groups
    )


def _what_instead(name: str, names: list[str]) -> str:
    if name in Recipe.model_fields:
        return "it is a key of the recipe, set at build, and some of them by `rpo-data regroup`"
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean '{near[0]}'?" if near else "docs/training.md lists those of RPOConfig"


def make_lora(settings: Mapping[str, Any]) -> Any:
    """peft.LoraConfig from the settings that begin with `lora_`, None where there is none.

    All linear layers but the head get adapters where `lora_target_modules` names none.

    Raises:
        MissingExtra, TrainingError: as lora_fields; and the settings cannot work together.
    """
    values = lora_fields(settings)
    if values is None:
        return None
    from peft import LoraConfig

    try:
        return LoraConfig(**{"task_type": "CAUSAL_LM", "target_modules": "all-linear"} | values)
    except (ValueError, TypeError) as error:
        raise TrainingError(f"these LoRA settings cannot work: {in_short(error)}") from error


def in_short(error: Exception) -> str:
    """What another library says of an error, in one line that ends at a word."""
    text = error.args[0] if isinstance(error, KeyError) and error.args else error  # a KeyError quotes its text
    return textwrap.shorten(str(text), 300, placeholder=" ...", break_on_hyphens=False)


def lora_fields(settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Fields of peft.LoraConfig from the settings that begin with `lora_`, None where there is none: lora_r is its `r`.

    Raises:
        MissingExtra: peft is not installed.
        TrainingError: LoraConfig has no such field, or it does not take the value.
    """
    given = {name: value for name, value in settings.items() if name.startswith(_LORA)}
    if not given:
        return None
    known, values = _lora_options(), {}
    for name, value in given.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else "see peft.LoraConfig for those there are"
            raise TrainingError(f"'{name}' is no setting of LoRA: {hint}")
        field, hint = known[name]
        values[field] = _cast(name, _listed(name, value, hint), hint)
    return values


def _lora_options() -> dict[str, tuple[str, Any]]:
    """Name and type of peft.LoraConfig's fields by the setting that gives them: lora_r is `r`."""
    if find_spec("peft") is None:
        raise MissingExtra("LoRA needs peft: pip install 'rpo-data[lora]'")
    from peft import LoraConfig

    hints = typing.get_type_hints(LoraConfig)
    names = sorted(hints, key=lambda name: not name.startswith(_LORA))  # of `bias` and `lora_bias`, the former is meant
    return {_LORA + name.removeprefix(_LORA): (name, hints[name]) for name in names}


def _listed(name: str, value: Any, hint: Any) -> Any:
    """Text as a list, where the field holds one and it is not a pattern, or a word of peft's own."""
    kinds = _kinds(hint)
    lists = [kind for kind in kinds if typing.get_origin(kind) is list]
    if not lists or not isinstance(value, str) or value.lower() in _WORDS or _PATTERN.search(value):
        return value
    if "," not in value and int in kinds:
        return value
    (part,) = typing.get_args(lists[0])
    return [_cast(name, text.strip(), part) for text in value.split(",") if text.strip()]


def read_settings(config_file: Path | None, options: list[str]) -> dict[str, Any]:
    """Settings from a YAML file, and over them those left on the command line (`--name value`, `--name=value`, `--flag`).

    Raises:
        RecipeError: the file cannot be read or holds no keys.
        TrainingError: an argument is no option.

    >>> read_settings(None, ["--learning-rate", "1e-3", "--max-steps=30", "--bf16", "--no-disable-dropout"])
    {'learning_rate': '1e-3', 'max_steps': '30', 'bf16': True, 'disable_dropout': False}
    """
    content = read_yaml(config_file) if config_file else {}
    settings: dict[str, Any] = {str(name).replace("-", "_"): value for name, value in content.items()}
    flags = {item.name for item in fields(RPOConfig) if bool in _kinds(item.type)}
    if any(option.replace("_", "-").startswith(("--lora-", "--no-lora-")) for option in options):
        flags |= {name for name, (_, hint) in _lora_options().items() if bool in _kinds(hint)}
    position = 0
    while position < len(options):
        option = options[position]
        position += 1
        if not option.startswith("--") or option == "--":
            raise TrainingError(
                f"'{option}' is no option: settings stand behind the dataset, such as --learning-rate 1e-6"
            )
        key, equals, value = option[2:].partition("=")
        name = key.replace("-", "_")
        if equals:
            settings[name] = value
        elif position < len(options) and not options[position].startswith("--"):
            settings[name] = options[position]
            position += 1
        elif name.removeprefix("no_") in flags:
            settings[name.removeprefix("no_")] = not name.startswith("no_")
        else:
            raise TrainingError(f"'{option}' needs a value, such as {option} VALUE")
    return settings


def _kinds(hint: Any) -> tuple[Any, ...]:
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    return tuple(str if typing.get_origin(kind) is typing.Literal else kind for kind in kinds)


def _cast(name: str, value: Any, hint: Any) -> Any:
    """Cast a value, text or as YAML has it, to the first of the field's types that takes it."""
    kinds = _kinds(hint)
    empty = value is None or (str not in kinds and str(value).lower() in ("none", "null"))
    if empty and types.NoneType in kinds:
        return None
    for kind, cast in {bool: _as_bool, int: _as_int, float: _as_float, str: _as_text}.items():
        if kind in kinds and not empty:
            try:
                return cast(value)
            except (ValueError, OverflowError):
                continue
    if isinstance(value, (dict, list)) and any((typing.get_origin(kind) or kind) is type(value) for kind in kinds):
        return _with_numbers(value)
    wanted = " or ".join(getattr(kind, "__name__", str(kind)) for kind in kinds if kind is not types.NoneType)
    raise TrainingError(f"{name} needs a value of type {wanted}, got '{value}'")


def _with_numbers(value: Any) -> Any:
    """A value as YAML has it, whose 1e-7 is a number: YAML reads it as text."""
    if isinstance(value, dict):
        return {name: _with_numbers(item) for name, item in value.items()}
    return float(value) if isinstance(value, str) and _SCIENTIFIC.fullmatch(value) else value


def _as_bool(value: Any) -> bool:
    if str(value).lower() not in _YES + _NO:
        raise ValueError
    return str(value).lower() in _YES


def _as_int(value: Any) -> int:
    if isinstance(value, bool) or float(_as_text(value)) != int(float(_as_text(value))):
        raise ValueError
    return int(float(_as_text(value)))


def _as_float(value: Any) -> float:
    if isinstance(value, bool):
        raise ValueError
    return float(_as_text(value))


def _as_text(value: Any) -> str:
    if not isinstance(value, (str, int, float)):
        raise ValueError
    return str(value)
