"""Reference log-probs: computed once before training, kept on disk by sequence.

One folder a model: its content hash, number type and autocast stand in the name and in reference.json. One entry a
sequence, under the hash of its token ids and of where its completion begins. So another learning rate, beta, loss or
grouping computes nothing, and a change of max_length computes only the sequences it changed.
"""

import functools
import json
import logging
import os
import uuid
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
import xxhash
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object, send_to_device
from transformers import PreTrainedModel

from rpo_data.errors import TrainingError
from rpo_data.trainer.collator import GroupCollator
from rpo_data.trainer.logprobs import batch_logprobs
from rpo_data.trainer.models import model_id
from rpo_data.trainer.packing import reading_order
from rpo_data.trainer.tokenize import Progress, TokenizedPairs, TokenSequences

_BATCHES_A_FILE = 32
_ABOUT = "reference.json"
_COLUMNS = pa.schema({"key": pa.binary(16), "logp": pa.float32()})

_warn_once = functools.cache(logging.getLogger(__name__).warning)  # each split reads and writes the same store


@dataclass(frozen=True)
class ReferenceStore:
    """Log-probs of one reference model, by sequence key, in any number of Arrow files.

    A file is written whole or not at all and never changed. Its name is the hash of the model's id and of its bytes, so
    a torn file, a damaged one and one of another model are all known by their name.

    folder  of the files, and of reference.json, which names the model
    model   id of the model (rpo_data.trainer.models.model_id), and its autocast
    """

    folder: Path
    model: str

    def read(self, keys: Sequence[bytes]) -> np.ndarray:
        """Log-probs, float32 (S,), NaN where there is none. Files that cannot be used are passed over, with a warning."""
        files = sorted(self.folder.glob("*.arrow"))
        tables = [table for file in files if (table := self._read_file(file)) is not None]
        if len(tables) < len(files):
            _warn_once(
                f"{len(files) - len(tables)} of {len(files)} files in {self.folder} are damaged, or not of this model: "
                "they are passed over, and what they held is computed again"
            )
        stored = pa.concat_tables([_COLUMNS.empty_table(), *tables])
        places = pc.index_in(pa.array(keys, pa.binary(16)), value_set=stored["key"].combine_chunks())
        return stored["logp"].take(places).to_numpy().astype(np.float32)

    def write(self, keys: Sequence[bytes], logps: np.ndarray) -> None:
        """Add log-probs. What a folder that cannot be written lacks is in memory only, and one line warns of it."""
        stream = pa.BufferOutputStream()
        with pa.ipc.new_file(stream, _COLUMNS) as writer:
            writer.write_table(pa.table({"key": keys, "logp": logps}, _COLUMNS))
        content = stream.getvalue()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if _owner(self.folder) is None:
                _write_whole(self.folder / _ABOUT, json.dumps({"model": self.model}).encode())
            _write_whole(self.folder / f"{self._hash(content)}.arrow", content)
        except OSError as error:
            _warn_once(
                f"{self.folder} cannot be written ({error.strerror}): the log-probs it lacks are computed and kept in "
                "memory only"
            )

    def _read_file(self, file: Path) -> pa.Table | None:
        try:
            content = pa.py_buffer(file.read_bytes())
        except OSError:
            return None
        return pa.ipc.open_file(content).read_all() if self._hash(content) == file.stem else None

    def _hash(self, content: pa.Buffer) -> str:
        digest = xxhash.xxh3_128(f"1 {self.model}".encode())  # 1: version of the files' format
        digest.update(memoryview(content))
        return digest.hexdigest()


def open_store(cache_dir: str | Path | None, model: PreTrainedModel, mixed_precision: str) -> ReferenceStore:
    """The store of a model: `cache_dir` where that is a store itself, else a folder below it (default: ~/.cache/rpo-data).

    Raises:
        TrainingError: `cache_dir` is the store of another model, or what it says of its model cannot be read.
    """
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "rpo-data")
    root = Path(default if cache_dir is None else cache_dir).expanduser()
    name = model_id(model) + ("" if mixed_precision == "no" else f"-{mixed_precision}")
    folder = root if (root / _ABOUT).is_file() else root / "reference" / name
    owner = _owner(folder)
    if owner not in (None, name):
        raise TrainingError(
            f"{folder} holds the log-probs of another model ({owner}, and this one is {name}): give another folder, or "
            "that model"
        )
    return ReferenceStore(folder, name)


def make_store(folder: Path) -> None:
    """Make a folder a store that belongs to the first model that writes to it; a store stays as it is.

    Raises:
        TrainingError: it holds something else, or cannot be written.
    """
    if (folder / _ABOUT).is_file():
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        others = [item for item in folder.iterdir() if item.suffix != ".tmp" and item.name != _ABOUT]  # of other ranks
        if others:
            raise TrainingError(f"{folder} exists and is no store of reference log-probs: choose another folder")
        _write_whole(folder / _ABOUT, json.dumps({"model": None}).encode())
    except OSError as error:
        raise TrainingError(f"{folder} cannot be written ({error.strerror}): choose another folder") from error


def reference_logprobs(
    model: PreTrainedModel,
    pairs: TokenizedPairs,
    store: ReferenceStore,
    accelerator: Accelerator,
    collator: GroupCollator,
    *,
    batch_size: int,
    split: str = "train",
    progress: Progress | None = None,
) -> tuple[np.ndarray, int]:
    """Log-probs of all sequences: from the store where it has them, else computed, shared out over the processes.

    Only the main process touches the store; what is computed is written every few batches, so a killed run goes on. A
    store that cannot be written is read all the same; what it lacks is computed and kept in memory, with a warning.

    Args:
        model: the reference.
        pairs: a split in tokens, S distinct sequences.
        store: of this model.
        accelerator: its processes.
        collator: lays sequences out in rows, and says which tokens count.
        batch_size: sequences a forward pass.
        split: its name, for errors.
        progress: called with (stage, done, total).

    Returns:
        float32, shape (S,), nats; and how many had to be computed.

    Raises:
        TrainingError: the model gives a log-prob that is not finite.
    """
    main, sequences = accelerator.is_main_process, pairs.sequences
    logps = broadcast_object_list([store.read(sequences.keys) if main else None])[0]
    missing = np.flatnonzero(np.isnan(logps))
    order = reading_order([sequences[n] for n in missing], sequences.prompt_lengths[missing].tolist(), collator.layout)
    missing = missing[np.asarray(order, dtype=np.int64)]
    step = batch_size * _BATCHES_A_FILE * accelerator.num_processes
    for start in range(0, len(missing), step):
        chunk = missing[start : start + step]
        mine = np.array_split(chunk, accelerator.num_processes)[accelerator.process_index]  # neighbours share a prompt
        scored = score_sequences(model, sequences, mine, batch_size, collator, accelerator.autocast())
        for rows, values in gather_object([(mine, scored)]):
            logps[rows] = values
        if not np.isfinite(logps[chunk]).all():
            place = first_row(pairs, chunk[~np.isfinite(logps[chunk])], split)
            raise TrainingError(
                f"the reference model gives log-probs that are not finite, first for {place}: its weights are damaged, or "
                "too large for this number type"
            )
        if main:
            store.write([sequences.keys[row] for row in chunk], logps[chunk])
        if progress:
            progress("reference", start + len(chunk), len(missing))
    accelerator.wait_for_everyone()
    return logps, len(missing)


def first_row(pairs: TokenizedPairs, numbers: np.ndarray, split: str) -> str:
    """The first row of a split that one of these sequences comes from, in words."""
    sides = {"chosen": np.isin(pairs.chosen, numbers), "rejected": np.isin(pairs.rejected, numbers)}
    row, side = min((int(found.argmax()), side) for side, found in sides.items() if found.any())
    return f"row {row} of split '{split}'" + (f" ({side})" if pairs.counts.what == "pairs" else "")


@torch.no_grad()
def score_sequences(
    model: PreTrainedModel,
    sequences: TokenSequences,
    rows: np.ndarray,
    batch_size: int,
    collator: GroupCollator,
    autocast: AbstractContextManager,
) -> np.ndarray:
    """Log-probs, float32 (rows,), of some sequences under a model in evaluation mode; its mode is put back."""
    training, scored = model.training, [torch.empty(0)]
    model.eval()
    try:
        with autocast:
            for start in range(0, len(rows), batch_size):
                batch = rows[start : start + batch_size]
                pieces = collator.cut([sequences[row] for row in batch], sequences.prompt_lengths[batch].tolist())
                scored.append(batch_logprobs(model, send_to_device(pieces, model.device)).cpu())
    finally:
        model.train(training)
    return torch.cat(scored).numpy()


def _owner(folder: Path) -> str | None:
    """Id of the model whose log-probs a folder holds; None where no model has written to it yet."""
    try:
        return json.loads((folder / _ABOUT).read_text(encoding="utf-8"))["model"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise TrainingError(
            f"{folder / _ABOUT} does not name a model: delete the folder, or give another one"
        ) from error


def _write_whole(file: Path, content: bytes | pa.Buffer) -> None:
    """Write under another name, then rename: a kill leaves no half-written file under this one."""
    unfinished = file.with_name(f"{uuid.uuid4().hex}.tmp")  # two runs may write at the same time
    try:
        unfinished.write_bytes(content)
        os.replace(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)
