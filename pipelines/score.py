"""`rpo-data score`: reference log-probs of a dataset ahead of training, and a check of those that are stored."""

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import transformers

from rpo_data.dataset import ContrastDataset
from rpo_data.errors import TrainingError
from rpo_data.pipelines.train import Say, _one_sentence, _silent
from rpo_data.pipelines.train_settings import make_config
from rpo_data.reference_store import make_store
from rpo_data.trainer import RPOTrainer
from rpo_data.trainer.data import GroupDataset
from rpo_data.trainer.reference import first_row, score_sequences
from rpo_data.trainer.tokenize import Progress, describe_counts

TOLERANCE = {"no": (1e-3, 1e-5), "bf16": (0.1, 0.02), "fp16": (0.1, 0.005)}
"""Mixed precision -> nats, and share of the value, by which a log-prob may differ when it is computed in another batch."""


def score(
    dataset: ContrastDataset,
    model: str,
    settings: Mapping[str, Any],
    *,
    out: str | Path | None = None,
    verify: int = 0,
    say: Say = lambda line: None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score all splits as training would, and keep the log-probs; what is stored already is not computed again.

    Args:
        dataset: its train split is scored, and its test split, where there is one.
        model: folder or Hub id of a causal language model.
        settings: RPOConfig fields by name, as for training; those that do not change log-probs are of no effect.
        out: folder of a store, which training takes as its cache_dir; a folder in the cache where None.
        verify: compute this many sequences again, drawn with the `seed` of the settings, and compare.
        say: is given one line at a time.
        progress: called with (stage, done, total).

    Returns:
        store, model      where the log-probs are, and the id of the model
        sequences         distinct sequences of all splits
        computed          how many of them were not stored before
        largest           the largest difference of the sample in nats; None without one

    Raises:
        TrainingError: a setting is wrong, the model cannot be loaded, the store is another model's, or a value of the
            sample differs by more than the tolerance.
    """
    if out is not None:
        make_store(Path(out))
        settings = {**settings, "cache_dir": str(out)}
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("rpo_data.trainer.tokenize").setLevel(logging.ERROR)  # what it would warn of is said below
    held_out = dataset if "test" in dataset.splits else None
    with tempfile.TemporaryDirectory() as unused, _one_sentence():  # a trainer makes its output folder
        args = make_config(settings, Path(unused)).for_scoring(unused)
        trainer = RPOTrainer(model, args, dataset, held_out, progress=progress)
    splits = [groups for groups in (trainer.train_dataset, trainer.eval_dataset) if groups is not None]
    if not trainer.is_world_process_zero():
        say = _silent
    for groups in splits:
        say(f"tokens    {groups.split:<5} {describe_counts(groups.pairs.counts, trainer.args.max_length)}")
    total = sum(len(groups.ref_logps) for groups in splits)
    say(f"reference {trainer.reference_computed:,} of {total:,} sequences scored now, all others were stored")
    largest = _verify(trainer, splits, verify, say) if verify and trainer.is_world_process_zero() else None
    say(f"store     {trainer.reference_folder}")
    return {
        "store": trainer.reference_folder,
        "model": trainer.reference_id,
        "sequences": total,
        "computed": trainer.reference_computed,
        "largest": largest,
    }


def _verify(trainer: RPOTrainer, splits: list[GroupDataset], count: int, say: Say) -> float:
    absolute, relative = TOLERANCE[trainer.accelerator.mixed_precision]
    allowed = f"{absolute:g} + {100 * relative:g} % of the value"
    sizes = [len(groups.ref_logps) for groups in splits]
    total, largest = sum(sizes), 0.0
    sample = np.sort(np.random.default_rng(trainer.args.seed).choice(total, min(count, total), replace=False))
    for groups, begin, end in zip(splits, np.cumsum([0, *sizes]), np.cumsum(sizes), strict=False):
        rows = sample[(sample >= begin) & (sample < end)] - begin
        size, collator = trainer.args.per_device_eval_batch_size, trainer.data_collator
        with trainer.accelerator.autocast():
            again = score_sequences(trainer.model, groups.pairs.sequences, rows, size, collator)
        stored = groups.ref_logps[rows]
        off = ~(np.abs(again - stored) <= absolute + relative * np.abs(again))
        if off.any():
            worst = int(np.flatnonzero(off)[0])
            raise TrainingError(
                f"the stored log-prob of {first_row(groups, rows[[worst]])} is {stored[worst]:.4f}, "
                f"computed again it is {again[worst]:.4f}, and they may differ by {allowed}: "
                f"delete {trainer.reference_folder} and score again"
            )
        largest = max(largest, float(np.abs(again - stored).max(initial=0)))
    say(f"verified  {len(sample):,} sequences: they differ by at most {largest:.1e} nats (tolerance {allowed})")
    return largest
