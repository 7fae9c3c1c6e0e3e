"""What `lint` keeps of the logs: every row as a few numbers, every fault as a count with its first examples.

Two lanes give the same: plain records of JSON-lines files are measured column by column (rpo_data/scan.py), all others are
read, shaped and checked one by one as a build does it.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa

from rpo_data import pairs
from rpo_data.check import sides
from rpo_data.measures import measure
from rpo_data.pairs import Reading, RecordCounts
from rpo_data.read import Fault, Record, read_records
from rpo_data.row_table import Kept
from rpo_data.scan import TEXTS, plain_shape, prompt_text, response_text, scan
from rpo_data.schemas.findings import Example
from rpo_data.shapes.base import kind
from rpo_data.sources import Source

if TYPE_CHECKING:
    from rpo_data.contamination import Ngrams

BATCH_RECORDS = 5000
SHOWN = 160
"""Characters of an example."""

_HEAD = 1000
_MORE = {
    "annotator": pl.String, "score": pl.Float64, "rank": pl.Int64, "language": pl.String, "first_wins": pl.Boolean,
}  # fmt: skip
_ROW_TEXTS = pl.Schema({**TEXTS, "label": pl.Boolean, **_MORE})
_PLAIN_COLUMNS = {"hh": ("chosen", "rejected"), "preference": ("prompt", "chosen", "rejected")}

A_OR_B = frozenset(
    {"arena", "helpsteer_preference", "llmbar", "pandalm", "safe_rlhf", "shp", "summarize", "summarize_axis",
     "tulu_human_eval", "webgpt"}
)  # fmt: skip
"""Shapes whose two responses have a place of their own in the log: A before B, 0 before 1."""


@dataclass(frozen=True)
class Looking:
    """What is looked for in the texts while they pass.

    Attributes:
        examples: kept of each rule.
        language: detect the language of each row's last question.
        personal: look for personal data.
        texts: keep the texts of the rows (for near-duplicates).
        prompts: keep the prompts as this `embed_text` renders them; None: do not.
        evaluation: runs of words of evaluation sets.
        truncation: tokenizer and number of tokens.
    """

    examples: int = 3
    language: bool = True
    personal: bool = True
    texts: bool = False
    prompts: str | None = None
    evaluation: "Ngrams | None" = None
    truncation: tuple[Any, int] | None = None


@dataclass
class Tally:
    """How often a rule is broken, by kind where it has kinds, with the first examples."""

    count: int = 0
    details: Counter[str] = field(default_factory=Counter)
    examples: list[Example] = field(default_factory=list)


@dataclass
class Gathered:
    """What is left of the logs.

    Attributes:
        sources: names of the files, in order.
        rows: what `measure` gives, sorted by source and line; `source` is a number; more columns as in `_MORE`; `at` is the
            row's place in `snippets`, `texts` and `prompts`.
        snippets: the start of each row.
        tallies: code -> what was found record by record.
        counts: of records, for each source.
        first_lines: for each source (column, JSON type) -> the first line that has it.
        texts: prompt, chosen and rejected, where kept.
        prompts: rendered, where kept.
    """

    sources: list[str]
    rows: pl.DataFrame
    snippets: pa.ChunkedArray
    tallies: dict[str, Tally]
    counts: list[RecordCounts]
    first_lines: list[dict[tuple[str, str], int]]
    texts: pl.DataFrame
    prompts: list[str]

    def example(self, position: int, message: str = "") -> Example:
        """The row at a position as an example."""
        row = self.rows.row(position, named=True)
        text = self.snippets[row["at"]].as_py()
        return Example(file=self.sources[row["source"]], line=row["line"], message=message, text=shortened(text))


def gather(
    sources: Sequence[Source],
    reading: Reading,
    looking: Looking,
    *,
    limit: int | None = None,
    exact: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Gathered:
    """Read all sources, in this order.

    Args:
        sources: where the records are.
        reading: how to read them.
        looking: what to look for.
        limit: read this many records at most, over all sources.
        exact: leave the fast lane aside; changes nothing but the time.
        progress: called with (records read, 0).

    Raises:
        LogError: two shapes claim a source; a file or Hub dataset cannot be opened.
        RecipeError: there is no shape of that name.
    """
    run = _Run(looking)
    exact = exact or limit is not None or bool(looking.prompts or looking.truncation or reading.columns)
    for number, source in enumerate(sources):
        count = RecordCounts(source.name)
        run.counts.append(count)
        run.first_lines.append({})
        for items, texts in _batches(source, reading, exact, limit):
            _take_plain(run, number, source, texts, reading)
            for kept, faults in _judged(source, items, reading, count, run.first_lines[-1], default_shape(source, reading)):
                run.faults(source, faults)
                run.rows(number, source, _texts_of(kept, looking), kept)
            progress(sum(c.read for c in run.counts), 0)
        limit = None if limit is None else limit - count.read
    return run.gathered([source.name for source in sources])
