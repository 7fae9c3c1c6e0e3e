"""What RPOTrainer reads, for TRL's DPOTrainer: token ids and reference log-probs, which TRL then need not compute.

TRL (1.16) ignores or refuses ready-made columns; two overrides make it read them:

    class StoredReferenceTrainer(DPOTrainer):
        def _prepare_dataset(self, dataset, *_):  # our token ids
            return dataset

        def _precompute_ref_logps(self, dataset, *_):  # our reference log-probs
            return dataset

with `DPOConfig(precompute_ref_log_probs=True, max_length=None, bf16=…)`, the number type being that of the scoring.
"""

import tempfile
from pathlib import Path

from datasets import Dataset, concatenate_datasets
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rpo_data.dataset import ContrastDataset
from rpo_data.errors import DatasetError
from rpo_data.trainer.config import RPOConfig
from rpo_data.trainer.tokenize import Progress
from rpo_data.trainer.trainer import RPOTrainer


def to_trl(
    dataset: ContrastDataset,
    model: PreTrainedModel | str | Path,
    args: RPOConfig | None = None,
    *,
    split: str = "train",
    processing_class: PreTrainedTokenizerBase | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """The pairs of a split in tokens, with the log-probs of the reference: from the store, or computed and kept there.

    Args:
        dataset: a dataset in paired mode.
        model: the reference, or a folder or Hub id of one.
        args: max_length, cache_dir, bf16, fp16 and per_device_eval_batch_size count; the defaults where None.
        split: train or test.
        processing_class: tokenizer; the model's own where None.
        progress: called with (stage, done, total).

    Returns:
        The rows of `pairs` that teach something (both sides have tokens, and not the same ones), in order, with
        `prompt_ids`, `chosen_ids`, `rejected_ids` and `ref_chosen_logps`, `ref_rejected_logps` (float32, nats, summed).

    Raises:
        DatasetError: the dataset holds no pairs, or no such split.
        TrainingError: as RPOTrainer.
    """
    if split not in dataset.splits:
        raise DatasetError(f"the dataset has no split '{split}', it has {', '.join(dataset.splits)}")
    rows = dataset.pairs[split]
    with tempfile.TemporaryDirectory() as folder:
        settings = RPOConfig.for_scoring(args or RPOConfig(), folder)
        settings.loss_type = "dpo"  # log-probs of completions alone, which `joint` would not give
        train, test = (dataset, None) if split == "train" else (None, dataset)
        trainer = RPOTrainer(model, settings, train, test, processing_class, progress=progress)
    groups = trainer.train_dataset or trainer.eval_dataset
    sequences, chosen, rejected = groups.pairs.sequences, groups.pairs.chosen, groups.pairs.rejected
    kept = (groups.usable[chosen] & groups.usable[rejected] & (chosen != rejected)).nonzero()[0]
    columns = {"prompt_ids": [sequences[row][: sequences.prompt_lengths[row]] for row in chosen[kept]]}
    for side, numbers in (("chosen", chosen[kept]), ("rejected", rejected[kept])):
        columns[f"{side}_ids"] = [sequences[row][sequences.prompt_lengths[row] :] for row in numbers]
        columns[f"ref_{side}_logps"] = groups.ref_logps[numbers]
    return concatenate_datasets([rows.select(kept), Dataset.from_dict(columns)], axis=1)
