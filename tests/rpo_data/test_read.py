"""Every format gives the same records; every fault gives its code and place, and the rest of the file still counts."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from rpo_data import read_json
from rpo_data.errors import LogError
from rpo_data.read import Fault, Record, content_hash, read_records
from rpo_data.records import corrupt
from rpo_data.sources import Source, find_sources

RECORDS = [{"chosen": 'a, "quoted" ü\nline', "rejected": "b"}, {"chosen": "c", "rejected": "{[d"}]
LINES = "".join(json.dumps(record) + "\n" for record in RECORDS).encode()


def read_all(path):
    (source,) = find_sources([path])
    return list(read_records(source))


def records(path):
    return [item.data for item in read_all(path) if isinstance(item, Record)]


def faults(path):
    return [(item.code, item.line) for item in read_all(path) if isinstance(item, Fault)]


def zst(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


FORMATS = dict(
    [
        ("lines.jsonl", LINES),
        ("lines.json", LINES),
        ("dos.jsonl", b"\xef\xbb\xbf" + LINES.replace(b"\n", b"\r\n")),
        ("blank.jsonl", b"\n" + LINES + b"\n\n"),
        ("lines.jsonl.gz", gzip.compress(LINES)),
        ("misnamed.jsonl", gzip.compress(LINES)),
        ("members.jsonl.gz", b"".join(gzip.compress(line) for line in LINES.splitlines(keepends=True))),
        ("lines.jsonl.zst", zst(LINES)),
        ("array.json", json.dumps(RECORDS).encode()),
        ("pretty.json", json.dumps(RECORDS, indent=2).encode()),
        ("array.json.gz", gzip.compress(json.dumps(RECORDS, indent=1).encode())),
        ("one after the other.json", "\n".join(json.dumps(r, indent=2) for r in RECORDS).encode()),
    ]
)


@pytest.mark.parametrize("name", FORMATS)
def test_text_formats(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(FORMATS[name])
    assert records(path) == RECORDS
    assert faults(path) == []


def test_tables(tmp_path):
    rows = Dataset.from_list(RECORDS)
    rows.to_parquet(tmp_path / "rows.parquet")
    rows.to_csv(tmp_path / "rows.csv")
    rows.to_csv(tmp_path / "rows.tsv", sep="\t")
    rows.save_to_disk(str(tmp_path / "saved"))
    for name in ("rows.parquet", "rows.csv", "rows.tsv", "saved"):
        assert records(tmp_path / name) == RECORDS, name


def test_lines_are_counted_as_an_editor_counts_them(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\n" + LINES)
    assert [item.line for item in read_all(path)] == [2, 3]
    path = tmp_path / "x.json"  # an array may stand on one line: its records are counted
    path.write_text('[\n{"a": 1},\n\n{"a":\n2}]')
    assert [item.line for item in read_all(path)] == [1, 2]
    path = tmp_path / "x.csv"
    path.write_text('a,b\n1,"two\nlines"\n2,x\n')
    assert [item.line for item in read_all(path)] == [2, 4]


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (b'{"chosen": "a"', "broken_json"),
        (b'{"chosen": "\xff"}', "invalid_utf8"),
        (b"[1, 2]", "not_an_object"),
        (b'"text"', "not_an_object"),
        (b"null", "not_an_object"),
        (b"[" * 200_000, "broken_json"),
    ],
)
def test_a_broken_line_costs_only_itself(broken, code, tmp_path):
    path = tmp_path / "x.jsonl"
    first, second = LINES.splitlines(keepends=True)
    path.write_bytes(first + broken + b"\n" + second)
    assert records(path) == RECORDS
    assert faults(path) == [(code, 2)]


def test_a_broken_element_of_an_array_costs_only_itself(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(b'[{"a": 1},\n{"a": tru},\n7,\n{"a": 2},\n{"a": "\xff"}]')
    assert records(path) == [{"a": 1}, {"a": 2}]
    assert faults(path) == [("broken_json", 2), ("not_an_object", 3), ("invalid_utf8", 5)]


@pytest.mark.parametrize(
    "broken", ['{"a": "1, "b": "2"}', '{"a": ["1", "b": 2}', '{"a": 1]}', "1, null, true", '"text, with {comma"']
)
def test_misplaced_quotes_and_brackets_in_an_array_cost_only_themselves(broken, tmp_path):
    path = tmp_path / "x.json"
    for space in ("", "\n"):
        path.write_text(f'[{{"a": 1}},{space}{broken},{space}{{"a": 2}},{space}{{"a": 3}}]')
        if space or '"1, ' not in broken:
            assert records(path) == [{"a": 1}, {"a": 2}, {"a": 3}]
        assert len(faults(path)) >= 1


def test_a_byte_order_mark_before_objects_is_no_record(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"a":\n1}\n{"a": 2}', encoding="utf-8-sig")
    assert records(path) == [{"a": 1}, {"a": 2}]
    assert faults(path) == []


@pytest.mark.parametrize(
    "content", [gzip.compress(b"x")[:2], gzip.compress(LINES)[:14], zst(LINES)[:12]], ids=["magic", "gzip", "zstd"]
)
def test_a_compressed_file_of_a_few_bytes_is_no_crash(content, tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    assert [code for code, _ in faults(path)][-1] in {"truncated_file", "corrupt_file", "invalid_utf8", "empty_file"}


def test_a_column_that_is_there_twice(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("a,b,b\n1,2,3\n")
    assert faults(path) == [("duplicate_column", 1)]
    table = pa.table([pa.array([1]), pa.array([2])], names=["a", "a"])
    pq.write_table(table, tmp_path / "x.parquet")
    assert faults(tmp_path / "x.parquet") == [("duplicate_column", 1)]


def test_csv_from_pandas_with_python_lists(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("chosen\n\"[{'role': 'user'}]\"\n")
    (fault,) = read_all(path)
    assert "write message lists as JSON" in fault.message


def test_parquet_values_that_python_cannot_hold_cost_only_their_row(tmp_path):
    path = tmp_path / "x.parquet"
    raw = pa.array([b"good", b"\xff", b"fine"]).view(pa.string())
    pq.write_table(pa.table({"a": raw, "when": pa.array([1, 2, 2**62]).view(pa.timestamp("us"))}), path)
    assert [row["a"] for row in records(path)] == ["good", "fine"]
    assert faults(path) == [("invalid_utf8", 2)]


def test_parquet_columns_whose_names_are_no_utf8(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"chosen": ["a"], "rejected": ["b"]}), path, store_schema=False)
    for name in (b"chosen", b"rejected"):
        whole = path.read_bytes()
        assert name in whole
        (tmp_path / "y.parquet").write_bytes(whole.replace(name, b"\x80" + name[1:]))
        assert faults(tmp_path / "y.parquet") == [("corrupt_file", 1)]


def test_an_unfinished_array_keeps_what_came_before(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(b'[{"a": 1},\n{"a": 2')
    assert records(path) == [{"a": 1}]
    assert faults(path) == [("broken_json", 2)]


@pytest.mark.parametrize("compress", [gzip.compress, zst], ids=["gzip", "zstd"])
def test_a_torn_compressed_file_keeps_what_came_before(compress, tmp_path):
    lines = b"".join(json.dumps({"number": n, "noise": hash(str(n))}).encode() + b"\n" for n in range(20_000))
    whole = compress(lines)
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(whole[: len(whole) // 2])
    items = read_all(path)
    read_before = [item.data["number"] for item in items[:-1]]
    assert len(read_before) > 5_000
    assert read_before == list(range(len(read_before)))
    assert (items[-1].code, items[-1].line) == ("truncated_file", len(items))


def test_a_damaged_gzip_is_no_crash(tmp_path):
    whole = bytearray(gzip.compress(LINES * 500))
    whole[len(whole) // 2] ^= 0xFF
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(bytes(whole))
    assert faults(path)[-1][0] in {"corrupt_file", "truncated_file"}


@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.csv", "x.jsonl.gz"])
def test_an_empty_file_is_said_to_be_empty(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(gzip.compress(b"") if name.endswith(".gz") else b"")
    assert faults(path) == [("empty_file", 0)]


def test_csv_faults(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(b'a,b\n1,2\n3\n4,"\xff"\n5,6,7\n8,9\n')
    assert records(path) == [{"a": "1", "b": "2"}, {"a": "8", "b": "9"}]
    assert faults(path) == [("broken_row", 3), ("invalid_utf8", 4), ("broken_row", 5)]


def test_a_csv_header_that_is_broken_or_comes_late(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text('a,"b"c\n1,2\n')
    assert faults(path) == [("broken_row", 1)]
    path.write_text("\n\na,b\n1,2\n")
    assert [(item.line, item.data) for item in read_all(path)] == [(4, {"a": "1", "b": "2"})]


def test_csv_cells_may_hold_messages(tmp_path):
    messages = [{"role": "user", "content": "hi"}]
    path = tmp_path / "x.csv"
    path.write_text('chosen\n"' + json.dumps(messages).replace('"', '""') + '"\n')
    assert records(path) == [{"chosen": messages}]


def test_a_parquet_file_that_is_none(tmp_path):
    path = tmp_path / "x.parquet"
    path.write_bytes(b"nonsense")
    assert faults(path) == [("corrupt_file", 1)]
    pq.write_table(pa.table({"a": [1]}), path)
    path.write_bytes(path.read_bytes()[:-20])
    assert faults(path) == [("corrupt_file", 1)]


def test_an_endless_line_is_left_out_and_the_next_one_read(tmp_path, monkeypatch):
    monkeypatch.setattr(read_json, "MAX_RECORD_BYTES", 1000)
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"x" * 5000 + b"\n" + LINES)
    assert records(path) == RECORDS
    assert faults(path) == [("line_too_long", 1)]


def test_faults_name_the_place_and_keep_the_record(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"chosen": \n')
    (fault,) = read_all(path)
    assert fault.message.startswith("x.jsonl:1: not valid JSON")
    assert fault.raw == '{"chosen": '


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=4), v, max_size=3),
    max_leaves=5,
)
json_objects = st.dictionaries(st.text(max_size=4), json_values, max_size=3)


@settings(deadline=None)
@given(st.lists(json_objects, min_size=1, max_size=5), st.sampled_from([None, 1]), st.integers(1, 40))
def test_arrays_are_read_as_json_reads_them_wherever_the_chunks_end(rows, indent, chunk):
    text = json.dumps(rows, indent=indent, ensure_ascii=False).encode("utf-8", "surrogatepass")

    class Stream:
        position = 0

        def read(self, _size):
            self.position += chunk
            return text[self.position - chunk : self.position]

    source = Source("x.json", "x.json", "json")
    items = list(read_json._values(source, Stream()))
    assert [item.data for item in items] == rows


def test_content_hash_is_of_the_bytes_alone(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(LINES)
    (tmp_path / "b.jsonl").write_bytes(LINES)
    one, two = find_sources([tmp_path])
    assert content_hash(one) == content_hash(two)
    (tmp_path / "b.jsonl").write_bytes(LINES + b" ")
    assert content_hash(one) != content_hash(two)


def test_a_hub_dataset_out_of_reach_is_one_sentence():
    (source,) = find_sources(["nobody/nothing"])
    with pytest.raises(LogError, match=r"dataset nobody/nothing cannot be loaded from the Hub .*: check the name"):
        list(read_records(source))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(5, "Input/output error", "/home/me/a.jsonl"), "Input/output error"),
        (OSError("https://me:pass@host/a.jsonl?key=1 is gone"), "https://host/a.jsonl is gone"),
        (OSError(), "OSError"),
    ],
)
def test_a_damaged_file_names_no_path_and_no_secret(error, said):
    """The message stands in the page of the dataset, which is published."""
    assert corrupt("a.jsonl", 3, error).message == f"a.jsonl:3: cannot be read from here on ({said}): export it again"
