"""Records of JSON lines, of one JSON array, or of objects written one after the other."""

import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from rpo_data.records import MAX_RECORD_BYTES, Fault, Record, guarded
from rpo_data.sources import Source, inner_suffix
from rpo_data.streams import open_text


def read_json(source: Source) -> Iterator[Record | Fault]:
    """Records of a JSON file, of whichever of these it is.

    Raises:
        LogError: the file cannot be opened.
    """
    with open_text(source.path) as stream:
        yield from guarded(source.name, _items(source, stream))


def _items(source: Source, stream: Any) -> Iterator[Record | Fault]:
    start = stream.peek(1 << 14).lstrip(b"\xef\xbb\xbf \t\r\n")
    # a first line that is a whole object means JSON lines, whatever the ending says
    lines = not start.startswith(b"[") and (
        inner_suffix(source.path) != ".json" or re.match(rb"\{[^\n]*\}[ \t\r]*(\n|$)", start) is not None
    )
    yield from _lines(source, stream) if lines else _values(source, stream)


def _lines(source: Source, stream: BinaryIO) -> Iterator[Record | Fault]:
    number = 0
    while line := stream.readline(MAX_RECORD_BYTES):
        number += 1
        if len(line) >= MAX_RECORD_BYTES and not line.endswith(b"\n"):
            while (rest := stream.readline(MAX_RECORD_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield too_long(source, number, line)
            continue
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line.strip():
            yield json_record(source, number, line.rstrip(b"\r\n"))


_STRUCTURE = re.compile(rb'"(?:[^"\\\n]|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
_SCALAR = re.compile(rb'"(?:[^"\\\n]|\\.)*"?|[^,\s]+')
_OPENED_BY = {b"}": b"{", b"]": b"["}


def _values(source: Source, stream: BinaryIO) -> Iterator[Record | Fault]:
    """Objects of one JSON array, or written one after the other over several lines; records are counted from 1.

    A broken record costs only itself where its last brace is there; else everything up to the end is one fault.
    """
    for number, text in enumerate(_pieces(stream), start=1):
        if len(text) > MAX_RECORD_BYTES:
            yield too_long(source, number, text)
        else:
            yield json_record(source, number, text)


def _pieces(stream: BinaryIO) -> Iterator[bytes]:
    """The text of each value, cut where its brackets close; whatever stands between two of them, too."""
    buffer, position, piece = b"", 0, 0  # piece: where the value (or the gap between two values) begins
    opened: list[bytes] = []
    first = True
    while chunk := stream.read(1 << 20):
        buffer = buffer[piece:] + chunk
        position, piece = position - piece, 0
        for token in _STRUCTURE.finditer(buffer, position):
            text = token.group()
            if text[:1] == b'"' and token.end() == len(buffer):
                break  # perhaps half a string: look again with the next chunk behind it
            position = token.end()
            if text in (b"[", b"{"):
                if not opened:
                    yield from _scalars(buffer[piece : token.start()])
                    piece = token.start()
                if first and text == b"[":
                    first, piece = False, position  # the array of records itself
                    continue
                first = False
                opened.append(text)
            elif text in _OPENED_BY:
                if not opened:
                    yield from _scalars(buffer[piece : token.start()])
                    piece = position
                    continue
                # a bracket that closes an outer one closes what was left open inside; a stray "]" ends a broken record
                while opened and opened.pop() != _OPENED_BY[text]:
                    pass
                if not opened:
                    yield buffer[piece:position]
                    piece = position
        if len(buffer) - piece > MAX_RECORD_BYTES:
            yield buffer[piece:]
            return
    yield from [buffer[piece:]] if opened else _scalars(buffer[piece:])


def _scalars(gap: bytes) -> Iterator[bytes]:
    """What stands where a record should: nothing, or values that are none."""
    return (match.group() for match in _SCALAR.finditer(gap.removeprefix(b"\xef\xbb\xbf")))


MAX_DEPTH = 500
"""Deeper lists and objects are refused: how deep Python could read them depends on who calls."""


def json_record(source: Source, number: int, line: bytes) -> Record | Fault:
    """The record of one line or value, or why it is none."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"{source.name}:{number}: byte {error.start + 1} is not valid UTF-8: export the logs as UTF-8"
        return Fault(number, "invalid_utf8", message, line.decode("utf-8", "backslashreplace"))
    try:
        data = json.loads(text, object_pairs_hook=_once)
        if text.count("[") + text.count("{") > MAX_DEPTH and _is_deep(data):
            raise RecursionError
    except RecursionError:
        message = f"{source.name}:{number}: nested more than {MAX_DEPTH} deep: flatten or drop the record"
        return Fault(number, "broken_json", message, text)
    except _TwiceError as error:
        message = f"{source.name}:{number}: the key '{error}' stands twice in one object: keep one of them"
        return Fault(number, "duplicate_column", message, text)
    except ValueError as error:
        detail = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        return Fault(
            number, "broken_json", f"{source.name}:{number}: not valid JSON ({detail}): mend or drop the line", text
        )
    if not isinstance(data, dict):
        message = f"{source.name}:{number}: a record must be a JSON object, this is {_type_name(data)}: wrap or drop it"
        return Fault(number, "not_an_object", message, text)
    return Record(number, data, text)


class _TwiceError(Exception):
    """An object has a key twice."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _TwiceError(next(key for key in keys if keys.count(key) > 1)[:40])
    return found


def _is_deep(data: Any) -> bool:
    """Whether more than `MAX_DEPTH` lists and objects stand in each other."""
    level = [data]
    for _ in range(MAX_DEPTH):
        level = [part for item in _containers(level) for part in (item.values() if isinstance(item, dict) else item)]
    return bool(_containers(level))


def _containers(values: list[Any]) -> list[Any]:
    return [value for value in values if isinstance(value, (dict, list))]


def too_long(source: Source, number: int, line: bytes) -> Fault:
    """The fault of a line or value that is longer than any record."""
    message = (
        f"{source.name}:{number}: longer than {MAX_RECORD_BYTES // 2**20} MiB without a line end: "
        "write one record a line (JSON lines)"
    )
    return Fault(number, "line_too_long", message, line[:1000].decode("utf-8", "backslashreplace"))


def _type_name(value: Any) -> str:
    names = {
        str: "a text",
        list: "a list",
        bool: "true or false",
        int: "a number",
        float: "a number",
        dict: "an object",
    }
    return names.get(type(value), "null")
