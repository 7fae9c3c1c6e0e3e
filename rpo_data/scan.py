"""The fast lane of lint: plain records of a JSON-lines file, read column by column; all else goes to the exact reader.

This lane only ever says "this record is well"; what is wrong with one is for the exact reader (rpo_data/read.py,
rpo_data/shapes, rpo_data/check.py) to say. Whatever could surprise is therefore left to it: a record is plain only where
its line has the very form that a grammar below allows.
"""

import os
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

from rpo_data import read_json
from rpo_data.read import read_records
from rpo_data.records import MAX_RECORD_BYTES, Fault, Record
from rpo_data.schemas.frames import MAX_CHARACTERS
from rpo_data.shapes import Message, shapes
from rpo_data.sources import Source, inner_suffix
from rpo_data.streams import open_text

CHUNK_BYTES = 16 * 2**20
TEXTS = pl.Schema(
    {"line": pl.Int64, "kind": pl.String, "prompt": pl.String, "chosen": pl.String, "rejected": pl.String}
)
_SAMPLE_BYTES = 2**20
_CACHE = 2**18
_WORKERS = min(4, os.cpu_count() or 1)

_HUMAN, _ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
_NAMES = {"user": "Human", "assistant": "Assistant", "system": "System", "tool": "Tool"}


class Batch(NamedTuple):
    """The rows of some lines of a file: `texts` has the columns of `TEXTS`; `suspects` are for the exact lane to judge."""

    texts: pl.DataFrame
    suspects: list[Record | Fault]


@dataclass(frozen=True)
class _Layout:
    """A shape with the texts that a plain record of it has, and nothing else."""

    columns: tuple[str, ...]
    rows: Callable[[pl.DataFrame], pl.DataFrame]


def scan(source: Source, shape: str = "auto", chunk_bytes: int = CHUNK_BYTES) -> Iterator[Batch] | None:
    """Read a source through the fast lane; together the batches hold each record once, in the order of the file.

    Args:
        source: where the records are.
        shape: auto, or the name of the shape that the user says it has.
        chunk_bytes: bytes read at once; changes the size of the batches, never what they hold.

    Returns:
        The batches, or None where the exact lane must read everything (see `plain_shape`).

    Raises:
        LogError: the file cannot be opened (when the first batch is taken).
    """
    name = plain_shape(source, shape)
    return None if name is None else _batches(source, _LAYOUTS[name], chunk_bytes)


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
    for name, layout in _LAYOUTS.items():
        foreign = (other for other in shapes().values() if not other.read.__module__.startswith("rpo_data."))
        if shape == "auto" and any(set(layout.columns).issuperset(need) for other in foreign for need in other.needs):
            continue  # somebody's own shape could claim such records too; none of ours claims texts like these
        if shape in ("auto", name):
            texts, rest, _ = _sift(block, layout)
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


def _batches(source: Source, layout: _Layout, chunk_bytes: int) -> Iterator[Batch]:
    """Chunks are sifted by several threads (polars frees them), and come out in the order of the file."""
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
                waiting.append(pool.submit(_sift, block, layout))
            elif not waiting:
                break
            if len(waiting) > _WORKERS or block is None:
                texts, rest, lines = waiting.popleft().result()
                suspects = [_exact(source, done + place, line) for place, line in rest]
                yield Batch(texts.with_columns(pl.col("line") + done), suspects)
                done += lines
    if torn:  # the exact reader knows how far a damaged file can be read, and what to say
        rest = (item for item in read_records(source) if item.line > done or _is_damage(item))
        yield Batch(pl.DataFrame(schema=TEXTS), list(rest))


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


# -- what is plain ------------------------------------------------------------------------------------------------------

_HEX = "[0-9a-fA-F]"
_CHARACTER = r'[^"\\\x00-\x1f\x7f-\x{9f}\x{fffe}\x{ffff}]'
# escapes of what must be escaped, and of what is neither a letter or colon of ASCII (it could hide a turn marker), nor a
# control character, nor half of a surrogate pair
_ESCAPE = (
    r'\\(?:["\\/nrt]|u(?:'
    rf"00(?:[2a-fA-F]{_HEX}|3[0-9b-fB-F])|(?:0[1-9a-fA-F]|[1-9a-cA-CeE]{_HEX}|[dD][0-7]|[fF][0-9a-eA-E]){_HEX}{{2}}"
    rf"|[fF]{{2}}[0-9a-eA-E]{_HEX}|[dD][89abAB]{_HEX}{{2}}\\u[dD][c-fC-F]{_HEX}{{2}}))"
)
_TEXT = f'"(?:{_CHARACTER}|{_ESCAPE})*"'


def _grammar(columns: tuple[str, ...]) -> str:
    """A line with these columns, each a text, and no other; in any order (that each is there once is seen later)."""
    member = f'"(?:{"|".join(columns)})": ?{_TEXT}'
    return rf"^\{{{', ?'.join([member] * len(columns))}\}}\r?\n?$"


def _sift(block: bytes, layout: _Layout) -> tuple[pl.DataFrame, list[tuple[int, bytes]], int]:
    """The plain rows of some whole lines, all other lines but the blank ones, and how many lines there are.

    Lines are counted from 1, the first of the block.
    """
    bounds = _bounds(block)
    plain = _lines(block, bounds).str.contains(_grammar(layout.columns)).fill_null(False).to_numpy().copy()
    numbers = np.flatnonzero(plain)
    rows = _rows(_cut(block, bounds, plain), layout, len(numbers))
    plain[numbers] = rows["plain"].to_numpy()
    line = pl.Series("line", numbers + 1, dtype=pl.Int64)
    texts = rows.with_columns(line, kind=pl.lit("pair")).filter("plain").select(TEXTS.names())
    rest = ((int(place), block[bounds[place] : bounds[place + 1]]) for place in np.flatnonzero(~plain))
    return texts, [(place + 1, line) for place, line in rest if line.strip() or _is_too_long(line)], len(bounds) - 1


def _bounds(block: bytes) -> np.ndarray:
    """Where each line begins, and where the last one ends; in pieces that fit a processor's cache."""
    data = np.frombuffer(block, dtype=np.uint8)
    ends = [
        np.flatnonzero(data[start : start + _CACHE] == ord("\n")) + (start + 1) for start in range(0, len(data), _CACHE)
    ]
    return np.unique(np.concatenate([[0], *ends, [len(data)]]))


def _lines(block: bytes, bounds: np.ndarray) -> pl.Series:
    """The texts between the bounds as a column, nothing copied; null where one is no UTF-8."""
    buffers = [None, pa.py_buffer(bounds), pa.py_buffer(block)]
    lines = pl.from_arrow(pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(bounds) - 1, buffers))
    assert isinstance(lines, pl.Series)
    try:
        return lines.cast(pl.String)
    except pl.exceptions.ComputeError:  # one bad line fails the cast of all, also where it is not strict
        return pl.Series([_decoded(line) for line in lines], dtype=pl.String)


def _decoded(line: bytes) -> str | None:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _cut(block: bytes, bounds: np.ndarray, keep: np.ndarray) -> bytes:
    """The bytes of the lines to keep, run by run."""
    edges = np.flatnonzero(np.diff(keep, prepend=False, append=False))
    view = memoryview(block)
    return b"".join(view[bounds[start] : bounds[end]] for start, end in zip(edges[::2], edges[1::2], strict=True))


def _rows(block: bytes, layout: _Layout, count: int) -> pl.DataFrame:
    """Prompt, chosen and rejected of each line, and whether it is `plain`; none is where polars reads other lines."""
    schema = dict.fromkeys(layout.columns, pl.String)
    try:
        frame = pl.read_ndjson(block, schema=schema) if count else pl.DataFrame(schema=schema)
    except pl.exceptions.PolarsError:
        frame = pl.DataFrame(schema=schema)
    if frame.height != count or not count:
        return pl.DataFrame({name: [None] * count for name in TEXTS}, schema=TEXTS).with_columns(plain=False)
    rows = layout.rows(frame).with_columns(pl.col("chosen", "rejected").str.strip_chars())
    texts = pl.col("prompt", "chosen", "rejected")
    whole = pl.all_horizontal(texts.is_not_null() & texts.str.len_bytes().is_between(1, MAX_CHARACTERS))
    return rows.with_columns(plain=(pl.col("plain") & whole & pl.col("chosen").ne(pl.col("rejected"))).fill_null(False))


def _preference_rows(frame: pl.DataFrame) -> pl.DataFrame:
    prompt = pl.col("prompt").str.strip_chars()
    return frame.with_columns(prompt=pl.lit(f"{_HUMAN} ") + prompt, plain=prompt.ne(""))


def _hh_rows(frame: pl.DataFrame) -> pl.DataFrame:
    """Both dialogues, cut behind the last assistant marker of chosen; rejected must have the same text up to there."""
    parts = frame["chosen"].fill_null("").str.split(_ASSISTANT)
    rows = frame.with_columns(answer=parts.list.last(), takes_turns=_takes_turns(parts))
    rows = rows.with_columns(head=pl.col("chosen").str.strip_suffix(pl.col("answer")))
    rows = rows.select(
        prompt=pl.col("head").str.strip_suffix(_ASSISTANT),
        chosen="answer",
        rejected=pl.col("rejected").str.strip_prefix(pl.col("head")),
        plain=pl.col("takes_turns") & pl.col("rejected").str.starts_with(pl.col("head")),
    )
    marked = (pl.col("rejected").str.contains(marker, literal=True) for marker in (_HUMAN, _ASSISTANT))
    return rows.with_columns(pl.col("plain") & ~pl.any_horizontal(marked))


def _takes_turns(parts: pl.Series) -> pl.Series:
    """Whether dialogues, cut at assistant markers, are human and assistant in turn, each turn one blank and then words.

    In each part but the last a human marker stands between two turns, the first of which is empty at the start of all.
    """
    turns = parts.explode().str.split(_HUMAN)
    cuts, found = (column.list.len().cast(pl.Int64).to_numpy() for column in (parts, turns))
    last = np.cumsum(cuts) - 1
    start = last + 1 - cuts
    expected = np.full(len(found), 2)
    expected[last] = 1
    opening = np.cumsum(found) - found  # the first turn of each part
    words = turns.explode()
    size = words.str.len_bytes()
    tidy = words.str.starts_with(" ") & (size > 1) & (words.str.strip_chars().str.len_bytes() + 1 == size)
    good = tidy.to_numpy().copy()
    good[opening[start]] = (size.gather(opening[start]) == 0).to_numpy()
    good[opening[last]] = True  # an answer may have outer blanks
    well = (found == expected) & np.logical_and.reduceat(good, opening)
    return pl.Series(np.logical_and.reduceat(well, start) & (cuts > 1))


_LAYOUTS = {
    "hh": _Layout(("chosen", "rejected"), _hh_rows),
    "preference": _Layout(("prompt", "chosen", "rejected"), _preference_rows),
}
