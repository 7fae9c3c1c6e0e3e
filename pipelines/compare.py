"""`rpo-data train --compare dpo`: the same pairs, steps and seed under two losses, side by side on the held-out pairs."""

import gc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rpo_data.dataset import ContrastDataset
from rpo_data.errors import TrainingError
from rpo_data.pipelines.console import counted
from rpo_data.pipelines.train import Say, _silent, train
from rpo_data.pipelines.train_settings import make_config
from rpo_data.trainer.data import check_loss
from rpo_data.trainer.tokenize import Progress

_ROWS = {
    "accuracy": ("rewards/accuracies", "{:.3f}"),
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
    other_settings = {**settings, "loss_type": other}
    make_config(other_settings, out)
    if other == first:
        raise TrainingError(f"--compare {other} would train with loss_type '{first}' twice: name another loss")
    if "test" not in dataset.splits:
        raise TrainingError("--compare needs a test split, and the dataset has none: build it with a test_fraction")
    check_loss(dataset, other)
    results = {}
    for name, folder, own in ((first, out, settings), (other, out / f"compare-{other}", other_settings)):
        say_once(f"run       {name}, into {folder}")
        results[name] = train(dataset, model, folder, own, say=say, progress=progress)
        gc.collect()  # trainer and model hold each other; the second run needs the room
    rows = counted(len(dataset.rows["test"]), "pairs" if dataset.paired else "responses")
    say_once(f"held out  {rows}, {counted(results[first]['steps'], 'steps')} each")
    say_once(f"{'':<22}{'before':>12}" + "".join(f"{name:>12}" for name in results))
    for text, (figure, form) in _ROWS.items():
        values = [results[first]["before"], *(result["after"] for result in results.values())]
        cells = [form.format(at[f"eval_{figure}"]) if f"eval_{figure}" in at else "" for at in values]
        say_once(f"{text:<22}" + "".join(f"{cell:>12}" for cell in cells))
    return results
