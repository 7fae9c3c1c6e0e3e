"""Files of every kind, damaged at random: reading ends, and says what is wrong in faults, never in a traceback."""

import gzip
import io
import json
from functools import cache
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rpo_data.read import Fault, Record, content_hash, read_records
from rpo_data.sources import SUFFIXES, Source, find_sources
from rpo_data.standard_input import spool

RECORDS = [
    {
        "prompt": f"q {n}",
        "chosen": [{"role": "assistant", "content": 'ü "a", b\n' * n}],
        "rejected": None,
        "score": n / 3,
    }
    for n in range(8)
]
FLAT = [{"prompt": f'q "{n}", ü', "chosen": "a\nb" * n, "rejected": str(n)} for n in range(8)]


def lines() -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in RECORDS).encode()


def table(delimiter: str) -> bytes:
    rows = ([str(cell).replace('"', '""') for cell in row.values()] for row in FLAT)
    text = [delimiter.join(FLAT[0]), *(delimiter.join(f'"{cell}"' for cell in row) for row in rows)]
    return "\n".join(text).encode()


def parquet(**settings) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(RECORDS), sink, row_group_size=3, **settings)
    return sink.getvalue()


def zst(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


@cache
def saved() -> dict[str, bytes]:
    """The files that save_to_disk makes."""
    with TemporaryDirectory() as folder:
        Dataset.from_list(RECORDS).save_to_disk(folder)
        return {file.name: file.read_bytes() for file in Path(folder).iterdir()}


@cache
def valid(name: str) -> bytes:
    """A file of this name, undamaged."""
    return {
        "x.jsonl": lines,
        "x.jsonl.gz": lambda: gzip.compress(lines(), mtime=0),
        "x.jsonl.zst": lambda: zst(lines()),
        "x.json": lambda: json.dumps(RECORDS, indent=1).encode(),
        "y.json": lambda: json.dumps(RECORDS).encode(),
        "x.csv": lambda: table(","),
        "x.tsv": lambda: table("\t"),
        "x.csv.gz": lambda: gzip.compress(table(","), mtime=0),
        "x.parquet": parquet,
        "y.parquet": lambda: parquet(compression="none", use_dictionary=False, write_page_checksum=True),
        "saved": lambda: next(content for name, content in saved().items() if name.endswith(".arrow")),
    }[name]()


NAMES = ["x.jsonl", "x.jsonl.gz", "x.jsonl.zst", "x.json", "y.json", "x.csv", "x.tsv", "x.csv.gz", "x.parquet", "y.parquet",
         "saved"]  # fmt: skip

INSTEAD = [
    b'"', b"{", b"]", b"\n", b"\\", b"\x00", b"\xff", b",", b"[" * 3000, b'{"a":' * 2000, b"NaN", b"1e999", b'"\\ud800"',
]  # fmt: skip

# a place in the file (as a share of its length), how many bytes go there, and what comes instead
damages = st.lists(
    st.tuples(
        st.floats(0, 1),
        st.just(0) | st.just(1) | st.integers(0, 40) | st.just(10**9),
        st.binary(max_size=4) | st.sampled_from(INSTEAD),
    ),
    max_size=4,
)


def damaged(content: bytes, damage) -> bytes:
    for share, gone, instead in damage:
        place = int(share * len(content))
        content = content[:place] + instead + content[place + gone :]
    return content


def read_damaged(name: str, content: bytes) -> list[Record | Fault]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        if name == "saved":
            path.mkdir()
            for file, undamaged in saved().items():
                (path / file).write_bytes(content if file.endswith(".arrow") else undamaged)
        else:
            path.write_bytes(content)
        (source,) = find_sources([path])
        assert len(content_hash(source)) == 32
        return list(islice(read_records(source), 100_000))


@pytest.mark.parametrize("name", NAMES)
def test_undamaged_files_have_no_fault(name):
    items = read_damaged(name, valid(name))
    assert [item.data for item in items] == (FLAT if ".csv" in name or ".tsv" in name else RECORDS)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(NAMES), damages)
@example("x.jsonl", [(0.0, 10**9, b"")])
@example("x.csv", [(0.0, 0, b'"')])
def test_no_damage_gives_a_traceback(name, damage):
    check(name, read_damaged(name, damaged(valid(name), damage)))


@settings(deadline=None, max_examples=150)
@given(st.sampled_from([name for name in NAMES if name != "saved"]), damages, st.binary(max_size=20))
def test_no_damage_on_standard_input_gives_a_traceback(name, damage, before):
    with TemporaryDirectory() as folder:
        file = spool(io.BytesIO(before + damaged(valid(name), damage)), Path(folder))
        check("stdin", list(islice(read_records(Source("stdin", str(file), SUFFIXES[file.suffix])), 100_000)))


def check(name: str, items: list[Record | Fault]) -> None:
    assert 0 < len(items) < 100_000
    for item in items:
        if isinstance(item, Record):
            assert isinstance(item.data, dict)
            item.raw().encode()
        else:
            assert item.message.startswith(name)
            (item.message + item.raw).encode()
