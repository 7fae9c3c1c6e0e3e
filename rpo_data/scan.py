"""The fast lane of lint: plain records of a JSON-lines file, read column by column; all else goes to the exact reader.

This lane only ever says "this record is well"; what is wrong with one is for the exact reader (rpo_data/read.py,
rpo_data/shapes, rpo_data/check.py) to say. Whatever could surprise is therefore left to it (see rpo_data/plain.py).
"""

import os
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import polars as pl
import pyarrow as pa

from rpo_data import read_json
from rpo_data.plain import read_plain
from rpo_data.read import read_records
from rpo_data.records import MAX_RECORD_BYTES, Fault, Record
from rpo_data.shapes import Message, shapes
from rpo_data.sources import Source, inner_suffix
from rpo_data.streams import open_text

CHUNK_BYTES = 16 * 2**20
TEXTS = pl.Schema(
    {"line": pl.Int64, "kind": pl.String, "prompt": pl.String, "chosen": pl.String, "rejected": pl.String}
)
Work = Callable[[pl.DataFrame], Any]
_SAMPLE_BYTES = 2**20
_WORKERS = min(4, os.cpu_count() or 1)

_NAMES = {"user": "Human", "assistant": "Assistant", "system": "System", "tool": "Tool"}


class Batch(NamedTuple):
    """The rows of some lines of a file: `texts` has the columns of `TEXTS`; `suspects` are for the exact lane to judge.

    `worked` is what the caller's own work made of the texts, whose lines it saw counted from the start of the batch.
    """

    texts: pl.DataFrame
    worked: Any
    suspects: list[Record | Fault]


def scan(
    source: Source, shape: str = "auto", chunk_bytes: int = CHUNK_BYTES, work: Work = lambda texts: None
) -> Iterator[Batch] | None:
    """Read a source through the fast lane; together the batches hold each record once, in the order of the file.

    Args:
        source: where the records are.
        shape: auto, or the name of the shape that the user says it has.
        chunk_bytes: bytes read at once; changes the size of the batches, never what they hold.
        work: called with the texts of each batch, by several threads at once.

    Returns:
        The batches, or None where the exact lane must read everything (see `plain_shape`).

    Raises:
        LogError: the file cannot be opened (when the first batch is taken).
    """
    name = plain_shape(source, shape)
    return None if name is None else _batches(source, _COLUMNS[name], chunk_bytes, work)


def plain_shape(source: Source, shape: str = "auto") -> str | None:
    """The shape of the plain records of a source: hh or preference; None where it is no file of mostly plain records.

    Raises:
        LogError: the file cannot be opened.
    """
    declared = source.shape or source.columns or source.hidden or source.tags
    if source.kind != "json" or declared or not Path(source.path).is_file():
        return None
    with open_text(source.path) as stream:
        try:
            if not _is_json_lines(source, stream):
                return None
            block = _without_mark(stream.read(_SAMPLE_BYTES) + stream.readline(MAX_RECORD_BYTES))
        except _TORN:
            return None
    for name, columns in _COLUMNS.items():
        foreign = (other for other in shapes().values() if not other.read.__module__.startswith("rpo_data."))
        if shape == "auto" and any(set(columns).issuperset(need) for other in foreign for need in other.needs):
            continue  # somebody's own shape could claim such records too; none of ours claims texts like these
        if shape in ("auto", name):
            texts, rest, _ = _sift(block, columns)
            if texts.height > len(rest):
                return name
    return None


def prompt_text(messages: list[Message]) -> str:
    r"""The one text that stands for a prompt, whatever shape it came in: HH's way of writing dialogues.

    >>> prompt_text([{"role": "user", "content": " Hi"}, {"role": "assistant", "content": "Hello"}])
    '\n\nHuman: Hi\n\nAssistant: Hello'
    """
    return "".join(f"\n\n{_NAMES.get(m['role'], m['role'])}: {_body(m)}" for m in messages)


def response_text(messages: list[Message]) -> str:
    r"""The one text that stands for a response: its words alone where it is one answer, else as in `prompt_text`."""
    if len(messages) == 1 and messages[0]["role"] == "assistant":
        return _body(messages[0])
    return prompt_text(messages)


def _body(message: Message) -> str:
    more = [f"{key}={message[key]}" for key in ("name", "tool_calls", "tool_call_id") if message.get(key) is not None]
    return " ".join([(message.get("content") or "").strip(), *more])


# -- lines --------------------------------------------------------------------------------------------------------------

_TORN = (EOFError, zlib.error, OSError, pa.ArrowException)


def _batches(source: Source, columns: tuple[str, ...], chunk_bytes: int, work: Work) -> Iterator[Batch]:
    """Chunks are sifted and worked on by several threads, and come out in the order of the file."""

    def sift(block: bytes) -> tuple[pl.DataFrame, Any, list[tuple[int, bytes]], int]:
        texts, rest, lines = _sift(block, columns)
        return texts, work(texts), rest, lines

    waiting: deque[Any] = deque()
    done, torn = 0, False  # done: lines of the chunks that were sifted
    with open_text(source.path) as stream, ThreadPoolExecutor(_WORKERS) as pool:
        blocks = _blocks(stream, chunk_bytes)
        while True:
            try:
                block = next(blocks, None)
            except _TORN:
                block, torn = None, True
            if block is not None:
                waiting.append(pool.submit(sift, block))
            elif not waiting:
                break
            if len(waiting) > _WORKERS or block is None:
                texts, worked, rest, lines = waiting.popleft().result()
                suspects = [_exact(source, done + place, line) for place, line in rest]
                yield Batch(texts.with_columns(pl.col("line") + done), worked, suspects)
                done += lines
    if torn:  # the exact reader knows how far a damaged file can be read, and what to say
        rest = (item for item in read_records(source) if item.line > done or _is_damage(item))
        yield Batch(pl.DataFrame(schema=TEXTS), work(pl.DataFrame(schema=TEXTS)), list(rest))


def _blocks(stream: BinaryIO, chunk_bytes: int) -> Iterator[bytes]:
    """The file in pieces that end with a line; of a line too long to be a record only a start that is too long, too."""
    first = True
    while block := stream.read(chunk_bytes):
        if not block.endswith(b"\n"):
            tail = stream.readline(MAX_RECORD_BYTES)
            block += tail
            while len(tail) == MAX_RECORD_BYTES and not tail.endswith(b"\n"):
                tail = stream.readline(MAX_RECORD_BYTES)
            if tail.endswith(b"\n") and not block.endswith(b"\n"):
                block += b"\n"
        yield _without_mark(block) if first else block
        first = False


def _without_mark(block: bytes) -> bytes:
    return block.removeprefix(b"\xef\xbb\xbf")


def _is_json_lines(source: Source, stream: Any) -> bool:
    start = stream.peek(1 << 14).lstrip(b"\xef\xbb\xbf \t\r\n")
    first_is_whole = re.match(rb"\{[^\n]*\}[ \t\r]*(\n|$)", start) is not None
    return not start.startswith(b"[") and (inner_suffix(source.path) != ".json" or first_is_whole)


def _is_damage(item: Record | Fault) -> bool:
    return isinstance(item, Fault) and item.code in ("truncated_file", "corrupt_file")


def _is_too_long(line: bytes) -> bool:
    return len(line) > MAX_RECORD_BYTES or (len(line) == MAX_RECORD_BYTES and not line.endswith(b"\n"))


def _exact(source: Source, number: int, line: bytes) -> Record | Fault:
    if _is_too_long(line):
        return read_json.too_long(source, number, line[:MAX_RECORD_BYTES])
    return read_json.json_record(source, number, line.rstrip(b"\r\n"))


# -- a block of lines ---------------------------------------------------------------------------------------------------

_COLUMNS = {"hh": ("chosen", "rejected"), "preference": ("prompt", "chosen", "rejected")}


def _sift(block: bytes, columns: tuple[str, ...]) -> tuple[pl.DataFrame, list[tuple[int, bytes]], int]:
    """The plain rows of some whole lines, all other lines but the blank ones, and how many lines there are."""
    texts, others, lines = read_plain(block, columns)
    rest = ((int(number), block[start:end]) for number, start, end in others)
    texts = texts.with_columns(kind=pl.lit("pair")).select(TEXTS.names())
    return texts, [(number, line) for number, line in rest if line.strip() or _is_too_long(line)], lines
