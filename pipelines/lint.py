"""`lint`: what the logs hold and what is wrong with them, for every record. `build` applies the same rules."""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rpo_data.contamination import embedding_overlap, index_ngrams
from rpo_data.embed import load_embedder, render_prompt
from rpo_data.gather import Gathered, Looking, Tally, gather
from rpo_data.pairs import Reading
from rpo_data.pipelines.checking import Checked, Track, check_mapping, check_sources, read_evaluation
from rpo_data.pipelines.lint_findings import bias_figures, finding, of_bias, of_records, of_rows, of_sentence
from rpo_data.pipelines.prompts import Prompts, embed_and_split
from rpo_data.pipelines.store import cache_folder
from rpo_data.schemas.findings import Example, FileSummary, Finding, Findings
from rpo_data.schemas.recipe import Recipe
from rpo_data.schemas.rules import RULES
from rpo_data.sources import Source, find_sources
from rpo_data.vectors import cache_key, embed_texts

_DEEP = ("collapsed", "near_duplicate", "near_conflict", "semantic_duplicate")
_OF_RESPONSES = ("conflict", "cycle", "tie", "no_pair", "not_paired", "no_label", "no_score")
"""What only a build can say of responses that are judged one by one, since it depends on its mode."""
_SETTINGS = {"conflicts": "drop", "annotators": "keep", "test_fraction": 0.0}
"""Settings of a build under which it says all that lint wants to know."""


def lint(
    logs: str | Path | Sequence[str | Path],
    recipe: Recipe | None = None,
    *,
    limit: int | None = None,
    near: bool = False,
    semantic: bool = False,
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
        evaluation: files of evaluation sets that the prompts must not overlap with.
        off: codes that are not looked for and not reported; without `mixed_languages` no language is detected.
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
    held_out = [] if "contamination" in off else read_evaluation(evaluation)
    looking = Looking(frozenset(off), index_ngrams(pl.Series(held_out)) if held_out else None, examples)
    found = gather(sources, reading, looking, limit=limit, exact=exact, progress=partial(track, "read"))
    figures = bias_figures(found.rows)
    check_mapping(recipe.columns, found.counts)
    by_build = _OF_RESPONSES if "response" in found.rows["kind"] else ()
    findings = [
        *of_records(found, examples),
        *of_rows(found.rows, examples, {*off, *by_build}),
        *of_bias(figures, found.rows, examples),
    ]
    if near or semantic or recipe.tokenizer or by_build:
        settings = recipe.model_copy(update=_SETTINGS | {"duplicates": _kind(near, semantic)})
        codes = [code for code in (*_DEEP, *by_build) if code not in off]
        findings += _of_build(
            sources,
            settings,
            codes,
            semantic,
            held_out,
            found.rows.height,
            limit,
            examples,
            cache_folder(cache_dir),
            track,
        )
    shown = _in_order(one for one in findings if one.code not in off)
    return Findings(
        files=tuple(_summary(found, number) for number in range(len(sources))),
        records=sum(count.read for count in found.counts),
        rows=found.rows.height,
        findings=tuple(shown),
        bias=figures,
        verdict=shown[0].severity if shown else "OK",
        ignored_files=tuple(sorted(ignored)),
        not_checked=_not_checked(near, semantic, recipe, evaluation),
    )


def _in_order(findings: Iterable[Finding]) -> list[Finding]:
    """MAJOR first, in each severity in the order of the rules."""
    order = {code: place for place, code in enumerate(RULES)}
    return sorted(findings, key=lambda one: (one.severity != "MAJOR", order[one.code]))


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
                table.add_row("", "", "", "", Text(f"  {_told(example)}", "dim"))
        out.print(table)
    for what, why in report.not_checked.items():
        out.print(Text(f"not checked: {what} ({why})", "dim"))
    out.print(Text(f"verdict: {report.verdict}", "bold"))


def _told(example: Example) -> str:
    """Place, what is wrong there where that says more than the rule does, and the start of the text."""
    place = f"{example.file}:{example.line}" if example.line else example.file
    message = example.message.removeprefix(f"{place}: ")
    text = "" if example.text.startswith(example.message[:40]) else f" | {example.text[:60]}"
    return f"{place}: {message}{text}"


def _kind(near: bool, semantic: bool) -> str:
    return "semantic" if semantic else "near" if near else "exact"


def _of_build(
    sources: list[Source],
    recipe: Recipe,
    codes: Sequence[str],
    semantic: bool,
    evaluation: Sequence[str],
    rows: int,
    limit: int | None,
    examples: int,
    cache: Path,
    track: Track,
) -> list[Finding]:
    """What a build would leave out under these codes: its own stages say so."""
    checked, overlaps = check_sources(sources, recipe, limit=limit, cache=cache, track=track), []
    if semantic and len(checked.ids):
        checked, prompts = embed_and_split(
            checked, recipe, cache=cache, batch_size=1024, say=lambda line: None, track=track, for_groups=False
        )
        overlaps = _same_meaning(checked, prompts, recipe, evaluation, cache, examples)
    findings = []
    for code in codes:
        told = [sentence for reason in checked.left_out if reason.code == code for sentence in reason.sentence]
        if told:
            tally = Tally(examples=[of_sentence(sentence) for sentence in told[:examples]])
            findings.append(finding(code, len(told), rows, "row", tally))
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
    return [finding("contamination", len(hits), len(prompts.ids), "text", tally, message)] if len(hits) else []


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
