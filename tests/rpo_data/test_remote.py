"""Logs at URLs: the same records as from a local file, names without secrets, one sentence where something is wrong."""

import gzip
import http.server
import io
import json
import threading
import zipfile
from functools import partial

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rpo_data.errors import LogError
from rpo_data.read import Record, content_hash, read_records
from rpo_data.remote import is_url, name_below, path_parts, shown
from rpo_data.sources import find_sources, inner_suffix

RECORDS = [{"chosen": 'a, "quoted" ü', "rejected": "b"}, {"chosen": "c", "rejected": "d"}]
LINES = "".join(json.dumps(record) + "\n" for record in RECORDS).encode()


def parquet(row_group_size=1) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(RECORDS), sink, row_group_size=row_group_size)
    return sink.getvalue()


def zst(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


FILES = {
    "a.jsonl": LINES,
    "b.jsonl.gz": gzip.compress(LINES),
    "c.jsonl.zst": zst(LINES),
    "d.json": json.dumps(RECORDS, indent=1).encode(),
    "e.csv": b'chosen,rejected\n"a, ""quoted"" \xc3\xbc",b\nc,d\n',
    "f.parquet": parquet(),
}


@pytest.fixture
def memory():
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    for name, content in FILES.items():
        files.pipe(f"/bucket/logs/{name}", content)
    files.pipe("/bucket/logs/deep/g.jsonl", LINES)
    files.pipe("/bucket/logs/notes.txt", b"x")
    files.pipe("/bucket/logs/.hidden.jsonl", LINES)
    yield files
    files.store.clear()


def data_of(source):
    items = list(read_records(source))
    assert all(isinstance(item, Record) for item in items), items
    return [item.data for item in items]


def names(*logs, ignored=None):
    return [source.name for source in find_sources(logs, ignored)]


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_is_read_as_from_disk(name, memory, tmp_path):
    (source,) = find_sources([f"memory://bucket/logs/{name}"])
    assert source.name == f"logs/{name}"
    assert data_of(source) == RECORDS
    (tmp_path / name).write_bytes(FILES[name])
    (local,) = find_sources([tmp_path / name])
    assert content_hash(source) == content_hash(local)


def test_folders_and_globs(memory):
    ignored = []
    assert names("memory://bucket/logs", ignored=ignored) == sorted(
        [*(f"logs/{n}" for n in FILES), "logs/deep/g.jsonl"]
    )
    assert ignored == ["logs/notes.txt"]
    assert names("memory://bucket/logs/*.jsonl*") == ["logs/a.jsonl", "logs/b.jsonl.gz", "logs/c.jsonl.zst"]
    assert names("memory://bucket/**/g.jsonl") == ["logs/deep/g.jsonl"]
    assert names("memory://bucket/logs/*.csv", "memory://bucket/logs/e.csv") == ["logs/e.csv"]
    for source in find_sources(["memory://bucket/logs/*.jsonl*"]):
        assert data_of(source) == RECORDS


def test_a_file_that_was_added_later_is_found(memory):
    with pytest.raises(LogError, match=r"no file is found at memory://bucket/new/\*\.jsonl"):
        find_sources(["memory://bucket/new/*.jsonl"])
    memory.pipe("/bucket/new/h.jsonl", LINES)
    assert names("memory://bucket/new/*.jsonl") == ["new/h.jsonl"]


def test_file_urls_are_local_files(tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "a.jsonl").write_bytes(LINES)
    url = f"file://{tmp_path}/logs"
    assert find_sources([url]) == find_sources([tmp_path / "logs"])
    assert names(f"{url}/*.jsonl", tmp_path / "logs" / "a.jsonl") == ["a.jsonl"]


def test_inside_an_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for name, content in FILES.items():
            archive.writestr(f"in/{name}", content)
    sources = find_sources([f"zip://in/*::{tmp_path / 'all.zip'}"])
    assert [source.name for source in sources] == [f"in/{name}" for name in FILES]
    assert [source.name for source in find_sources([f"zip://::{tmp_path / 'all.zip'}"])] == [
        f"in/{name}" for name in FILES
    ]
    for source in sources:
        assert data_of(source) == RECORDS


def test_two_archives_with_files_of_one_name_and_one_written_anew(tmp_path):
    for name in ("one", "two"):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            archive.writestr("a.jsonl", LINES)
    logs = [f"zip://*::{tmp_path / name}.zip" for name in ("one", "two")]
    sources = find_sources(logs)
    assert [source.name for source in sources] == ["one.zip/a.jsonl", "two.zip/a.jsonl"]
    first = content_hash(sources[0])
    with zipfile.ZipFile(tmp_path / "one.zip", "w") as archive:
        archive.writestr("a.jsonl", LINES * 2)
    assert content_hash(find_sources(logs)[0]) != first
    assert data_of(sources[0]) == RECORDS * 2


def test_a_chain_without_an_archive(memory):
    (source,) = find_sources(["simplecache::memory://bucket/logs/a.jsonl"])
    assert source.name == "logs/a.jsonl"
    assert data_of(source) == RECORDS


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("s3://bucket/logs/a.jsonl", "logs/a.jsonl"),
        ("s3://bucket/a.jsonl", "a.jsonl"),
        ("hf://datasets/user/repo/data/a.parquet", "user/repo/data/a.parquet"),
        ("https://host/logs/a.jsonl.gz?X-Signature=abc&y=1", "logs/a.jsonl.gz"),
        ("https://me:secret@host/logs/a.jsonl", "logs/a.jsonl"),
        ("sftp://me:secret@host/home/me/a.jsonl", "home/me/a.jsonl"),
        ("zip://in/a.jsonl::/home/me/all.zip", "in/a.jsonl"),
        ("zip://in/a.jsonl::https://host/all.zip?token=abc", "in/a.jsonl"),
        ("simplecache::s3://bucket/logs/a.jsonl", "logs/a.jsonl"),
    ],
)
def test_names_hold_no_host_no_secret_and_no_local_path(url, name):
    assert is_url(url)
    assert name_below(url) == name
    assert "secret" not in shown(url)
    assert "abc" not in shown(url)
    assert inner_suffix(url) in (".jsonl", ".parquet")


def test_names_stay_unique():
    logs = ["s3://one/a.jsonl", "s3://two/a.jsonl", "https://h/b.jsonl?id=1", "https://h/b.jsonl?id=2"]
    assert names(*logs) == ["h/b.jsonl", "h/b.jsonl#2", "one/a.jsonl", "two/a.jsonl"]
    assert find_sources(logs) == find_sources(logs[::-1])


def test_path_parts():
    assert path_parts("zip://in/a.jsonl::s3://b/all.zip") == ["b", "all.zip", "in", "a.jsonl"]
    assert path_parts("simplecache::https://me:x@h/a.jsonl?k=1") == ["h", "a.jsonl"]


@pytest.mark.parametrize("log", ["logs/a.jsonl", "/logs/a::b.jsonl", "ab::c.jsonl", "user/name", "-", "C:\\a.jsonl"])
def test_paths_are_no_urls(log):
    assert not is_url(log)


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("memory://bucket/logs/none.jsonl", r"^memory://bucket/logs/none\.jsonl does not exist: check"),
        ("memory://bucket/logs/notes.txt", r"is no folder and has no ending that is known"),
        ("memory://bucket/none", r"^memory://bucket/none does not exist"),
        ("memory://bucket/*.nothing", r"no file is found at memory://bucket/\*\.nothing"),
        ("nosuch://bucket/a.jsonl", r"^nosuch://bucket/a\.jsonl cannot be read \(Protocol not known: nosuch\)"),
        ("s3://me:secret@bucket/logs/", r"^s3://bucket/logs/ needs s3fs, which is not installed: pip install s3fs$"),
    ],
)
def test_what_is_wrong_is_one_sentence(log, message, memory):
    with pytest.raises(LogError, match=message) as caught:
        [content_hash(source) for source in find_sources([log])]
    assert "\n" not in str(caught.value)


class _Broken(io.BytesIO):
    """A connection that breaks after some bytes."""

    def read(self, size=-1):
        if self.tell() >= 40:
            raise RuntimeError("connection reset https://me:secret@host/x?token=secret")
        return super().read(min(size, 40) if size > 0 else 40)


@pytest.mark.parametrize("name", FILES)
def test_a_connection_that_breaks_ends_the_reading(name, memory, monkeypatch):
    """Half of the logs must not pass for all of them."""
    (source,) = find_sources([f"memory://bucket/logs/{name}"])
    monkeypatch.setattr(type(memory), "open", lambda self, path, *_, **__: _Broken(memory.cat(path) + b" " * 99))
    for read in (content_hash, lambda source: list(read_records(source))):
        with pytest.raises(LogError, match=r"cannot be read \(connection reset https://host/x\)") as caught:
            read(source)
        assert "secret" not in str(caught.value)


# -- a web server -------------------------------------------------------------------------------------------------------


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def web(tmp_path):
    """A server that knows no ranges, as many do."""
    pytest.importorskip("aiohttp")
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("name", FILES)
def test_from_a_web_server(name, web, tmp_path):
    (source,) = find_sources([f"{web}/{name}?key=1"])
    assert source.name == name
    assert data_of(source) == RECORDS
    (local,) = find_sources([tmp_path / name])
    assert content_hash(source) == content_hash(local)


def test_what_is_wrong_on_the_web_is_one_sentence(web):
    (source,) = find_sources([f"{web}/none.jsonl"])
    with pytest.raises(LogError, match=r"none\.jsonl does not exist"):
        content_hash(source)
    (source,) = find_sources(["http://127.0.0.1:1/a.jsonl?key=secret"])
    with pytest.raises(LogError, match=r"^http://127\.0\.0\.1:1/a\.jsonl cannot be read \(.*\): check") as caught:
        content_hash(source)
    assert "secret" not in str(caught.value)
