"""Rows as numbers: hashes, lengths and flags of the texts of a million rows in some 50 bytes a row, and what repeats.

A frame of texts (rpo_data/scan.py, `TEXTS`) goes in batch by batch; what is left of each batch is small enough to keep.
Hashes are polars' own: good within one process, never stored.
"""

from collections.abc import Collection

import polars as pl

KINDS = pl.Enum(["pair", "tie", "response"])
FLAGS = ("markdown", "refusal", "echo")
ECHO_CHARACTERS = 20
"""A question shorter than this may well open an answer by chance ("Hi")."""

MARKDOWN = r"(?m)^ {0,3}(?:[-*+]|[0-9]{1,3}[.)]|#{1,6}) |\*\*[^\s*]|^ {0,3}```"
"""List items, headings, bold and code fences, as CommonMark 0.31 has them (sections 4.2, 4.5, 5.2, 6.2)."""

REFUSALS = (
    "I'm sorry, but", "I am sorry, but", "I'm sorry, I can", "I'm really sorry, but", "Sorry, but", "Sorry, I can",
    "I apologize, but", "My apologies, but", "I cannot", "I can not", "I can't", "I won't", "I will not",
    "I'm not able to", "I am not able to", "I'm unable to", "I am unable to", "I'm afraid I can", "As an AI",
    "As a language model", "As a large language model",
)  # fmt: skip
"""Openings of a refusal, whatever the case; of the kind that Zou et al. 2023 (arXiv 2307.15043) look for."""

_REFUSAL = f"(?i)^(?:{'|'.join(REFUSALS)})".replace("'", "['’]")
_KEY = ["prompt_hash", "chosen_hash", "rejected_hash"]
_MORE = ["annotator", "source"]


def measure(texts: pl.DataFrame, flags: Collection[str] = FLAGS) -> pl.DataFrame:
    """Measure a batch of rows.

    Args:
        texts: `line`, `kind` (pair, tie, response), `prompt`, `chosen`, `rejected` (null for a response), outer blanks
            stripped, the prompt in the form of `scan.prompt_text`; perhaps `label`, `annotator`, `source`.
        flags: which of `FLAGS` to look for; the others have no column in what is returned.

    Returns:
        One row for each: `line`; `kind`; `label`, null unless the texts have it; `prompt_hash`, `chosen_hash`,
        `rejected_hash` (64 bits); `chosen_characters`, `rejected_characters`; and for both sides whether it has
        `*_markdown`, opens with a `*_refusal`, or with an `*_echo` of the whole last question. What concerns the
        rejected side is null for a response. `annotator` and `source` are kept where they are given.
    """
    prepared = texts.with_columns(
        label=pl.col("label") if "label" in texts.columns else pl.lit(None, dtype=pl.Boolean),
    )
    if "echo" in flags:
        prepared = prepared.with_columns(question=last_question(texts["prompt"]))
    sides = [column for side in ("chosen", "rejected") for column in _side(side, flags)]
    return prepared.select(
        "line",
        pl.col("kind").cast(KINDS),
        "label",
        *(column for column in _MORE if column in texts.columns),
        *(_hash(side) for side in ("prompt", "chosen", "rejected")),
        *sides,
    )


def exact_duplicates(measures: pl.DataFrame) -> pl.DataFrame:
    """Rows that say what an earlier row says: same prompt, responses and kind, and same label and annotator.

    Args:
        measures: what `measure` gave, for all rows.

    Returns:
        `position` of each such row in `measures`, ascending, and the `first_position` of that content.
    """
    key = [column for column in ("kind", *_KEY, "label", "annotator") if column in measures.columns]
    rows = measures.lazy().select(key).with_row_index("position")
    return (
        rows.with_columns(first_position=pl.col("position").min().over(key))
        .filter(pl.col("position") > pl.col("first_position"))
        .select(pl.col("position", "first_position").cast(pl.Int64))
        .sort("position")
        .collect()
    )


def _hash(side: str) -> pl.Expr:
    return pl.when(pl.col(side).is_not_null()).then(pl.col(side).hash(seed=0)).alias(f"{side}_hash")


def _side(side: str, flags: Collection[str]) -> list[pl.Expr]:
    text, question = pl.col(side), pl.col("question")
    found = {
        "markdown": text.str.contains(MARKDOWN),
        "refusal": text.str.contains(_REFUSAL),
        "echo": pl.when(text.is_not_null()).then(
            text.str.starts_with(question) & (question.str.len_chars() >= ECHO_CHARACTERS)
        ),
    }
    lengths = text.str.len_chars().alias(f"{side}_characters")
    return [lengths, *(found[flag].alias(f"{side}_{flag}") for flag in FLAGS if flag in flags)]


def last_question(prompts: pl.Series) -> pl.Series:
    """The last human turn of each prompt in the form of `scan.prompt_text`."""
    return prompts.str.split("\n\nHuman: ").list.last()
