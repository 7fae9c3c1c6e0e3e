"""What the page says of the rows and of what was left out: lengths, counts, places in the logs, texts to read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from rpo_data.dataset import ContrastDataset
from rpo_data.errors import DatasetError

CONTRADICTIONS = ("conflict", "cycle", "near_conflict", "outvoted", "no_majority", "not_unanimous")
"""Codes of rows that speak against others."""
SHOWN = 12
"""Values of a column, and contradictions, that are shown."""
PLACES = 10
"""Places in the logs that are named for each reason, at most."""


def characters(rows: pa.Table, side: str) -> np.ndarray:
    """Characters of all messages of one side (prompt, chosen, rejected, completion), shape (rows,), int64."""
    counts = [np.empty(0, dtype=np.int64)]
    for batch in rows.select([side]).to_batches():
        messages = batch.column(0)
        lengths = pc.fill_null(pc.utf8_length(messages.flatten().field("content")), 0).to_numpy(zero_copy_only=False)
        ends = np.cumsum(pc.fill_null(pc.list_value_length(messages), 0).to_numpy(zero_copy_only=False))
        total = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        counts.append(total[ends] - total[np.concatenate([[0], ends[:-1]]).astype(np.int64)])
    return np.concatenate(counts)


def side_lengths(data: ContrastDataset, wins: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Characters of the train responses at these rows in the chosen and in the rejected role."""
    rows = data.rows["train"].data.table
    if data.paired:
        return characters(rows, "chosen")[wins], characters(rows, "rejected")[losses]
    lengths = characters(rows, "completion")
    return lengths[wins], lengths[losses]


def value_counts(data: ContrastDataset, column: str) -> list[dict[str, Any]]:
    """The most common values of a column over all splits, with the number of rows of each; null is `not told`.

    Returns:
        `value` and `rows`, most common first, of which the last may be the others together. Empty where all are null.
    """
    values = pl.concat([pl.Series(data.rows[split].data.table[column]) for split in data.splits])
    if values.null_count() == len(values):
        return []
    counted = pl.DataFrame({"value": values.fill_null("not told")}).group_by("value").len("rows")
    ranked = counted.sort(["rows", "value"], descending=[True, False]).to_dicts()
    others = ranked[SHOWN:]
    if len(others) > 1:
        named = f"{len(others):,} others"
        return [*ranked[:SHOWN], {"value": named, "rows": sum(row["rows"] for row in others)}]
    return ranked


def flag_counts(data: ContrastDataset) -> list[dict[str, Any]]:
    """Of each `flag`: how many `rows` of all splits carry it, and the first `places` in the logs as file:line."""
    tables = [data.rows[split].data.table.select(["flags", "source", "source_row"]) for split in data.splits]
    flagged = pl.concat([pl.DataFrame(pl.from_arrow(table)) for table in tables]).rename({"flags": "flag"})
    flagged = (
        flagged.filter(pl.col("flag").list.len() > 0)
        .explode("flag")
        .drop_nulls("flag")
        .sort("flag", "source", "source_row")
    )
    place = pl.format("{}:{}", "source", "source_row")
    return flagged.group_by("flag", maintain_order=True).agg(rows=pl.len(), places=place.head(PLACES)).to_dicts()


def left_out_places(rejects: Path | None) -> dict[str, dict[str, Any]]:
    """Where in the logs each code stands: `files`, how many, the first `places` as file:line, and what is said of the `first`.

    Empty without the file.

    Raises:
        DatasetError: it is damaged.
    """
    if rejects is None or not rejects.is_file():
        return {}
    grouped = (
        pl.scan_parquet(rejects)
        .group_by("code", maintain_order=True)
        .agg(
            files=pl.col("file").n_unique(),
            file=pl.col("file").head(PLACES),
            line=pl.col("line").head(PLACES),
            first=pl.col("message").first(),
        )
    )
    return {
        row["code"]: {
            "files": row["files"],
            "first": row["first"],
            "places": [f"{file}:{line}" if line else file for file, line in zip(row["file"], row["line"], strict=True)],
        }
        for row in _collected(grouped, rejects).iter_rows(named=True)
    }


def contradictions(rejects: Path | None) -> list[str]:
    """What the rejects say of the first rows that speak against others: where both stand, and what to do."""
    if rejects is None or not rejects.is_file():
        return []
    told = pl.scan_parquet(rejects).filter(pl.col("code").is_in(CONTRADICTIONS)).select("message")
    return _collected(told.head(SHOWN), rejects)["message"].to_list()


def _collected(asked: pl.LazyFrame, rejects: Path) -> pl.DataFrame:
    try:
        return asked.collect()
    except pl.exceptions.PolarsError as error:
        raise DatasetError(f"{rejects} cannot be read ({error}): build the dataset again") from error


def excerpt(messages: Sequence[Mapping[str, Any]], limit: int) -> str:
    """The last message's text, cut to so many characters.

    >>> excerpt([{"role": "user", "content": "one two three"}], 8)
    'one two…'
    """
    text = (messages[-1]["content"] if messages else None) or "(tool call)"
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def one_line(messages: Sequence[Mapping[str, Any]], limit: int) -> str:
    """The same, with line breaks and runs of blanks as one blank."""
    return excerpt([{"content": " ".join(excerpt(messages, 4 * limit).split())}], limit)


def opening(messages: Sequence[Mapping[str, Any]], limit: int) -> str:
    """The first user turn on one line, cut to so many characters; empty where it is the last message, too.

    >>> opening([{"role": "user", "content": "Hi"}, {"role": "user", "content": "you"}], 9)
    'Hi'
    """
    first = next((place for place, message in enumerate(messages[:-1]) if message["role"] == "user"), None)
    return "" if first is None else one_line(messages[first : first + 1], limit)


def dialogue(messages: Sequence[Mapping[str, Any]], limit: int) -> str:
    r"""All messages, each with its role, cut at the front to so many characters.

    >>> dialogue([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": None}], 100)
    'user: Hi\n\nassistant: (tool call)'
    """
    text = "\n\n".join(f"{message['role']}: {message['content'] or '(tool call)'}" for message in messages)
    return text if len(text) <= limit else "…" + text[1 - limit :].lstrip()
