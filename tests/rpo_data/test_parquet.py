"""Tables as Parquet: the same rows back, the same bytes for the same rows, and a sentence for files that do not fit."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, Features, concatenate_datasets
from hypothesis import given, settings
from hypothesis import strategies as st

from rpo_data import parquet
from rpo_data.errors import DatasetError
from rpo_data.schemas.tables import GROUPS, PAIRS

CALL = [{"type": "function", "function": {"name": "f", "arguments": {"x": [1, None]}}}]


def message(content, **more):
    return {"role": "user", "content": content, "name": None, "tool_calls": None, "tool_call_id": None} | more


def pairs(count: int, calls: bool = True) -> Dataset:
    called = CALL if calls else None
    rows = [
        dict.fromkeys(PAIRS)
        | {"pair_id": f"{n:032x}", "prompt": [message(f"Is {n} é?"), message(None, tool_calls=called)], "weight": n / 3}
        | {"chosen": [message("yes")], "rejected": [], "source_row": n, "flags": ["a"] * (n % 3)}
        for n in range(count)
    ]
    return Dataset.from_list(rows, features=PAIRS)


def write(rows, folder, name, split, calls=True, **more):
    return parquet.write_parquet(rows, folder, name, split, schema=parquet.file_schema(rows.features, calls), **more)


def read(folder, name, hashes, features=PAIRS):
    return parquet.read_parquet(folder, name, hashes, features)


@pytest.mark.parametrize("calls", [True, False])
def test_rows_come_back_as_they_were(tmp_path, calls):
    rows = pairs(7, calls)
    assert parquet.calls_tools(rows) is calls
    wrote = []
    (path,) = write(rows, tmp_path, "pairs", "train", calls, digest="abc", wrote=wrote.append)
    assert path == "pairs/train-00000-of-00001.parquet"
    back = read(tmp_path, "pairs", {"train": "abc"})["train"]
    assert back.features == PAIRS
    assert back[:] == rows[:]
    assert back._fingerprint == "abc"
    assert sum(wrote) == 7
    schema = pq.read_schema(tmp_path / path)
    if not calls:  # nothing that old versions of datasets do not know
        assert schema.metadata.keys() == {b"rpo_data"}
        assert "extension" not in str(schema)


def test_bytes_depend_on_the_rows_and_not_on_their_chunks_in_memory(tmp_path):
    draw = np.random.default_rng(0)
    rows = Dataset.from_dict(
        {
            "text": [draw.integers(0, 1 << 62, size).tobytes().hex() for size in draw.integers(1, 30, 60_000)],
            "numbers": [draw.random(size).tolist() for size in draw.integers(0, 9, 60_000)],
        }
    )
    cuts = [0, 1, 7, 500, 1234, 9999, 10_000, 30_011, 59_000, 60_000]
    pieces = concatenate_datasets([rows.select(range(*cut)) for cut in pairwise(cuts)])
    assert pieces.data.column(0).num_chunks == 9
    made = [
        next(iter(write(table, tmp_path / name, "t", "train").values())).read_bytes()
        for name, table in (("whole", rows), ("pieces", pieces))
    ]
    assert len(made[0]) > 2**20
    assert made[0] == made[1]


floats = st.floats(-1, 1, width=32)


@settings(max_examples=20)
@given(st.lists(st.lists(st.lists(floats, max_size=3), max_size=3), min_size=1, max_size=9))
def test_matrices_come_back_bit_by_bit(tmp_path_factory, cells):
    features = Features({"weight": GROUPS["weight"]})
    folder = tmp_path_factory.mktemp("rows")
    write(Dataset.from_dict({"weight": cells}, features=features), folder, "t", "train", digest="a")
    back = read(folder, "t", {"train": "a"}, features)["train"]
    assert back["weight"][:] == cells


def test_large_tables_are_cut_into_files_and_row_groups(tmp_path, monkeypatch):
    rows = pairs(100)
    monkeypatch.setattr(parquet, "SHARD_BYTES", rows.data.nbytes * 2 // 7)
    monkeypatch.setattr(parquet, "GROUP_BYTES", rows.data.nbytes // 10)
    files = write(rows, tmp_path, "pairs", "train", digest="abc")
    assert list(files) == [f"pairs/train-{n:05}-of-00004.parquet" for n in range(4)]
    metadata = [pq.read_metadata(path) for path in files.values()]
    assert [m.num_rows for m in metadata] == [25] * 4
    assert all(m.num_row_groups == 3 and m.row_group(0).num_rows <= 10 for m in metadata)
    assert read(tmp_path, "pairs", {"train": "abc"})["train"][:] == rows[:]
    files["pairs/train-00002-of-00004.parquet"].unlink()
    with pytest.raises(DatasetError, match=r"pairs/ has 3 of 4 files of split 'train': push the dataset again"):
        read(tmp_path, "pairs", {"train": "abc"})


def test_a_change_in_the_middle_leaves_most_chunks_as_they_were(tmp_path):
    """Content-defined chunking: pages are cut where the content says, so an insertion moves few of them."""
    draw = np.random.default_rng(0)
    texts = [draw.integers(0, 1 << 62, 8).tobytes().hex() for _ in range(40_000)]
    kept = {}
    for name, rows in (("before", texts), ("after", [*texts[:100], "a new row", *texts[100:]])):
        (path,) = write(Dataset.from_dict({"text": rows}), tmp_path / name, "t", "train").values()
        content, column = path.read_bytes(), pq.read_metadata(path).row_group(0).column(0)
        assert column.total_compressed_size > 2**20
        kept[name] = content
    tail = kept["before"][len(kept["before"]) // 2 : len(kept["before"]) // 2 + 100_000]
    assert tail in kept["after"]


def test_files_of_another_build_and_damaged_ones_are_refused(tmp_path):
    files = write(pairs(3), tmp_path, "pairs", "train", digest="abc")
    with pytest.raises(DatasetError, match="is not the table that the manifest names, it is from another build"):
        read(tmp_path, "pairs", {"train": "def"})
    with pytest.raises(DatasetError, match=r"pairs/ has 0 of 1 files of split 'test'"):
        read(tmp_path, "pairs", {"train": "abc", "test": "abc"})
    (path,) = files.values()
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DatasetError, match=r"pairs/train-00000-of-00001.parquet is damaged"):
        read(tmp_path, "pairs", {"train": "abc"})
    pq.write_table(pa.table({"x": [1]}), path)
    with pytest.raises(DatasetError, match="is from another build"):
        read(tmp_path, "pairs", {"train": "abc"})


def test_a_table_without_rows(tmp_path):
    (path,) = write(pairs(3).select([]), tmp_path, "pairs", "test", digest="abc")
    assert pq.read_table(tmp_path / path).num_rows == 0
