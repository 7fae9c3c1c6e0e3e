"""What `lint` keeps of the logs: every row as a few numbers, every fault as a count with its first examples.

Plain records of JSON-lines files are measured column by column (rpo_data/scan.py), all others are read and checked one by
one as a build does it; both give the same.
"""

from bisect import insort
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from rpo_data.check import sides
from rpo_data.measures import last_question, measure
from rpo_data.pairs import Progress, Reading, RecordCounts, judged_rows
from rpo_data.records import Fault, Record
from rpo_data.row_table import Kept
from rpo_data.scan import TEXTS, plain_shape, prompt_text, response_text, scan
from rpo_data.schemas.findings import Example
from rpo_data.shapes import Response, Row
from rpo_data.sources import Source

if TYPE_CHECKING:
    from rpo_data.contamination import Ngrams

A_OR_B = frozenset(
    {"arena", "helpsteer_preference", "llmbar", "pandalm", "safe_rlhf", "shp", "summarize", "tulu_human_eval", "webgpt"}
)
"""Shapes whose two responses have a place of their own in the record: A before B, 0 before 1."""
SHOWN = 160
"""Characters of an example."""
_RULES_OF_FLAGS = {"markdown": "markdown", "refusal": "refusals", "echo": "prompt_echo"}
_ROWS = pl.Schema(
    {
        **TEXTS,
        "label": pl.Boolean(),
        "annotator": pl.String(),
        "scored": pl.Boolean(),
        "first_wins": pl.Boolean(),
        "disagrees": pl.Boolean(),
    }
)


@dataclass
class Tally:
    """How often a rule is broken, by kind where it has kinds, with the first examples."""

    count: int = 0
    details: Counter[str] = field(default_factory=Counter)
    examples: list[Example] = field(default_factory=list)


@dataclass
class Gathered:
    """What is left of the logs: one measured row for each row that stays, in the order of files and lines.

    `rows` has the columns of `measure`, and `source`, `scored`, `language`, and `snippet`, the start of the prompt.
    """

    rows: pl.DataFrame
    tallies: dict[str, Tally]
    counts: list[RecordCounts]


@dataclass(frozen=True)
class Looking:
    """What is looked for in the texts while they pass: all but the rules that are `off`; `examples` of each are kept."""

    off: frozenset[str] = frozenset()
    evaluation: "Ngrams | None" = None
    examples: int = 3


def gather(
    sources: Sequence[Source],
    reading: Reading,
    looking: Looking,
    *,
    limit: int | None = None,
    exact: bool = False,
    progress: Progress = lambda done, total: None,
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
    parts: list[pl.DataFrame] = [_measured(_empty(), "", looking).rows]
    tallies: dict[str, Tally] = {}
    counts: list[RecordCounts] = []
    for source in sources:
        count = RecordCounts(source.name)
        counts.append(count)
        plain = None if exact or limit is not None or reading.columns else plain_shape(source, reading.shape)
        own: list[pl.DataFrame] = []

        def tell(counts: list[RecordCounts] = counts) -> None:
            progress(sum(c.read for c in counts), 0)

        items = None if plain is None else _suspects(source, plain, reading, looking, count, own, tallies, tell)
        for kept, faults in judged_rows(source, reading, count, limit=limit, items=items):
            texts = _texts(kept)
            measured = _measured(texts, source.name, looking)
            _note_texts(texts, measured, source.name, looking, tallies)
            own.append(measured.rows)
            for fault in faults:
                _note(tallies, looking, fault.code, source.name, fault.line, fault.message, fault.raw)
            tell()
        # plain rows came before the suspects of their batch; `own` is never empty
        parts.append(pl.concat(own).sort("line", maintain_order=True))
        limit = None if limit is None else max(limit - count.read, 0)
    return Gathered(pl.concat(parts), tallies, counts)


def _suspects(
    source: Source,
    shape: str,
    reading: Reading,
    looking: Looking,
    count: RecordCounts,
    parts: list[pl.DataFrame],
    tallies: dict[str, Tally],
    tell: Callable[[], None],
) -> Iterator[Record | Fault]:
    """The records that the fast lane leaves to the exact one; the plain ones are measured on the way."""
    columns = ("chosen", "rejected") if shape == "hh" else ("prompt", "chosen", "rejected")

    def work(texts: pl.DataFrame) -> _Measured:
        return _measured(texts, source.name, looking)

    for batch in scan(source, reading.shape, work=work) or ():
        found = batch.texts.height
        _note_texts(batch.texts, batch.worked, source.name, looking, tallies)
        parts.append(batch.worked.rows.with_columns(batch.texts["line"]))
        count.read, count.used, count.rows = count.read + found, count.used + found, count.rows + found
        if found:
            count.shapes[shape] = count.shapes.get(shape, 0) + found
            for column in columns:
                seen = count.types.setdefault(column, {})
                seen["text"] = seen.get("text", 0) + found
        tell()
        yield from batch.suspects


def _empty() -> pl.DataFrame:
    return pl.DataFrame(schema=_ROWS)


def _texts(kept: list[Kept]) -> pl.DataFrame:
    """Rows of the exact lane in the form of the fast one."""
    rows = []
    for item in kept:
        prompt, chosen, *rejected = sides(item.row)
        rows.append(
            {
                "line": item.record.line,
                "kind": "tie" if getattr(item.row, "tie", False) else "pair" if rejected else "response",
                "prompt": prompt_text(prompt),
                "chosen": response_text(chosen),
                "rejected": response_text(rejected[0]) if rejected else None,
                "label": getattr(item.row, "label", None),
                "annotator": item.row.annotator,
                "first_wins": _first_wins(item) if rejected else None,
                "disagrees": _disagrees(item.row),
                "scored": getattr(item.row, "score", None) is not None or getattr(item.row, "rank", None) is not None,
            }
        )
    return pl.DataFrame(rows, schema=_ROWS)


def _disagrees(row: Row) -> bool:
    """Whether the rejected response of a pair has the higher score."""
    if isinstance(row, Response) or row.tie or row.score_chosen is None or row.score_rejected is None:
        return False
    return row.score_rejected > row.score_chosen


def _first_wins(item: Kept) -> bool | None:
    """Whether the better response stands first in the record; None where a place says nothing (see `A_OR_B`) or in a tie."""
    _, chosen, rejected = sides(item.row)
    if getattr(item.row, "tie", False) or item.shape not in A_OR_B:
        return None
    texts = list(_strings(item.record.data))
    at = [
        next((n for n, text in enumerate(texts) if (s[-1].get("content") or "") in text), -1)
        for s in (chosen, rejected)
    ]
    return None if at[0] == at[1] or min(at) < 0 else at[0] < at[1]


def _strings(value: Any) -> Iterator[str]:
    """All texts of a record, in its order."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part)


class _Measured(NamedTuple):
    """A batch of texts, measured, and what was looked for in them, each None where it was not."""

    rows: pl.DataFrame
    personal: pl.DataFrame | None
    overlap: pl.DataFrame | None


def _measured(texts: pl.DataFrame, source: str, looking: Looking) -> _Measured:
    """Measure a batch, and look for what is looked for in its texts."""
    missing = {name: kind for name, kind in _ROWS.items() if name not in texts.columns}
    texts = texts.with_columns(pl.lit(None, dtype=kind).alias(name) for name, kind in missing.items())
    personal = overlap = None
    if "personal_data" not in looking.off and texts.height:
        from rpo_data.personal import find_personal

        counts = (find_personal(texts[side].fill_null("")) > 0 for side in ("prompt", "chosen", "rejected"))
        personal = sum(counts).select(pl.all() > 0)  # type: ignore[union-attr]
    if looking.evaluation is not None and texts.height:
        from rpo_data.contamination import ngram_overlap

        overlap = ngram_overlap(texts["prompt"], looking.evaluation)
    language = pl.lit(None, dtype=pl.String)
    if "mixed_languages" not in looking.off and texts.height:
        from rpo_data.language import languages

        language = pl.lit(languages(last_question(texts["prompt"]).fill_null("")).cast(pl.String))
    flags = [flag for flag, code in _RULES_OF_FLAGS.items() if code not in looking.off]
    rows = measure(texts, flags).with_columns(
        texts["scored"].fill_null(False),
        texts["first_wins"],
        texts["disagrees"].fill_null(False),
        # joined to nothing, so that it is a copy: a slice would keep the whole prompts in memory
        (texts["prompt"].str.strip_chars().str.slice(0, SHOWN) + "").alias("snippet"),
        source=pl.lit(source),
        language=language,
    )
    return _Measured(rows, personal, overlap)


def _note_texts(
    texts: pl.DataFrame, measured: _Measured, source: str, looking: Looking, tallies: dict[str, Tally]
) -> None:
    """Count what was found in the texts of a batch."""
    if (personal := measured.personal) is not None:
        tally = tallies.setdefault("personal_data", Tally())
        tally.details.update({name: int(personal[name].sum()) for name in personal.columns if personal[name].any()})
        for place in personal.select(pl.any_horizontal(pl.all())).to_series().arg_true():
            message = f"holds {', '.join(name for name in personal.columns if personal[name][place])}"
            _note(tallies, looking, "personal_data", source, texts["line"][place], message, texts["prompt"][place])
    if (overlap := measured.overlap) is not None:
        for place in (overlap["evaluation"].fill_null(-1) >= 0).arg_true():
            share, number = overlap["share"][place], overlap["evaluation"][place]
            message = f"shares {share:.0%} of the word runs of evaluation text {number + 1}"
            _note(tallies, looking, "contamination", source, texts["line"][place], message, texts["prompt"][place])


def _note(
    tallies: dict[str, Tally], looking: Looking, code: str, file: str, line: int, message: str, text: str
) -> None:
    """Count one; the examples are the first ones by file and line, in whatever order the lines of a file come."""
    tally = tallies.setdefault(code, Tally())
    tally.count += 1
    shown = tally.examples
    if len(shown) >= looking.examples and not (shown and shown[-1].file == file and line < shown[-1].line):
        return
    example = Example(file=file, line=line, message=printable(message), text=printable(text[:SHOWN]))
    start = next((place for place, one in enumerate(shown) if one.file == file), len(shown))
    insort(shown, example, lo=start, key=lambda one: one.line)
    del shown[looking.examples :]


def printable(text: str) -> str:
    """A text that a terminal and a JSON file can hold: control characters and halves of surrogate pairs are escaped."""
    whole = text.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in whole)
