"""The store's files: damage, kills, folders that cannot be written."""

import errno
import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpo_data.errors import TrainingError
from rpo_data.reference_store import ReferenceStore, make_store
from rpo_data.trainer import RPOTrainer, reference


def keys_of(numbers) -> list[bytes]:
    """Keys that share bytes, and end and begin with zero bytes."""
    return [int(number).to_bytes(8, "little") + bytes(8) for number in numbers]


@given(st.lists(st.lists(st.integers(0, 30), max_size=5), max_size=6), st.lists(st.integers(0, 40), max_size=20))
def test_what_is_read_is_what_was_written(tmp_path_factory, writes, wanted):
    store = ReferenceStore(tmp_path_factory.mktemp("store"), "model")
    held = {}
    for numbers in writes:
        store.write(keys_of(numbers), np.array(numbers, dtype=np.float32) - 0.5)
        held.update((number, number - 0.5) for number in numbers)
    expected = [held.get(number, np.nan) for number in wanted]
    assert np.array_equal(store.read(keys_of(wanted)), np.array(expected, dtype=np.float32), equal_nan=True)


def test_many_small_files_are_one_store(tmp_path):
    store = ReferenceStore(tmp_path, "model")
    for number in range(300):
        store.write(keys_of([number]), np.float32([number]))
    assert len(list(tmp_path.glob("*.arrow"))) == 300
    assert store.read(keys_of(range(300))).tolist() == list(range(300))


def test_the_same_log_probs_are_one_file(tmp_path):
    store = ReferenceStore(tmp_path, "model")
    for _ in range(2):
        store.write(keys_of([1, 2]), np.float32([-1, -2]))
    assert len(list(tmp_path.glob("*.arrow"))) == 1


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-50])


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def with_a_flipped_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[content.index(np.float32(-3).tobytes())] ^= 1
    file.write_bytes(content)


def of_another_model(file: Path) -> None:
    other = ReferenceStore(file.parent / "other", "another model")
    other.write(keys_of([3]), np.float32([-9]))
    (foreign,) = (file.parent / "other").glob("*.arrow")
    foreign.rename(file.parent / foreign.name)
    file.unlink()


def of_somebody_else(file: Path) -> None:
    table = pa.table({"text": ["a"]})
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize(
    "damage", [truncated, emptied, with_a_flipped_bit, of_another_model, of_somebody_else, a_folder]
)
def test_a_file_that_cannot_be_used_is_passed_over_with_one_line(damage, tmp_path, caplog):
    store = ReferenceStore(tmp_path, "model")
    store.write(keys_of([3]), np.float32([-3]))
    (file,) = tmp_path.glob("*.arrow")
    store.write(keys_of([4]), np.float32([-4]))
    assert store.read(keys_of([3, 4])).tolist() == [-3, -4]
    damage(file)
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(store.read(keys_of([3, 4])), np.float32([np.nan, -4]), equal_nan=True)
        store.read(keys_of([3, 4]))
    assert [record.getMessage() for record in caplog.records] == [
        f"1 of 2 files in {tmp_path} are damaged, or not of this model: they are passed over, and what they held is "
        "computed again"
    ]


def test_what_a_damaged_file_held_is_computed_again(tiny_models, echo, config, monkeypatch):
    monkeypatch.setattr(reference, "_BATCHES_A_FILE", 1)
    first = RPOTrainer(tiny_models["qwen2"], config(), echo)
    files = sorted(first.reference_folder.glob("*.arrow"))
    assert len(files) == 4
    truncated(files[2])
    again = RPOTrainer(tiny_models["qwen2"], config(), echo)
    assert again.reference_computed == 8
    assert again.train_dataset.ref_logps.tolist() == first.train_dataset.ref_logps.tolist()
    assert RPOTrainer(tiny_models["qwen2"], config(), echo).reference_computed == 0


@pytest.mark.parametrize("content", ["", "[]", "{}", "\xff"])
def test_a_damaged_name_of_the_model_is_one_sentence(content, tiny_models, echo, config, tmp_path):
    (tmp_path / "reference.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(
        TrainingError, match=r"reference\.json does not name a model: delete the folder, or give another"
    ):
        RPOTrainer(tiny_models["qwen2"], config(cache_dir=str(tmp_path)), echo)


@pytest.mark.parametrize("stored", [0, 1])
def test_a_folder_that_cannot_be_written_is_read(stored, tiny_models, echo, config, monkeypatch, caplog):
    """Root may write anywhere, so the refusal is the file system's, played."""
    if stored:
        trainer = RPOTrainer(tiny_models["qwen2"], config(), echo)
    before = sorted(trainer.reference_folder.iterdir()) if stored else []

    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir" if not stored else "write_bytes", refuse)
    with caplog.at_level(logging.WARNING, logger="rpo_data"):
        again = RPOTrainer(tiny_models["qwen2"], config(), echo, echo)
    assert again.reference_computed == (8 if stored else 40)
    assert np.isfinite(again.train_dataset.ref_logps).all()
    assert np.isfinite(again.eval_dataset.ref_logps).all()
    assert [record.getMessage() for record in caplog.records] == [
        f"{again.reference_folder} cannot be written (Read-only file system): the log-probs it lacks are computed and "
        "kept in memory only"
    ]
    assert sorted(again.reference_folder.glob("*")) == before


_KILLED = """
import os, signal, sys
from pathlib import Path
from datasets import load_from_disk
from rpo_data.dataset import ContrastDataset
from rpo_data.schemas.manifest import Manifest
from rpo_data.trainer import RPOConfig, RPOTrainer, reference

folder, calls, replace = Path(sys.argv[1]), [], os.replace

def killed(source, target):
    calls.append(target)
    if len(calls) == 4:  # reference.json and two files are whole, the third has yet to get its name
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

os.replace = killed
reference._BATCHES_A_FILE = 1
tables = [load_from_disk(str(folder / name)) for name in ("pairs", "groups", "neighbors")]
data = ContrastDataset(Manifest.model_validate_json((folder / "manifest.json").read_text()), *tables)
args = RPOConfig(output_dir=str(folder / "run"), cache_dir=str(folder / "cache"), use_cpu=True, report_to="none")
RPOTrainer(sys.argv[2], args, data)
"""


def test_a_killed_scoring_goes_on_where_it_stopped(tiny_models, echo, config, monkeypatch, tmp_path):
    for name in ("pairs", "groups", "neighbors"):
        getattr(echo, name).save_to_disk(str(tmp_path / name))
    (tmp_path / "manifest.json").write_text(echo.manifest.to_json())
    command = [sys.executable, "-c", _KILLED, str(tmp_path), str(tiny_models["qwen2"])]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr[-2000:]
    (store,) = (tmp_path / "cache" / "reference").iterdir()
    assert sorted(file.suffix for file in store.iterdir()) == [".arrow", ".arrow", ".json", ".tmp"]
    monkeypatch.setattr(reference, "_BATCHES_A_FILE", 1)
    resumed = RPOTrainer(tiny_models["qwen2"], config(), echo)
    assert resumed.reference_folder == store
    assert resumed.reference_computed == 32 - 2 * 8
    whole = RPOTrainer(tiny_models["qwen2"], config(cache_dir=str(tmp_path / "another")), echo)
    assert resumed.train_dataset.ref_logps.tolist() == whole.train_dataset.ref_logps.tolist()
    assert {file.name for file in store.glob("*.arrow")} == {
        file.name for file in whole.reference_folder.glob("*.arrow")
    }


def test_a_store_belongs_to_the_first_model_that_writes(tmp_path):
    make_store(tmp_path / "store")
    about = tmp_path / "store" / "reference.json"
    assert json.loads(about.read_text()) == {"model": None}
    ReferenceStore(tmp_path / "store", "model").write(keys_of([1]), np.float32([-1]))
    make_store(tmp_path / "store")
    assert json.loads(about.read_text()) == {"model": "model"}


def test_a_store_whose_making_was_killed_can_be_made(tmp_path):
    (tmp_path / "0123.tmp").write_text('{"mod')
    make_store(tmp_path)
    assert json.loads((tmp_path / "reference.json").read_text()) == {"model": None}


def test_a_folder_of_something_else_is_no_store(tmp_path):
    (tmp_path / "work.txt").write_text("mine")
    with pytest.raises(TrainingError, match="exists and is no store of reference log-probs: choose another folder"):
        make_store(tmp_path)
    with pytest.raises(TrainingError, match=r"work.txt cannot be written \(File exists\): choose another folder"):
        make_store(tmp_path / "work.txt")
    assert [file.name for file in tmp_path.iterdir()] == ["work.txt"]
