"""`lint`: what the logs hold and what is wrong with them, for every record. `build` applies the same rules."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rpo_data import bias
from rpo_data.conflicts import find_conflicts, find_cycles
from rpo_data.contamination import embedding_overlap, index_ngrams
from rpo_data.embed import load_embedder, render_prompt
from rpo_data.gather import Gathered, Looking, Tally, gather, printable
from rpo_data.measures import exact_duplicates
from rpo_data.pairs import Reading
from rpo_data.pipelines.checking import Checked, Track, read_and_check, read_evaluation
from rpo_data.pipelines.prompts import Prompts, embed_and_split
from rpo_data.pipelines.store import cache_folder
from rpo_data.schemas.findings import Bias, Example, FileSummary, Finding, Findings
from rpo_data.schemas.recipe import Recipe
from rpo_data.schemas.rules import RULES, Severity
from rpo_data.sources import find_sources
from rpo_data.vectors import cache_key, embed_texts

MAJOR_SHARE = 0.05
"""A MINOR rule about records or rows becomes MAJOR where this share of them breaks it."""
_MINOR_AT_ANY_SHARE = {
    "duplicate", "near_duplicate", "semantic_duplicate", "tie", "text_both_sides", "personal_data", "mixed_languages",
    "no_pair", "not_paired",
}  # fmt: skip
_DEEP = ("collapsed", "near_duplicate", "near_conflict", "semantic_duplicate")


def lint(
    logs: str | Path | Sequence[str | Path],
    recipe: Recipe | None = None,
    *,
    limit: int | None = None,
    near: bool = False,
    semantic: bool = False,
    personal: bool = True,
    language: bool = True,
    evaluation: Sequence[str | Path] = (),
    off: Sequence[str] = (),
    examples: int = 3,
    exact: bool = False,
    cache_dir: str | Path | None = None,
    track: Track = lambda stage, done, total: None,
) -> Findings:
    """Look at preference logs and say what is wrong with them.

    Args:
        logs: files, globs, folders, URLs, "-" for standard input, or Hub ids.
        recipe: how to read them; its tokenizer and max_length, if set, switch the truncation check on.
        limit: read this many records at most.
        near: look for nearly equal rows (MinHash).
        semantic: embed the prompts, and look for contradictions and duplicates among prompts alike in meaning.
        personal: look for personal data.
        language: detect languages.
        evaluation: files of evaluation sets that the prompts must not overlap with.
        off: codes that are not reported.
        examples: kept of each finding.
        exact: read record by record even where it is not needed; changes nothing but the time.
        cache_dir: of vectors and finished stages.
        track: called as long work proceeds.

    Raises:
        RpoDataError: the logs cannot be read at all, or a setting is wrong.
    """
    recipe, ignored = recipe or Recipe(), list[str]()
    sources = find_sources([logs] if isinstance(logs, (str, Path)) else logs, ignored)
    reading = Reading(shape=recipe.format, columns=recipe.columns, ignore=recipe.ignore)
    held_out = read_evaluation(evaluation)
    looking = Looking(personal, language, index_ngrams(pl.Series(held_out)) if held_out else None, examples)
    found = gather(sources, reading, looking, limit=limit, exact=exact, progress=partial(track, "read"))
    figures = _bias(found.rows)
    findings = [*_tallied(found), *_of_rows(found, examples), *_type_changes(found), *_bias_findings(figures, found)]
    if near or semantic or recipe.tokenizer:
        findings += _deep(logs, recipe, near, semantic, held_out, limit, examples, cache_folder(cache_dir), track)
    order = {code: place for place, code in enumerate(RULES)}
    shown = [finding for finding in findings if finding.code not in off]
    shown.sort(key=lambda finding: (finding.severity != "MAJOR", order[finding.code]))
    verdict = shown[0].severity if shown else "OK"
    return Findings(
        files=tuple(_summary(found, number) for number in range(len(sources))),
        records=sum(count.read for count in found.counts),
        rows=found.rows.height,
        findings=tuple(shown),
        bias=figures,
        verdict=verdict,
        ignored_files=tuple(sorted(ignored)),
        not_checked=_not_checked(near, semantic, recipe, evaluation),
    )


def print_findings(out: Console, report: Findings) -> None:
    """The report as tables for people."""
    for file in report.files:
        held = [
            f"{getattr(file, name):,} {name}" for name in ("pairs", "ties", "labelled", "scored") if getattr(file, name)
        ]
        if file.annotators:
            held.append(f"{file.annotators:,} annotators")
        languages = ", ".join(list(file.languages)[:3])
        shapes, rows = ", ".join(file.shapes) or "no known shape", ", ".join(held) or "no rows"
        line = f"{file.name}: {shapes}; {file.records:,} records, {file.rejected:,} rejected; {rows}"
        out.print(Text(line + (f"; {languages}" if languages else "")))
    if report.findings:
        table = Table("", "rule", "count", "share", "what", box=None, pad_edge=False)
        for finding in report.findings:
            share = "" if finding.share is None else f"{finding.share:.1%}"
            style = "bold red" if finding.severity == "MAJOR" else "yellow"
            table.add_row(
                Text(finding.severity, style), finding.code, f"{finding.count:,}", share, Text(finding.message)
            )
            for example in finding.examples:
                table.add_row("", "", "", "", Text(f"  {example.file}:{example.line} {example.text[:90]}", "dim"))
        out.print(table)
    for what, why in report.not_checked.items():
        out.print(Text(f"not checked: {what} ({why})", "dim"))
    out.print(Text(f"verdict: {report.verdict}", "bold"))


def _finding(
    code: str,
    count: int,
    of: int | None,
    unit: Any,
    tally: Tally,
    message: str = "",
    severity: Severity | None = None,
) -> Finding:
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


def _tallied(found: Gathered) -> list[Finding]:
    """Faults of records and rows, personal data and overlaps, as they were counted on the way."""
    records = sum(count.read for count in found.counts)
    return [
        _finding(code, tally.count, records, "record", tally) for code, tally in found.tallies.items() if tally.count
    ]


def _example(rows: pl.DataFrame, place: int, message: str) -> Example:
    row = rows.row(place, named=True)
    return Example(file=row["source"], line=row["line"], message=message, text=printable(row["snippet"] or ""))


def _of_rows(found: Gathered, examples: int) -> list[Finding]:
    """What only several rows together show."""
    rows, findings = found.rows, []
    repeated = exact_duplicates(rows)
    if repeated.height:
        places = repeated.head(examples).rows()
        shown = [
            _example(rows, place, f"the same row as {rows['source'][first]}:{rows['line'][first]}")
            for place, first in places
        ]
        findings.append(_finding("duplicate", repeated.height, rows.height, "row", Tally(examples=shown)))
    ties = (rows["kind"] == "tie").arg_true()
    if len(ties):
        shown = [_example(rows, place, RULES["tie"].reason) for place in ties[:examples]]
        findings.append(_finding("tie", len(ties), rows.height, "row", Tally(examples=shown)))
    ids = _identities(rows)
    for code, items in (("conflict", find_conflicts(ids)), ("cycle", find_cycles(ids))):
        if items.height:
            shown = [_of_sentence(sentence) for sentence in items["example"].head(examples)]
            affected = int(items["rows"].sum())
            message = f"{items.height:,} items, {affected:,} rows: {RULES[code].reason}"
            findings.append(_finding(code, items.height, None, "item", Tally(examples=shown), message))
    pairs = rows.filter(pl.col("kind") == "pair")
    both = pairs["chosen_hash"].unique().is_in(pairs["rejected_hash"].unique().implode()).sum()
    if both:
        findings.append(_finding("text_both_sides", int(both), None, "text", Tally()))
    languages = rows["language"].drop_nulls().value_counts(sort=True)
    second = languages["count"][1] if languages.height > 1 else 0
    if languages.height and second >= 0.02 * int(languages["count"].sum()):
        tally = Tally(details=dict(languages.head(5).rows()))  # type: ignore[arg-type]
        others = int(languages["count"].sum() - languages["count"][0])
        findings.append(_finding("mixed_languages", others, rows.height, "row", tally))
    return findings


def _of_sentence(sentence: str) -> Example:
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


def _type_changes(found: Gathered) -> list[Finding]:
    tally = Tally()
    for count in found.counts:
        for column, types in count.types.items():
            kinds = {kind: number for kind, number in types.items() if kind != "null"}
            if len(kinds) > 1:
                told = ", ".join(f"{kind} {number:,}" for kind, number in sorted(kinds.items()))
                tally.count += 1
                text = printable(f"column '{column}' holds {told}")
                tally.examples.append(Example(file=count.name, line=0, message=text, text=text))
    return [_finding("type_changes", tally.count, None, "column", tally)] if tally.count else []


def _bias(rows: pl.DataFrame) -> Bias:
    pairs = rows.filter(pl.col("kind") == "pair")
    labelled = rows.filter(pl.col("label").is_not_null())
    liked = bias.rate(int(labelled["label"].sum()), labelled.height) if labelled.height else None
    placed = pairs["first_wins"].drop_nulls()
    sums = bias.length_sums(pairs).row(0, named=True)
    groups = []
    for by, column in (("file", "source"), ("annotator", "annotator")):
        each = bias.length_sums(pairs, column)
        counts = each.select(
            group=pl.col(column), count="longer_wins", of=pl.col("longer_wins") + pl.col("shorter_wins")
        )
        groups += bias.group_bias(counts, by, "longer_wins")  # type: ignore[arg-type]
    of = bias.paired_sides if pairs.height else bias.labelled_sides
    sides = pairs if pairs.height else labelled
    return Bias(
        length=bias.length_bias(sums) if pairs.height else None,
        refusals=of(sides, "refusal"),
        markdown=of(sides, "markdown"),
        prompt_echo=of(sides, "echo"),
        liked=liked,
        first_wins=bias.rate(int(placed.sum()), len(placed)) if len(placed) else None,
        groups=tuple(groups),
    )


def _bias_findings(figures: Bias, found: Gathered) -> list[Finding]:
    findings = []
    length, rows = figures.length, found.rows.height
    if length and (severity := bias.length_severity(length)):
        d = "no spread" if length.cohens_d is None else f"d = {length.cohens_d:.2f}"
        wins = "" if length.win_rate is None else f", the longer one wins {length.win_rate:.1%} of the time"
        means = f"chosen has {length.chosen_mean:,.0f} characters, rejected {length.rejected_mean:,.0f}"
        message = f"{means} ({d}, gap {length.gap:+.0%}){wins}"
        findings.append(_finding("length_bias", length.pairs, None, "row", Tally(), message, severity))
    for code, figure in (
        ("refusals", figures.refusals),
        ("markdown", figures.markdown),
        ("prompt_echo", figures.prompt_echo),
    ):
        if figure and (severity := bias.side_severity(figure, rows)):
            shares = f"{figure.better_share:.1%} of the better and {figure.worse_share:.1%} of the worse responses"
            message = f"{shares}: {RULES[code].reason}"
            findings.append(_finding(code, figure.better + figure.worse, None, "row", Tally(), message, severity))
    if figures.liked and (severity := bias.label_severity(figures.liked)):
        message = f"{figures.liked.share:.1%} of {figures.liked.of:,} labelled responses are liked"
        findings.append(_finding("label_imbalance", figures.liked.of, None, "row", Tally(), message, severity))
    if figures.first_wins and (severity := bias.half_severity(figures.first_wins)):
        message = (
            f"the first response of the record wins {figures.first_wins.share:.1%} of {figures.first_wins.of:,} pairs"
        )
        findings.append(_finding("position_bias", figures.first_wins.of, None, "row", Tally(), message, severity))
    for group in figures.groups:
        shares = f"the longer response wins {group.here.share:.0%}, elsewhere {group.elsewhere.share:.0%}"
        message = f"{group.by} {printable(group.group)}: {shares}"
        findings.append(_finding("source_bias", group.here.of, None, "row", Tally(), message))
    return findings


def _deep(
    logs: Any,
    recipe: Recipe,
    near: bool,
    semantic: bool,
    evaluation: Sequence[str],
    limit: int | None,
    examples: int,
    cache: Path,
    track: Track,
) -> list[Finding]:
    """What a build would leave out for nearness, meaning or truncation: its own stages say so."""
    kind = "semantic" if semantic else "near" if near else "exact"
    settings = recipe.model_copy(update={"duplicates": kind})
    checked = read_and_check(logs, settings, limit=limit, cache=cache, track=track)
    rows = len(checked.ids)
    overlaps = []
    if semantic:
        settings = settings.model_copy(update={"test_fraction": 0.0})
        checked, prompts = embed_and_split(
            checked, settings, cache=cache, batch_size=1024, say=lambda line: None, track=track
        )
        overlaps = _same_meaning(checked, prompts, settings, evaluation, cache, examples)
    findings = []
    for code in _DEEP:
        told = [sentence for reason in checked.left_out if reason.code == code for sentence in reason.sentence]
        if told:
            tally = Tally(examples=[_of_sentence(sentence) for sentence in told[:examples]])
            findings.append(_finding(code, len(told), max(rows, len(told)), "row", tally))
    return findings + overlaps


def _same_meaning(
    checked: Checked, prompts: Prompts, recipe: Recipe, evaluation: Sequence[str], cache: Path, examples: int
) -> list[Finding]:
    """Prompts that mean what a text of an evaluation set means: cosine from `duplicate_score` on."""
    if not evaluation or recipe.embedder.startswith("column:"):
        return []
    embedder = load_embedder(
        recipe.embedder, device=recipe.device, dtype=recipe.dtype, prompt_prefix=recipe.prompt_prefix
    )
    folder = cache / "vectors" / cache_key(embedder, recipe.prompt_prefix)
    rendered = [render_prompt([{"role": "user", "content": text}], recipe.embed_text) for text in evaluation]
    vectors, _ = embed_texts(rendered, embedder, folder, batch_size=1024)
    nearest, score = embedding_overlap(prompts.vectors, vectors, recipe.duplicate_score)
    hits = np.flatnonzero(nearest >= 0)
    firsts = checked.ids.group_by("prompt_id", maintain_order=True).first()
    tally = Tally()
    for place in hits[:examples]:
        row = firsts.row(int(place), named=True)
        text = f"the prompt has cosine {score[place]:.3f} with evaluation text {nearest[place] + 1}"
        tally.examples.append(Example(file=row["source"], line=row["source_row"], message=text, text=text))
    message = f"prompts that mean the same as a text of an evaluation set (cosine from {recipe.duplicate_score})"
    return [_finding("contamination", len(hits), len(prompts.ids), "text", tally, message)] if len(hits) else []


def _summary(found: Gathered, number: int) -> FileSummary:
    count = found.counts[number]
    rows = found.rows.filter(pl.col("source") == count.name)
    kinds = rows["kind"].cast(pl.String)
    responses = rows.filter(kinds == "response")
    languages = rows["language"].drop_nulls().value_counts().sort("count", "language", descending=[True, False])
    return FileSummary(
        name=count.name,
        shapes=dict(sorted(count.shapes.items())),
        records=count.read,
        rejected=count.rejected,
        pairs=int((kinds == "pair").sum()),
        ties=int((kinds == "tie").sum()),
        labelled=int(responses["label"].is_not_null().sum()),
        scored=int(responses["scored"].sum()),
        annotators=rows["annotator"].drop_nulls().n_unique(),
        languages=dict(languages.select("language", "count").rows()),
    )


def _not_checked(near: bool, semantic: bool, recipe: Recipe, evaluation: Sequence[str | Path]) -> dict[str, str]:
    """Rules that need more than they were given."""
    missing = {}
    if not near and not semantic:
        missing["near_duplicate"] = "--near"
    if not semantic:
        missing["near_conflict, semantic_duplicate"] = "--semantic"
    if not recipe.tokenizer:
        missing["collapsed"] = "--tokenizer and --max-length"
    if not evaluation:
        missing["contamination"] = "--eval FILE"
    return missing
