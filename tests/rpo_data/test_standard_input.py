"""Standard input is read once, whatever it holds, and leaves nothing behind."""

import gzip
import io
import json
import os
import pty
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rpo_data.errors import LogError
from rpo_data.read import Fault, read_records
from rpo_data.sources import SUFFIXES, Source
from rpo_data.standard_input import spool

RECORDS = [{"chosen": 'a, "quoted" ü\nline', "rejected": "b"}, {"chosen": "c", "rejected": "{[d"}]
LINES = "".join(json.dumps(record) + "\n" for record in RECORDS).encode()


def zst(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(RECORDS), sink)
    return sink.getvalue()


def items_of(content: bytes, folder):
    file = spool(io.BytesIO(content), folder)
    return file.suffix, list(read_records(Source("stdin", str(file), SUFFIXES[file.suffix])))


CSV = b'chosen,rejected\n"a, ""quoted"" \xc3\xbc\nline",b\nc,{[d\n'
CONTENTS = {
    "lines": (LINES, ".jsonl"),
    "one line": (json.dumps(RECORDS[0]).encode(), ".jsonl"),
    "one long line": (json.dumps({"a": "x" * 100_000}).encode() + b"\n", ".jsonl"),
    "dos lines": (b"\xef\xbb\xbf" + LINES.replace(b"\n", b"\r\n"), ".jsonl"),
    "lines in gzip": (gzip.compress(LINES), ".jsonl"),
    "lines in zstd": (zst(LINES), ".jsonl"),
    "array": (json.dumps(RECORDS).encode(), ".json"),
    "pretty array": (json.dumps(RECORDS, indent=2).encode(), ".json"),
    "pretty objects": ("\n".join(json.dumps(r, indent=2) for r in RECORDS).encode(), ".json"),
    "csv": (CSV, ".csv"),
    "tsv": (CSV.replace(b",", b"\t"), ".tsv"),
    "csv in gzip": (gzip.compress(CSV), ".csv"),
    "parquet": (parquet(), ".parquet"),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_the_content_says_what_it_is(name, tmp_path):
    content, ending = CONTENTS[name]
    found, items = items_of(content, tmp_path)
    assert found == ending
    assert not any(isinstance(item, Fault) for item in items)
    if name not in ("one line", "one long line", "tsv"):
        assert [item.data for item in items] == RECORDS


def test_a_broken_first_line_costs_only_itself(tmp_path):
    for first in (b'{"chosen": "a"\n', b"x\n", b'{"chosen":\n'):
        _, items = items_of(first + LINES, tmp_path)
        assert [isinstance(item, Fault) for item in items] == [True, False, False]


@pytest.mark.parametrize(
    ("content", "codes"),
    [
        (b"", ["empty_file"]),
        (b"\n\n", ["empty_file"]),
        (gzip.compress(LINES)[:14], ["truncated_file"]),
        (b"PAR1 and no more", ["corrupt_file"]),
        (b"just words\n", ["broken_json"]),
    ],
    ids=["nothing", "blank", "gzip", "parquet", "words"],
)
def test_what_is_no_log_is_a_fault(content, codes, tmp_path):
    _, items = items_of(content, tmp_path)
    assert [item.code for item in items] == codes
    assert all("stdin" in item.message for item in items)


SCRIPT = """
import sys
from rpo_data.errors import LogError
from rpo_data.read import content_hash, read_records
from rpo_data.sources import find_sources
try:
    (source,) = find_sources(["-", "-"])
    (again,) = find_sources(["-"])
    assert source == again
    print(source.name, content_hash(source), len(list(read_records(source))), source.path)
except LogError as error:
    print(error)
"""


def run(**stdin):
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=False, timeout=120, **stdin)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().strip()


def test_from_a_pipe_and_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    name, digest, records, path = run(input=gzip.compress(LINES, mtime=0)).split()
    assert (name, records) == ("stdin", "2")
    assert len(digest) == 32
    assert path.startswith(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_terminal_is_refused():
    leader, follower = pty.openpty()
    try:
        assert run(stdin=follower).startswith("nothing comes in on standard input: pipe the logs in")
    finally:
        os.close(leader)
        os.close(follower)


def test_a_stream_that_cannot_be_read_is_one_sentence(tmp_path):
    class Broken(io.RawIOBase):
        def read(self, size=-1):
            raise OSError(28, "No space left on device")

    with pytest.raises(LogError, match=r"standard input cannot be kept in .* \(No space left on device\): set TMPDIR"):
        spool(Broken(), tmp_path)
