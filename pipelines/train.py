"""`rpo-data train`: a run that resumes by itself and says one plain line a logging step."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
import xxhash
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rpo_data.dataset import ContrastDataset
from rpo_data.errors import TrainingError
from rpo_data.pipelines.console import counted
from rpo_data.pipelines.run_folder import check_folder, check_same_run, claim, identity, last_checkpoint
from rpo_data.pipelines.train_settings import check_metric, in_short, lora_fields, make_config, make_lora, read_settings
from rpo_data.trainer import RPOConfig, RPOTrainer
from rpo_data.trainer.data import check_loss
from rpo_data.trainer.models import load_model, load_tokenizer, model_id
from rpo_data.trainer.tokenize import Progress, describe_counts

Say = Callable[[str], None]

__all__ = ["last_checkpoint", "make_config", "plan", "read_settings", "train"]

_WITHOUT_WARM_UP = ("constant", "reduce_lr_on_plateau", "greedy")


def train(
    dataset: ContrastDataset,
    model: str,
    out: str | Path,
    settings: Mapping[str, Any],
    *,
    say: Say = lambda line: None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train a model from a dataset, and save it with its tokenizer in `out`; a checkpoint there is resumed.

    Args:
        dataset: its train split is trained on; its test split, where there is one, is held out.
        model: folder or Hub id of a causal language model; also the reference.
        out: folder for checkpoints and the trained model.
        settings: RPOConfig fields by name; texts are cast to the field's type. With `lora_` before it, a field of
            peft.LoraConfig: then adapters are trained and saved, and the model itself stays as it is.
        say: is given one line at a time.
        progress: called with (stage, done, total) while tokenising and scoring the reference.

    Returns:
        before, after                        held-out loss and metrics, None without a test split
        steps                                optimiser steps of the whole run
        first_loss, last_loss, train_loss    first and last line of the log, and the mean of all of them by steps

    Raises:
        TrainingError: a setting is wrong, the model cannot be loaded, or `out` holds a checkpoint of another run.
    """
    out = Path(out)
    args, lora, own = plan(dataset, out, settings)
    checkpoint = last_checkpoint(out)
    held_out = dataset if "test" in dataset.splits else None
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("rpo_data.trainer.tokenize").setLevel(logging.ERROR)  # what it would warn of is said below
    policy, tokenizer = load_model(model), load_tokenizer(model)
    if not any(weights.requires_grad for weights in policy.parameters()):
        raise TrainingError(f"'{model}' holds adapters, which are read frozen: merge them first (docs/training.md)")
    own["model"] = model_id(policy)
    check_same_run(out, own)
    lines = ProgressLines(say)
    with _one_sentence():
        _try_optimizer(args, policy)
        trainer = RPOTrainer(
            policy, args, dataset, held_out, tokenizer, callbacks=[lines], progress=progress, peft_config=lora
        )
    trainer.remove_callback(PrinterCallback)
    if not trainer.is_world_process_zero():
        say = _silent
    for groups in filter(None, (trainer.train_dataset, trainer.eval_dataset)):
        say(f"tokens    {groups.split:<5} {describe_counts(groups.pairs.counts, args.max_length)}")
    say(f"reference {trainer.reference_computed:,} sequences scored now, all others were stored")
    say(f"model     {_trained_part(trainer.model)}")
    splits = filter(None, (trainer.train_dataset, trainer.eval_dataset))
    tokens = b"".join(key for groups in splits for key in groups.pairs.sequences.keys)
    claim(out, own | {"tokens": xxhash.xxh3_128_hexdigest(tokens)}, args)
    if checkpoint:
        say(f"resume    from {checkpoint}")
    args.eval_on_start = held_out is not None and checkpoint is None
    with _one_sentence():
        trainer.train(resume_from_checkpoint=checkpoint)
    if args.load_best_model_at_end and trainer.state.best_model_checkpoint:
        measure = f"{args.metric_for_best_model} {trainer.state.best_metric:z.4f}"
        say(f"best      {measure}, loaded from {trainer.state.best_model_checkpoint}")
    trainer.remove_callback(lines)  # the last measurement is said once, with the first
    return _finish(trainer, held_out, out, say)


def plan(dataset: ContrastDataset, out: Path, settings: Mapping[str, Any]) -> tuple[RPOConfig, Any, dict[str, Any]]:
    """The settings of a run, its adapters and its identity: all is refused here that can be without a model.

    Raises:
        TrainingError: a setting is wrong, the dataset does not go with it, or `out` holds something else.
    """
    check_folder(out)
    args, lora = make_config(settings, out), make_lora(settings)
    check_metric(args.metric_for_best_model, dataset)
    check_loss(dataset, args.loss_type)
    if args.max_steps <= 0 and args.num_train_epochs <= 0:
        raise TrainingError("the run would take no step: raise max_steps or num_train_epochs")
    own = identity(args, lora_fields(settings), dataset)
    check_same_run(out, own)
    return args, lora, own


def _finish(trainer: RPOTrainer, held_out: ContrastDataset | None, out: Path, say: Say) -> dict[str, Any]:
    """Measure and save a trained model, and say what came of it; returns what `train` does."""
    after = trainer.evaluate() if held_out else None
    trainer.save_model()
    trainer.save_state()
    trainer.create_model_card()
    history = trainer.state.log_history
    before = _before(history)
    for when, figures in (("before: ", before), ("after:  ", after)):
        if held_out and figures:
            rows = counted(len(held_out.rows["test"]), "pairs" if held_out.paired else "responses")
            say(f"held out  {rows}, {when}{_described(figures, 'eval_')}")
    say(f"saved     {out}")
    return {"before": before, "after": after, "steps": trainer.state.global_step, **_losses(history)}


class ProgressLines(TrainerCallback):
    """Says one line for each training log and each evaluation, on the main process only."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._began: float | None = None
        self._first_step = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Warn where the run ends before its warm-up does."""
        warm_up = 0 if args.lr_scheduler_type in _WITHOUT_WARM_UP else args.get_warmup_steps(state.max_steps)
        if state.is_world_process_zero and 0 < state.max_steps <= warm_up:
            steps = counted(state.max_steps, "steps")
            self._say(
                f"warning   warm-up takes {warm_up:,} steps and the run has {steps}: the learning rate never reaches "
                f"{args.learning_rate:.1e}; lower warmup_steps, or train for longer"
            )

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock at the first epoch; steps before a resume do not count towards the rate."""
        if self._began is None:
            self._began, self._first_step = time.monotonic(), state.global_step

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Say the line."""
        if not logs or not state.is_world_process_zero:
            return
        if "loss" in logs:
            spent = time.monotonic() - (self._began or 0.0)
            rate = (state.global_step - self._first_step) / max(spent, 1e-9)
            left = time.strftime("%H:%M:%S", time.gmtime((state.max_steps - state.global_step) / max(rate, 1e-9)))
            step = f"{state.global_step}/{state.max_steps}"
            pace = f"lr {logs['learning_rate']:.1e}  {rate:.2f} steps/s  {left} left"
            self._say(f"step      {step:<10}{_described(logs, '')}  {pace}")
        elif "eval_loss" in logs:
            self._say(f"held out  {f'step {state.global_step}':<10}{_described(logs, 'eval_')}")


def _trained_part(model: Any) -> str:
    """What of a model is trained: all of it, or the adapters of peft that it has."""
    sizes = [(weights.numel(), weights.requires_grad) for weights in model.parameters()]
    every, trained = sum(size for size, _ in sizes), sum(size for size, moves in sizes if moves)
    adapters = next(iter(getattr(model, "peft_config", {}).values()), None)
    if adapters is None:
        return f"all {every:,} parameters are trained"
    targets = adapters.target_modules
    where = targets if isinstance(targets, str) else ", ".join(sorted(targets))
    return f"LoRA of rank {adapters.r} on {where}: {trained:,} of {every:,} parameters are trained"


def _try_optimizer(args: RPOConfig, model: Any) -> None:
    """Optimizer and schedule made for nothing: what is not installed, missing or out of range shows before long work."""
    weights = [torch.nn.Parameter(torch.zeros(1))]
    optimizer: torch.optim.Optimizer = torch.optim.SGD(weights, lr=args.learning_rate)
    if args.optim_target_modules is None:  # else it asks for the model as it is trained, with its adapters
        kind, values = Trainer.get_optimizer_cls_and_kwargs(args, model)
        if kind.__module__.startswith("torch.optim"):
            optimizer = kind(weights, **values)
    steps = max(args.max_steps, 1)
    warm_up = args.get_warmup_steps(steps)
    transformers.get_scheduler(args.lr_scheduler_type, optimizer, warm_up, steps, args.lr_scheduler_kwargs)


def _described(logs: Mapping[str, float], prefix: str) -> str:
    names = {
        "loss": "loss {:.4f}",
        "rewards/chosen": "rewards {:+z.3f}",
        "rewards/rejected": "/ {:+z.3f}",
        "rewards/accuracies": " accuracy {:.3f}",
        "rewards/margins": " margin {:+z.3f}",
    }  # z: what rounds to zero is +0.000, whatever sign the number of threads leaves it
    if f"{prefix}rewards/accuracies" not in logs:  # no prompt has two responses
        names["rewards/cross_prompt_accuracies"] = " accuracy across prompts {:.3f}"
    return " ".join(text.format(logs[prefix + name]) for name, text in names.items() if prefix + name in logs)


def _silent(line: str) -> None:
    """Say nothing."""


def _before(history: list[dict[str, float]]) -> dict[str, float] | None:
    """The evaluation at step 0; a resumed run finds it in the checkpoint's log."""
    at_start = [entry for entry in history if "eval_loss" in entry and entry["step"] == 0]
    return {name: value for name, value in at_start[0].items() if name.startswith("eval_")} if at_start else None


def _losses(history: list[dict[str, float]]) -> dict[str, float | None]:
    logged = [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]
    if not logged:
        return {"first_loss": None, "last_loss": None, "train_loss": None}
    steps = [step - before for (step, _), before in zip(logged, [0, *(s for s, _ in logged)], strict=False)]
    mean = sum(n * loss for n, (_, loss) in zip(steps, logged, strict=True)) / sum(steps)
    return {"first_loss": logged[0][1], "last_loss": logged[-1][1], "train_loss": mean}


@contextmanager
def _one_sentence() -> Iterator[None]:
    """Settings that only transformers or torch can judge end in one sentence too; the cause hangs on it."""
    try:
        yield
    except (ImportError, ValueError, TypeError, KeyError, RuntimeError, OSError) as error:
        reason = f"{type(error).__name__}: {in_short(error)}"
        raise TrainingError(f"training cannot go on with these settings ({reason})") from error
