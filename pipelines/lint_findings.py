"""From what `gather` kept of the logs to findings: faults that were counted, rows that repeat or contradict, bias."""

from collections.abc import Collection
from typing import Any

import polars as pl

from rpo_data import bias
from rpo_data.conflicts import find_conflicts, find_cycles
from rpo_data.gather import Gathered, Tally, printable
from rpo_data.measures import exact_duplicates
from rpo_data.schemas.findings import Bias, Example, Finding, GroupBias, SideBias
from rpo_data.schemas.rules import RULES, Severity

MAJOR_SHARE = 0.05
"""A MINOR rule about records or rows becomes MAJOR where this share of them breaks it."""
MIXED_SHARE = 0.02
"""From this share of the second language on, languages are mixed."""
_MINOR_AT_ANY_SHARE = {
    "duplicate", "near_duplicate", "semantic_duplicate", "tie", "text_both_sides", "personal_data", "mixed_languages",
    "no_pair", "not_paired",
}  # fmt: skip
_FLAGS = {"refusals": "refusal", "markdown": "markdown", "prompt_echo": "echo"}


def finding(
    code: str,
    count: int,
    of: int | None,
    unit: Any,
    tally: Tally,
    message: str = "",
    severity: Severity | None = None,
) -> Finding:
    """One finding; `of` is what its share is a share of."""
    rule = RULES[code]
    share = count / of if of else None
    grave = share is not None and share >= MAJOR_SHARE and code not in _MINOR_AT_ANY_SHARE
    details = dict(sorted(tally.details.items()))
    kinds = f" ({', '.join(f'{kind} {number:,}' for kind, number in details.items())})" if details else ""
    return Finding(
        code=code,
        severity=severity or ("MAJOR" if grave else rule.severity),
        count=count,
        unit=unit,
        share=share,
        message=(message or rule.reason) + kinds,
        advice=rule.reason,
        details=details,
        examples=tuple(tally.examples),
    )


def of_records(found: Gathered, examples: int) -> list[Finding]:
    """Faults of records and rows, personal data and overlaps, as they were counted on the way; and columns of two types."""
    records = sum(count.read for count in found.counts)
    told = [
        finding(code, tally.count, records, "record", tally) for code, tally in found.tallies.items() if tally.count
    ]
    return told + _type_changes(found, examples)


def _type_changes(found: Gathered, examples: int) -> list[Finding]:
    tally = Tally()
    for count in found.counts:
        for column, types in sorted(count.types.items()):
            kinds = {kind: number for kind, number in types.items() if kind != "null"}
            if len(kinds) > 1:
                told = ", ".join(f"{kind} {number:,}" for kind, number in sorted(kinds.items()))
                tally.count += 1
                text = printable(f"column '{column}' holds {told}")
                if len(tally.examples) < examples:
                    tally.examples.append(Example(file=count.name, line=0, message=text, text=text))
    return [finding("type_changes", tally.count, None, "column", tally)] if tally.count else []


# -- several rows -------------------------------------------------------------------------------------------------------


def of_rows(rows: pl.DataFrame, examples: int, off: Collection[str] = ()) -> list[Finding]:
    """What only several rows together show.

    Args:
        rows: `Gathered.rows`.
        examples: kept of each finding.
        off: codes that are not looked for.
    """
    looks = {
        "duplicate": _duplicates,
        "tie": _ties,
        "conflict": _conflicts,
        "cycle": _cycles,
        "text_both_sides": _both_sides,
        "scores_disagree": _scores,
        "mixed_languages": _languages,
    }
    told = (look(rows, examples) for code, look in looks.items() if code not in off)
    return [one for one in told if one is not None]


def _example(rows: pl.DataFrame, place: int, message: str) -> Example:
    row = rows.row(place, named=True)
    return Example(file=row["source"], line=row["line"], message=message, text=printable(row["snippet"] or ""))


def _first(rows: pl.DataFrame, where: pl.Expr, message: str, examples: int) -> list[Example]:
    """The first rows of which an expression is true."""
    shown = rows.lazy().filter(where).head(examples).collect()
    return [_example(shown, place, message) for place in range(shown.height)]


def _place(rows: pl.DataFrame, place: int) -> str:
    return f"{rows['source'][place]}:{rows['line'][place]}"


def _duplicates(rows: pl.DataFrame, examples: int) -> Finding | None:
    repeated = exact_duplicates(rows)
    if not repeated.height:
        return None
    places = repeated.head(examples).rows()
    shown = [_example(rows, place, f"the same row as {_place(rows, first)}") for place, first in places]
    return finding("duplicate", repeated.height, rows.height, "row", Tally(examples=shown))


def _ties(rows: pl.DataFrame, examples: int) -> Finding | None:
    tie = pl.col("kind") == "tie"
    count = rows.select(tie.sum()).item()
    shown = _first(rows, tie, RULES["tie"].reason, examples)
    return finding("tie", count, rows.height, "row", Tally(examples=shown)) if count else None


def _conflicts(rows: pl.DataFrame, examples: int) -> Finding | None:
    return _contradiction("conflict", find_conflicts(_identities(rows)), examples)


def _cycles(rows: pl.DataFrame, examples: int) -> Finding | None:
    return _contradiction("cycle", find_cycles(_identities(rows)), examples)


def _contradiction(code: str, items: pl.DataFrame, examples: int) -> Finding | None:
    if not items.height:
        return None
    shown = [of_sentence(sentence) for sentence in items["example"].head(examples)]
    message = f"{items.height:,} items, {int(items['rows'].sum()):,} rows: {RULES[code].reason}"
    return finding(code, items.height, None, "item", Tally(examples=shown), message)


def of_sentence(sentence: str) -> Example:
    """An example out of a sentence that begins with its place."""
    file, line = [*sentence.split(" ", 1)[0].rstrip(":").rsplit(":", 1), "0"][:2]
    return Example(file=file, line=int(line) if line.isdigit() else 0, message=sentence, text=printable(sentence))


def _identities(rows: pl.DataFrame) -> pl.DataFrame:
    """Pairs and ties of prompts that come more than once, in the form in which contradictions are looked for."""
    judged = rows.with_row_index("position").filter(pl.col("kind") != "response")
    judged = judged.filter(pl.col("prompt_hash").is_duplicated())
    names = {f"{side}_id": pl.col(f"{side}_hash").cast(pl.String) for side in ("prompt", "chosen", "rejected")}
    frame = judged.select(
        "position", "annotator", "language", "source", pl.col("kind").cast(pl.String), source_row="line", **names
    )
    key = ["prompt_id", "chosen_id", "rejected_id", "annotator", "source", "source_row"]
    return frame.with_columns(
        pair_id=pl.concat_str("prompt_id", "chosen_id", "rejected_id"),
        score_chosen=pl.lit(None, pl.Float64),
        score_rejected=pl.lit(None, pl.Float64),
    ).sort(key)


def _both_sides(rows: pl.DataFrame, examples: int) -> Finding | None:
    """Responses that are chosen in one row and rejected in another."""
    pairs = rows.lazy().with_row_index("position").filter(pl.col("kind") == "pair")
    sides = [
        pairs.group_by(text=f"{side}_hash").agg(pl.col("position").min().alias(side)) for side in ("chosen", "rejected")
    ]
    both = sides[0].join(sides[1], on="text").sort("chosen", "rejected").collect()
    shown = [
        _example(rows, chosen, f"the response chosen here is rejected in {_place(rows, rejected)}")
        for chosen, rejected in both.head(examples).select("chosen", "rejected").rows()
    ]
    return finding("text_both_sides", both.height, None, "text", Tally(examples=shown)) if both.height else None


def _scores(rows: pl.DataFrame, examples: int) -> Finding | None:
    count = int(rows["disagrees"].sum())
    shown = _first(rows, pl.col("disagrees"), RULES["scores_disagree"].reason, examples)
    return finding("scores_disagree", count, rows.height, "row", Tally(examples=shown)) if count else None


def _languages(rows: pl.DataFrame, examples: int) -> Finding | None:
    languages = rows["language"].drop_nulls().value_counts().sort("count", "language", descending=[True, False])
    second = languages["count"][1] if languages.height > 1 else 0
    if not second or second < MIXED_SHARE * int(languages["count"].sum()):
        return None
    main = languages["language"][0]
    shown = _first(rows, pl.col("language") != main, f"not in {main}, as most are", examples)
    tally = Tally(examples=shown)
    tally.details.update(dict(languages.head(5).rows()))  # type: ignore[arg-type]
    others = int(languages["count"].sum() - languages["count"][0])
    return finding("mixed_languages", others, rows.height, "row", tally)


# -- bias ---------------------------------------------------------------------------------------------------------------


def bias_figures(rows: pl.DataFrame) -> Bias:
    """The figures of bias; null where the rows hold nothing to count, or it was not looked for."""
    pairs = rows.filter(pl.col("kind") == "pair")
    labelled = rows.filter(pl.col("label").is_not_null())
    placed = pairs["first_wins"].drop_nulls()
    groups = []
    for by, column in (("file", "source"), ("annotator", "annotator")):
        each = bias.length_sums(pairs, column)
        counts = each.select(
            group=pl.col(column), count="longer_wins", of=pl.col("longer_wins") + pl.col("shorter_wins")
        )
        groups += bias.group_bias(counts, by, "longer_wins")  # type: ignore[arg-type]
    of, sides = (bias.paired_sides, pairs) if pairs.height else (bias.labelled_sides, labelled)
    flags = {code: of(sides, flag) for code, flag in _FLAGS.items() if f"chosen_{flag}" in rows.columns}
    return Bias(
        length=bias.length_bias(bias.length_sums(pairs).row(0, named=True)) if pairs.height else None,
        **flags,
        liked=bias.rate(int(labelled["label"].sum()), labelled.height) if labelled.height else None,
        first_wins=bias.rate(int(placed.sum()), len(placed)) if len(placed) else None,
        groups=tuple(groups),
    )


def of_bias(figures: Bias, rows: pl.DataFrame, examples: int) -> list[Finding]:
    """The figures of bias that are worth a word; the examples are the first rows that show it."""
    flags = [(code, figure) for code in _FLAGS if (figure := getattr(figures, code))]
    told = [
        _length(figures, rows, examples),
        *(_side(code, figure, rows, examples) for code, figure in flags),
        _liked(figures, rows, examples),
        _first_place(figures, rows, examples),
        *(_group(group, rows, examples) for group in figures.groups),
    ]
    return [one for one in told if one is not None]


_PAIR = pl.col("kind") == "pair"
_LONGER = pl.col("chosen_characters") > pl.col("rejected_characters")
_SHORTER = pl.col("chosen_characters") < pl.col("rejected_characters")


def _length(figures: Bias, rows: pl.DataFrame, examples: int) -> Finding | None:
    length = figures.length
    severity = bias.length_severity(length)
    if length is None or severity is None:
        return None
    d = "no spread" if length.cohens_d is None else f"d = {length.cohens_d:.2f}"
    wins = "" if length.win_rate is None else f", the longer one wins {length.win_rate:.1%} of the time"
    means = f"chosen has {length.chosen_mean:,.0f} characters, rejected {length.rejected_mean:,.0f}"
    longer = length.gap > 0
    shown = _first(
        rows, _PAIR & (_LONGER if longer else _SHORTER), f"the {'longer' if longer else 'shorter'} one wins", examples
    )
    message = f"{means} ({d}, gap {length.gap:+.0%}){wins}"
    return finding("length_bias", length.pairs, None, "row", Tally(examples=shown), message, severity)


def _side(code: str, figure: SideBias, rows: pl.DataFrame, examples: int) -> Finding | None:
    severity = bias.side_severity(figure, rows.height)
    if severity is None:
        return None
    chosen, rejected = (pl.col(f"{side}_{_FLAGS[code]}") for side in ("chosen", "rejected"))
    better = figure.difference > 0
    # a labelled response stands in `chosen`, liked or not
    pairs = (chosen & ~rejected) if better else (rejected & ~chosen)
    labelled = chosen & (pl.col("label") == better)
    where = pl.when(_PAIR).then(pairs).otherwise(labelled)
    shown = _first(rows, where, f"only the {'better' if better else 'worse'} side has it", examples)
    shares = f"{figure.better_share:.1%} of the better and {figure.worse_share:.1%} of the worse responses"
    message = f"{shares}: {RULES[code].reason}"
    return finding(code, figure.better + figure.worse, None, "row", Tally(examples=shown), message, severity)


def _liked(figures: Bias, rows: pl.DataFrame, examples: int) -> Finding | None:
    liked = figures.liked
    severity = bias.label_severity(liked)
    if liked is None or severity is None:
        return None
    rare = liked.share < 0.5
    shown = _first(rows, pl.col("label") == rare, f"one of the few that are {'' if rare else 'not '}liked", examples)
    message = f"{liked.share:.1%} of {liked.of:,} labelled responses are liked"
    return finding("label_imbalance", liked.of, None, "row", Tally(examples=shown), message, severity)


def _first_place(figures: Bias, rows: pl.DataFrame, examples: int) -> Finding | None:
    first = figures.first_wins
    severity = bias.half_severity(first)
    if first is None or severity is None:
        return None
    often = first.share > 0.5
    shown = _first(rows, pl.col("first_wins") == often, f"the {'first' if often else 'second'} one wins", examples)
    message = f"the first response of the record wins {first.share:.1%} of {first.of:,} pairs"
    return finding("position_bias", first.of, None, "row", Tally(examples=shown), message, severity)


def _group(group: GroupBias, rows: pl.DataFrame, examples: int) -> Finding:
    column = "source" if group.by == "file" else "annotator"
    longer = group.here.share > group.elsewhere.share
    where = _PAIR & (pl.col(column) == group.group) & (_LONGER if longer else _SHORTER)
    shown = _first(rows, where, f"the {'longer' if longer else 'shorter'} one wins", examples)
    shares = f"the longer response wins {group.here.share:.0%}, elsewhere {group.elsewhere.share:.0%}"
    message = f"{group.by} {printable(group.group)}: {shares}"
    return finding("source_bias", group.here.of, None, "row", Tally(examples=shown), message)
