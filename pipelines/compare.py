"""`rpo-data train --compare dpo`: the same pairs, steps and seed under two losses, side by side on the held-out pairs."""

import gc
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import transformers

from rpo_data.dataset import ContrastDataset
from rpo_data.errors import TrainingError
from rpo_data.pipelines.console import counted
from rpo_data.pipelines.run_folder import check_same_length, check_same_run, holds_run
from rpo_data.pipelines.train import Say, _silent, plan, train
from rpo_data.pipelines.train_settings import make_config
from rpo_data.trainer.models import load_model, model_id
from rpo_data.trainer.tokenize import Progress

_ROWS = {
    "accuracy": ("rewards/accuracies", "{:.3f}"),
    "accuracy across prompts": ("rewards/cross_prompt_accuracies", "{:.3f}"),
    "margin": ("rewards/margins", "{:+z.3f}"),
    "reward of chosen": ("rewards/chosen", "{:+z.3f}"),
    "reward of rejected": ("rewards/rejected", "{:+z.3f}"),
    "log-prob of chosen": ("logps/chosen", "{:.2f}"),
    "loss (its own)": ("loss", "{:.4f}"),
}


def compare(
    dataset: ContrastDataset,
    model: str,
    out: str | Path,
    settings: Mapping[str, Any],
    other: str = "dpo",
    *,
    say: Say = lambda line: None,
    progress: Progress | None = None,
) -> dict[str, dict[str, Any]]:
    """Train as `train` does into `out`, and then with another loss into `out`/compare-OTHER; each of them resumes.

    Returns:
        What `train` returns, by loss type.

    Raises:
        TrainingError: both losses are one, or nothing is held out; and as `train`, before either run begins.
    """
    out = Path(out)
    args = make_config(settings, out)
    first, say_once = args.loss_type, say if args.process_index == 0 else _silent
    if other == first:
        raise TrainingError(f"--compare {other} would train with loss_type '{first}' twice: name another loss")
    if "test" not in dataset.splits:
        raise TrainingError("--compare needs a test split, and the dataset has none: build it with a test_fraction")
    if args.push_to_hub:
        raise TrainingError(
            "--compare does not go with push_to_hub, the second model would replace the first on the Hub: leave it out, "
            "and push a model by a train command of its own"
        )
    runs = {first: (out, settings), other: (out / f"compare-{other}", {**settings, "loss_type": other})}
    for folder, own in runs.values():
        check_same_length(folder, plan(dataset, folder, own)[0])
    second = runs[other][0]
    transformers.utils.logging.disable_progress_bar()
    if holds_run(second):  # train looks at the first by itself
        check_same_run(second, {"model": model_id(load_model(model))})
    results = {}
    for name, (folder, own) in runs.items():
        say_once(f"run       {name}, into {folder}")
        results[name] = train(dataset, model, folder, own, say=say, progress=progress)
        gc.collect()  # trainer and model hold each other; the second run needs the room
    rows = counted(len(dataset.rows["test"]), "pairs" if dataset.paired else "responses")
    steps = [counted(result["steps"], "steps") for result in results.values()]
    say_once(f"held out  {rows}, {f'{steps[0]} each' if len({*steps}) == 1 else ' and '.join(steps)}")
    for line in _table(results):
        say_once(line)
    return results


def _table(results: Mapping[str, dict[str, Any]]) -> Iterator[str]:
    """Held-out figures before the first run and after each, without those that no run has."""
    columns = [next(iter(results.values()))["before"], *(result["after"] for result in results.values())]
    yield f"{'':<24}{'before':>12}" + "".join(f"{name:>12}" for name in results)
    given = {figure: [column.get(f"eval_{figure}") for column in columns] for figure, _ in _ROWS.values()}
    if any(value is not None for value in given["rewards/accuracies"]):
        del given["rewards/cross_prompt_accuracies"]  # it stands in for them
    for text, (figure, form) in _ROWS.items():
        values = given.get(figure, [])
        if any(value is not None for value in values):
            yield f"{text:<24}" + "".join(f"{'' if value is None else form.format(value):>12}" for value in values)
