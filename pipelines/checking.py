"""The first stages of a build: read, check, pair, dedupe, vote: all that is decided before a prompt is embedded."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from rpo_data.annotators import merge_annotators
from rpo_data.collapsed import collapsed_pairs
from rpo_data.conflicts import resolve
from rpo_data.contamination import evaluation_texts, index_ngrams, ngram_overlap
from rpo_data.duplicates import decide
from rpo_data.errors import LogError, RecipeError
from rpo_data.minhash import jaccard_pairs, near_texts
from rpo_data.pairing import pair_responses, paired_rows
from rpo_data.pairs import Reading, RecordCounts, collect_rows
from rpo_data.pipelines.recipes import nearest
from rpo_data.pipelines.store import stored_stage
from rpo_data.read import content_hash, read_records
from rpo_data.records import Record
from rpo_data.responses import find_mode, judge_labels, make_responses
from rpo_data.row_table import open_rejects, open_rows, side_texts, take_rows
from rpo_data.rows import LeftOut, identities, left_out, merge_duplicates
from rpo_data.schemas.manifest import SourceCounts
from rpo_data.schemas.recipe import Mode, Recipe
from rpo_data.schemas.rules import MERGED
from rpo_data.sources import Source, find_sources

Say = Callable[[str], None]
Track = Callable[[str, int, int], None]
"""Called with the name of a stage, what is done and what there is to do (0: not known)."""


@dataclass(frozen=True)
class Checked:
    """What reading and checking left: rows on disk, the identities of those that stay, and what was left out.

    `rows` holds the rows of the logs, then the pairs made of responses, or the responses made of pairs; `made` says how
    many rows each source gave, a row counting as one only where no such row was made of it. `ties` are known to be equal:
    cells are masked for them.
    """

    mode: Mode
    records: list[RecordCounts]
    content: list[str]
    rows: pa.Table
    made: Counter[str]
    rejects: pa.Table
    left_out: list[LeftOut]
    ids: pl.DataFrame
    ties: pl.DataFrame

    @property
    def what(self) -> str:
        """What the rows are, in the plural."""
        return "pairs" if self.mode == "paired" else "responses"

    @property
    def left_out_counts(self) -> dict[str, int]:
        """Code -> how many records or rows are left out under it."""
        counts = Counter(self.rejects["code"].to_pylist())
        for reason in self.left_out:
            counts[reason.code] += len(reason.position)
        return {code: count for code, count in sorted(counts.items()) if count}

    @property
    def source_counts(self) -> list[SourceCounts]:
        """What became of each source, record by record and row by row."""
        names = self.rows.select(["source"])
        gone: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
        for reason in self.left_out:
            gone[reason.code in MERGED].update(take_rows(names, positions(reason))["source"].to_pylist())
        return [
            _source_counts(count, digest, self.made[count.name], gone[True][count.name], gone[False][count.name])
            for count, digest in zip(self.records, self.content, strict=True)
        ]


def positions(reason: LeftOut) -> np.ndarray:
    """Positions of what is left out, in the table of rows."""
    return np.array(reason.position, dtype=np.int64)


def read_and_check(
    logs: str | Path | Sequence[str | Path],
    recipe: Recipe,
    *,
    limit: int | None,
    cache: Path,
    evaluation: Sequence[str | Path] = (),
    say: Say = lambda line: None,
    track: Track = lambda stage, done, total: None,
) -> Checked:
    """Stages read, check, pair, dedupe and judge; rows that overlap with the files of `evaluation` are left out.

    Raises:
        LogError: the logs cannot be found or opened, are claimed by two shapes, or hold no usable pair.
        RecipeError: there is no shape of the recipe's name, or no record has a column that `columns` names.
    """
    ignored: list[str] = []
    sources = find_sources([logs] if isinstance(logs, (str, Path)) else logs, ignored)
    checked = check_sources(sources, recipe, limit=limit, cache=cache, evaluation=evaluation, track=track)
    _tell(checked, ignored, say)
    if checked.ids.is_empty():
        raise LogError(_nothing_left(checked))
    if checked.mode == "unpaired" and checked.ids["label"].n_unique() == 1:
        raise LogError(_one_label(checked))
    return checked


def check_sources(
    sources: list[Source],
    recipe: Recipe,
    *,
    limit: int | None,
    cache: Path,
    evaluation: Sequence[str | Path] = (),
    track: Track = lambda stage, done, total: None,
) -> Checked:
    """The same for sources that are found already; no usable pair is no error here.

    Raises:
        LogError: a source cannot be opened, or is claimed by two shapes.
        RecipeError: as above.
    """
    content = [content_hash(source) for source in sources]
    folder = _read(sources, content, recipe, limit, cache, track)
    records = [RecordCounts(**count) for count in json.loads((folder / "counts.json").read_text())]
    check_mapping(recipe.columns, records)
    return _decide(records, content, open_rows(folder), open_rejects(folder), recipe, read_evaluation(evaluation))


def check_mapping(columns: Mapping[str, str], records: Sequence[RecordCounts]) -> None:
    """Refuse a mapping that names what is nowhere in the logs.

    Raises:
        RecipeError: no record has a column of that name.
    """
    there = {column for count in records for column in count.types}
    for ours, theirs in columns.items():
        if there and theirs not in there and theirs.split(".")[0] not in there:
            named = nearest(theirs, there) or f" (they have: {', '.join(sorted(there)[:10])})"
            raise RecipeError(f"no record has the column '{theirs}' of --columns {ours}={theirs}{named}")


def _read(
    sources: list[Source], content: list[str], recipe: Recipe, limit: int | None, cache: Path, track: Track
) -> Path:
    vector_column = recipe.embedder.removeprefix("column:") if recipe.embedder.startswith("column:") else None
    reading = Reading(
        shape=recipe.format,
        columns=recipe.columns,
        ignore=recipe.ignore,
        vector_column=vector_column,
        redact=recipe.redact,
        detect_language=recipe.detect_language,
    )

    def make(folder: Path) -> None:
        counts = collect_rows(sources, folder, reading, limit=limit, progress=partial(track, "read"))
        (folder / "counts.json").write_text(json.dumps([asdict(count) for count in counts]))

    named = [[s.name, s.kind, s.shape, s.columns, s.hidden, s.tags, c] for s, c in zip(sources, content, strict=True)]
    return stored_stage(cache, "read", {"sources": named, "limit": limit, **asdict(reading)}, make)


def _decide(
    records: list[RecordCounts],
    content: list[str],
    rows: pa.Table,
    rejects: pa.Table,
    recipe: Recipe,
    evaluation: Sequence[str],
) -> Checked:
    """Everything that is decided on identities; each step leaves rows out and says why."""
    ids, merged = merge_duplicates(identities(rows))
    mode = find_mode(rows) if recipe.mode == "auto" else recipe.mode
    check_sizes(recipe, mode)
    if mode == "paired":
        rows, ids, replaced, not_used = _pair(rows, ids, recipe)
    else:
        rows, ids, replaced, not_used = make_responses(rows, ids, mode)
    ids, contaminated = _drop_contaminated(rows, ids, evaluation)
    ids, collapsed = _drop_collapsed(rows, ids, recipe)
    ids, by_vote = judged(ids, mode, lambda rows: merge_annotators(rows, recipe.annotators))
    ids, contradictions = judged(ids, mode, lambda rows: resolve(rows, recipe.conflicts))
    ids, near = _merge_near(rows, ids, recipe)
    is_tie = pl.col("kind") == "tie"
    ties = ids.filter(is_tie)
    told = left_out(ties, "tie", "the two responses are judged equal: none of them is better")
    reasons = [merged, *not_used, *contaminated, *collapsed, *by_vote, *contradictions, *near, told]
    made = Counter(rows["source"].to_pylist())
    made.subtract(take_rows(rows.select(["source"]), replaced)["source"].to_pylist())
    return Checked(mode, records, content, rows, made, rejects, reasons, ids.filter(~is_tie), ties)


def judged(
    ids: pl.DataFrame, mode: Mode, decide: Callable[[pl.DataFrame], tuple[pl.DataFrame, list[LeftOut]]]
) -> tuple[pl.DataFrame, list[LeftOut]]:
    """Let a rule on judgements decide: on pairs, on labels as if they were pairs, and on scores never."""
    if mode == "scored":
        return ids, []
    return decide(ids) if mode == "paired" else judge_labels(ids, decide)


def check_sizes(recipe: Recipe, mode: Mode) -> None:
    """Refuse group sizes that this mode cannot have.

    Raises:
        RecipeError: group_size is above max_group (unpaired), or 1 (scored).
    """
    if mode == "unpaired" and recipe.group_size > recipe.max_group:
        raise RecipeError(f"group_size {recipe.group_size} is above max_group {recipe.max_group}: raise max_group")
    if mode == "scored" and recipe.group_size == 1:
        raise RecipeError("group_size 1 leaves a scored response alone in its group: raise it")


def _pair(
    rows: pa.Table, ids: pl.DataFrame, recipe: Recipe
) -> tuple[pa.Table, pl.DataFrame, np.ndarray, list[LeftOut]]:
    """Put pairs made of responses behind the rows; with the positions of the responses that stand in one."""
    is_response = pl.col("kind") == "response"
    responses = ids.filter(is_response)
    if responses.is_empty():
        return rows, ids, np.empty(0, dtype=np.int64), []
    pairs, unpaired = pair_responses(responses, recipe.pairing)
    both = pa.concat_tables([rows, paired_rows(rows, pairs)])
    is_new = pl.col("position") >= rows.num_rows
    known = ids.filter(~is_response)["position"].implode()
    ids, merged = merge_duplicates(identities(both).filter(is_new | pl.col("position").is_in(known)))
    in_pairs = pl.concat([pairs["win"], pairs["loss"]]).unique().sort().to_numpy().astype(np.int64)
    return both, ids, in_pairs, [*unpaired, merged]


def read_evaluation(files: Sequence[str | Path]) -> list[str]:
    """The texts of evaluation sets.

    Raises:
        LogError: a file cannot be read, or holds no text.
    """
    if not files:
        return []
    records = [item.data for source in find_sources(files) for item in read_records(source) if isinstance(item, Record)]
    if not records:
        raise LogError(f"no record in the evaluation sets {', '.join(map(str, files))}: check the files")
    return evaluation_texts(records)


def _drop_contaminated(
    rows: pa.Table, ids: pl.DataFrame, evaluation: Sequence[str]
) -> tuple[pl.DataFrame, list[LeftOut]]:
    """Leave out rows whose prompt shares a run of words with an evaluation set."""
    if not evaluation:
        return ids, []
    prompts = side_texts(rows, "prompt", ids["position"].to_numpy())
    overlap = ngram_overlap(prompts, index_ngrams(pl.Series(evaluation)))["evaluation"].fill_null(-1) >= 0
    sentence = "the prompt shares a run of words with an evaluation set: drop it, or build without --eval"
    return ids.filter(~overlap), [left_out(ids.filter(overlap), "contamination", sentence)]


def _drop_collapsed(rows: pa.Table, ids: pl.DataFrame, recipe: Recipe) -> tuple[pl.DataFrame, list[LeftOut]]:
    """Leave out pairs that are one text once training has cut them, where a tokenizer is given."""
    if not recipe.tokenizer or recipe.max_length is None or "collapsed" in recipe.ignore or "pair" not in ids["kind"]:
        return ids, []
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(recipe.tokenizer)
    except Exception as error:  # transformers and the Hub raise many kinds here
        first = str(error).strip().split("\n", 1)[0]
        raise RecipeError(
            f"the tokenizer {recipe.tokenizer} cannot be loaded ({first}): give a folder or a Hub id"
        ) from error
    places, gone = ids["position"].to_numpy().astype(np.int64), []
    for start in range(0, len(places), 1000):
        part = take_rows(rows.select(["prompt", "chosen", "rejected"]), places[start : start + 1000])
        prompts, chosen, rejected = (part[side].to_pylist() for side in ("prompt", "chosen", "rejected"))
        gone.append(collapsed_pairs(prompts, chosen, rejected, tokenizer, recipe.max_length).identical)
    collapsed = pl.Series(np.concatenate([*gone, np.empty(0, dtype=bool)])) & (ids["kind"] == "pair")
    sentence = f"chosen and rejected are the same text within {recipe.max_length} tokens: raise max_length or drop it"
    return ids.filter(~collapsed), [left_out(ids.filter(collapsed), "collapsed", sentence)]


def _merge_near(rows: pa.Table, ids: pl.DataFrame, recipe: Recipe) -> tuple[pl.DataFrame, list[LeftOut]]:
    """Merge rows of one annotator whose prompt, chosen and rejected texts are each nearly the same."""
    if recipe.duplicates == "exact":
        return ids, []
    texts = {side: side_texts(rows, side, ids["position"].to_numpy()) for side in ("prompt", "chosen", "rejected")}
    whole = pl.DataFrame(texts).select(pl.concat_str(pl.all(), separator="\n")).to_series()
    edges = near_texts(whole, recipe.near_score)
    # sets of shingles do not know sides: a pair judged the other way has the same ones
    judge = ids.select(pl.struct("kind", "annotator", "label", "score", "rank").rank("dense")).to_series().to_numpy()
    same = judge[edges.first] == judge[edges.second]
    for side in texts.values():
        same &= jaccard_pairs(side, edges.first, edges.second) >= recipe.near_score
    alike = replace(edges, first=edges.first[same], second=edges.second[same], score=edges.score[same])
    stays = decide(alike, np.arange(len(ids))).stays
    gone = stays != np.arange(len(ids))
    place = ids.select(pl.format("{}:{}", "source", "source_row")).to_series()
    merged = ids.with_columns(into=place.gather(stays)).filter(gone)
    sentences = merged.select(pl.format("{}:{}: merged into {}, nearly the same row", "source", "source_row", "into"))
    reason = LeftOut("near_duplicate", merged["position"].to_list(), sentences.to_series().to_list())
    return ids.filter(~gone), [reason]


def _source_counts(count: RecordCounts, digest: str, made: int, merged: int, rejected: int) -> SourceCounts:
    return SourceCounts(
        name=count.name,
        content_hash=digest,
        shapes=count.shapes,
        records_read=count.read,
        records_used=count.used,
        records_rejected=count.rejected,
        rows_made=made + count.rows_rejected,
        rows_kept=made - merged - rejected,
        rows_rejected=rejected + count.rows_rejected,
        rows_merged=merged,
    )


def _tell(checked: Checked, ignored: list[str], say: Say) -> None:
    read, files = sum(count.read for count in checked.records), len(checked.records)
    say(f"read    {read:,} records of {files} source{'s' * (files != 1)}, {len(checked.ids):,} {checked.what} kept")
    if ignored:
        names = ", ".join(sorted(ignored)[:3]) + ", …" * (len(ignored) > 3)
        say(f"        {len(ignored):,} files ignored: {names}")
    for code, number in checked.left_out_counts.items():
        say(f"        {number:,} left out: {code}")


def _nothing_left(checked: Checked) -> str:
    names = ", ".join(count.name for count in checked.records)
    read = sum(count.read for count in checked.records)
    if any(reason.code == "no_pair" and reason.position for reason in checked.left_out):
        return (
            f"no pair can be made of {read:,} records of {names}: no prompt has a better and a worse response; build with "
            "--mode unpaired (liked and disliked responses) or --mode scored (scores on one scale)"
        )
    told = [
        *checked.rejects["message"][:1].to_pylist(),
        *(text for one in checked.left_out for text in one.sentence[:1]),
    ]
    first = f" (the first: {told[0]})" if told else ""
    return f"no usable {checked.what[:-1]} in {read:,} records of {names}{first}"


def _one_label(checked: Checked) -> str:
    names = ", ".join(count.name for count in checked.records)
    there, missing = ("liked", "disliked") if checked.ids["label"][0] else ("disliked", "liked")
    return (
        f"all {len(checked.ids):,} responses of {names} that can be used are {there}, and a group needs {missing} ones "
        "too: add logs that hold some"
    )
