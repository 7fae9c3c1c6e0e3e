"""Reference log-probs: computed once before training, kept on disk by sequence.

One folder a model: its content hash, number type and autocast stand in the name. One entry a sequence, under the hash
of its token ids and of where its completion begins. So another learning rate, beta, loss or grouping computes nothing,
and a change of max_length computes only the sequences it changed.
"""

import os
import uuid
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from transformers import PreTrainedModel

from rpo_data.errors import TrainingError
from rpo_data.trainer.collator import pad_sequences
from rpo_data.trainer.logprobs import sequence_logprobs
from rpo_data.trainer.models import model_id
from rpo_data.trainer.tokenize import Progress, TokenSequences

_BATCHES_A_FILE = 32


@dataclass(frozen=True)
class ReferenceStore:
    """Log-probs of one reference model, by sequence key. Each file is written whole or not at all, and never changed."""

    folder: Path

    def read(self, keys: Sequence[bytes]) -> np.ndarray:
        """Log-probs, float32 (S,), NaN where there is none."""
        place = {key: row for row, key in enumerate(keys)}
        logps = np.full(len(keys), np.nan, dtype=np.float32)
        for file in sorted(self.folder.glob("*.arrow")):
            with pa.memory_map(str(file)) as source:
                table = pa.ipc.open_file(source).read_all()
            for key, logp in zip(table["key"].to_pylist(), table["logp"].to_pylist(), strict=True):
                if key in place:
                    logps[place[key]] = logp
        return logps

    def write(self, keys: Sequence[bytes], logps: Sequence[float]) -> None:
        """Add log-probs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        table = pa.table({"key": pa.array(keys, pa.binary(16)), "logp": pa.array(logps, pa.float32())})
        name = uuid.uuid4().hex  # two runs may write at the same time
        unfinished = self.folder / f"{name}.tmp"
        with pa.OSFile(str(unfinished), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        os.replace(unfinished, self.folder / f"{name}.arrow")


def reference_folder(cache_dir: str | Path | None, model: PreTrainedModel, mixed_precision: str) -> Path:
    """Where the log-probs of this model are kept: below `cache_dir`, or $XDG_CACHE_HOME/rpo-data, or ~/.cache/rpo-data."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rpo-data"
    root = Path(cache_dir).expanduser() if cache_dir is not None else default
    autocast = "" if mixed_precision == "no" else f"-{mixed_precision}"
    return root / "reference" / (model_id(model) + autocast)


def reference_logprobs(
    model: PreTrainedModel,
    sequences: TokenSequences,
    store: ReferenceStore,
    accelerator: Accelerator,
    *,
    batch_size: int,
    pad_token_id: int,
    progress: Progress | None = None,
) -> tuple[np.ndarray, int]:
    """Log-probs of all sequences: from the store where it has them, else computed, shared out over the processes.

    Only the main process touches the store; what is computed is written every few batches, so a killed run goes on.

    Returns:
        float32, shape (S,), nats; and how many had to be computed.
    """
    main = accelerator.is_main_process
    logps = broadcast_object_list([store.read(sequences.keys) if main else None])[0]
    missing = np.flatnonzero(np.isnan(logps))
    missing = missing[np.argsort(sequences.lengths[missing], kind="stable")]  # similar lengths share a batch
    step = batch_size * _BATCHES_A_FILE * accelerator.num_processes
    for start in range(0, len(missing), step):
        chunk = missing[start : start + step]
        mine = chunk[accelerator.process_index :: accelerator.num_processes]
        scored = score_sequences(model, sequences, mine, batch_size, pad_token_id, accelerator.autocast())
        for rows, values in gather_object([(mine, scored)]):
            logps[rows] = values
        if not np.isfinite(logps[chunk]).all():
            raise TrainingError("the reference model gives log-probs that are not finite: its weights are damaged")
        if main:
            store.write([sequences.keys[row] for row in chunk], logps[chunk].tolist())
        if progress:
            progress("reference", start + len(chunk), len(missing))
    accelerator.wait_for_everyone()
    return logps, len(missing)


@torch.no_grad()
def score_sequences(
    model: PreTrainedModel,
    sequences: TokenSequences,
    rows: np.ndarray,
    batch_size: int,
    pad_token_id: int,
    autocast: AbstractContextManager,
) -> np.ndarray:
    """Log-probs, float32 (rows,), of some sequences under a model in evaluation mode; its mode is put back."""
    training, scored = model.training, []
    model.eval()
    try:
        with autocast:
            for start in range(0, len(rows), batch_size):
                batch = rows[start : start + batch_size]
                tokens = [sequences[row] for row in batch]
                inputs = pad_sequences(tokens, sequences.prompt_lengths[batch].tolist(), pad_token_id)
                scored.append(sequence_logprobs(model, **{k: v.to(model.device) for k, v in inputs.items()}).cpu())
    finally:
        model.train(training)
    return torch.cat(scored).numpy() if scored else np.empty(0, dtype=np.float32)
