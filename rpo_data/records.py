"""What a reader gives: records, and faults where something cannot be read."""

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from rpo_data.remote import shown

MAX_RECORD_BYTES = 64 * 2**20
"""A longer line or JSON value is taken for something else than a record."""


@dataclass(frozen=True, slots=True)
class Record:
    """One raw log record: `line` counts from 1: lines of JSON lines and CSV, records of all else."""

    line: int
    data: Any
    text: str | None = None

    def raw(self) -> str:
        """The record as text: as it stood in the file, or as JSON where the file was no text."""
        if self.text is not None:
            return self.text
        return json.dumps(self.data, ensure_ascii=True, default=str)


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that could not be read, or not be used: a code of `schemas/rules.py` and the whole sentence."""

    line: int
    code: str
    message: str
    raw: str


def guarded(name: str, items: Iterator[Record | Fault]) -> Iterator[Record | Fault]:
    """Turn the error of a torn or damaged file into a last fault; what was read before it counts."""
    line = 0
    try:
        for item in items:
            line = item.line
            yield item
    except (EOFError, zlib.error, OSError, pa.ArrowException) as error:
        if isinstance(error, EOFError) or "runcated" in str(error):
            message = f"{name}:{line + 1}: the compressed file ends too early: copy it again"
            yield Fault(line + 1, "truncated_file", message, "")
        else:
            yield corrupt(name, line + 1, error)


def corrupt(name: str, line: int, error: Exception) -> Fault:
    """The fault of a file that cannot be read any further; no path of this machine and no secret of a URL is in it."""
    text = error.strerror if isinstance(error, OSError) and error.filename else str(error)
    first_line = shown((text or "").strip().split("\n", 1)[0]) or type(error).__name__
    return Fault(
        line, "corrupt_file", f"{name}:{line}: cannot be read from here on ({first_line}): export it again", ""
    )
