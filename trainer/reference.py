"""Reference log-probs: computed once before training, kept on disk by sequence (rpo_data/reference_store.py).

One folder a model: its content hash, number type and autocast stand in the name and in reference.json. One entry a
sequence, under the hash of its token ids and of where its completion begins. So another learning rate, beta, loss or
grouping computes nothing, and a change of max_length computes only the sequences it changed.
"""

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from transformers import PreTrainedModel

from rpo_data.errors import TrainingError
from rpo_data.reference_store import ReferenceStore
from rpo_data.trainer.collator import GroupCollator
from rpo_data.trainer.data import GroupDataset
from rpo_data.trainer.logprobs import evaluated_logprobs
from rpo_data.trainer.packing import reading_order
from rpo_data.trainer.tokenize import Progress, TokenSequences

_BATCHES_A_FILE = 32


def reference_logprobs(
    model: PreTrainedModel,
    groups: GroupDataset,
    store: ReferenceStore,
    accelerator: Accelerator,
    collator: GroupCollator,
    batch_size: int,
    progress: Progress | None = None,
) -> tuple[np.ndarray, int]:
    """Log-probs of all sequences: from the store where it has them, else computed, shared out over the processes.

    Only the main process touches the store; what is computed is written every few batches, so a killed run goes on. A
    store that cannot be written is read all the same; what it lacks is computed and kept in memory, with a warning.

    Args:
        model: the reference.
        groups: a split, whose tokens are S distinct sequences.
        store: of this model.
        accelerator: its processes.
        collator: lays sequences out in rows, and says which tokens count.
        batch_size: sequences a forward pass.
        progress: called with (stage, done, total).

    Returns:
        float32, shape (S,), nats; and how many had to be computed.

    Raises:
        TrainingError: the model gives a log-prob that is not finite, or memory cannot hold a pass.
    """
    main, sequences = accelerator.is_main_process, groups.pairs.sequences
    logps = broadcast_object_list([store.read(sequences.keys) if main else None])[0]
    missing = np.flatnonzero(np.isnan(logps))
    order = reading_order([sequences[n] for n in missing], sequences.prompt_lengths[missing].tolist(), collator.layout)
    missing = missing[np.asarray(order, dtype=np.int64)]
    step = batch_size * _BATCHES_A_FILE * accelerator.num_processes
    for start in range(0, len(missing), step):
        chunk = missing[start : start + step]
        mine = np.array_split(chunk, accelerator.num_processes)[accelerator.process_index]  # neighbours share a prompt
        with accelerator.autocast():
            scored = score_sequences(model, sequences, mine, batch_size, collator)
        for rows, values in gather_object([(mine, scored)]):
            logps[rows] = values
        if not np.isfinite(logps[chunk]).all():
            place = first_row(groups, chunk[~np.isfinite(logps[chunk])])
            raise TrainingError(
                f"the log-prob of {place} is not finite: the reference is damaged, or needs a wider dtype"
            )
        if main:
            store.write([sequences.keys[row] for row in chunk], logps[chunk])
        if progress:
            progress("reference", start + len(chunk), len(missing))
    accelerator.wait_for_everyone()
    return logps, len(missing)


def first_row(groups: GroupDataset, numbers: np.ndarray) -> str:
    """The first row of a split that one of these sequences comes from, in words."""
    pairs = groups.pairs
    sides = {"chosen": np.isin(pairs.chosen, numbers), "rejected": np.isin(pairs.rejected, numbers)}
    row, side = min((int(found.argmax()), side) for side, found in sides.items() if found.any())
    return f"row {row} of split '{groups.split}'" + (f" ({side})" if pairs.counts.what == "pairs" else "")


def score_sequences(
    model: PreTrainedModel, sequences: TokenSequences, rows: np.ndarray, batch_size: int, collator: GroupCollator
) -> np.ndarray:
    """Log-probs, float32 (rows,), of some sequences under a model in evaluation mode; its mode is put back."""
    scored = [torch.empty(0)]
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        pieces = collator.cut([sequences[row] for row in batch], sequences.prompt_lengths[batch].tolist())
        scored.append(evaluated_logprobs(model, pieces).cpu())
    return torch.cat(scored).numpy()
