"""The language of each text: py3langid's answer from py3langid's own tables, many times as fast.

py3langid 0.4 walks an automaton over the bytes of a text, counts the byte patterns it meets and weighs the counts with
naive Bayes: in Python, one text after the other. The same two steps run here compiled, over an Arrow string column. The
library loads its tables itself; another version, or tables of another form, are asked text by text instead, slowly.

Only languages with a two-letter code are told apart (Cantonese and Wu count as Chinese, Nigerian Pidgin as English): the
rarer ones take more short English and Chinese prompts than they are worth. Only the first `MAX_CHARACTERS` of a text are
read, which changes no label of HH's last turns, 0.3 % of Chinese ones and 3 % of UltraFeedback's prompts (those that hold
two languages). Nothing is said (null) about a text without `MIN_LETTERS` letters there, about one that py3langid takes for
no language at all (its label zxx: code, numbers), or where its confidence is below `MIN_CONFIDENCE`: so 7 % of HH's last
turns have no language and none has a wrong one, where a threshold of 0.3 gives 0.16 % a wrong one.

Source: Lui and Baldwin 2012, "langid.py: An Off-the-shelf Language Identification Tool"; py3langid 0.4, langid.py.
"""

import os
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.metadata import version
from typing import NamedTuple

import numba
import numpy as np
import polars as pl
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from rpo_data.utf8 import utf8_bytes

MAX_CHARACTERS = 256
MIN_LETTERS = 4
MIN_CONFIDENCE = 0.5
NO_LANGUAGE = "zxx"
KNOWN_VERSION = "0.4."
"""Versions of py3langid whose way with its tables is known."""

_CHUNK = 4096


class Tables(NamedTuple):
    """Of py3langid: automaton (transitions, row of each state, pattern of each state or -1), weights, priors, labels."""

    moves: np.ndarray
    rows: np.ndarray
    patterns: np.ndarray
    weights: np.ndarray
    priors: np.ndarray
    labels: list[str]


def languages(texts: pl.Series) -> pl.Series:
    """Language code of each text as py3langid names it (ISO 639-1, else 639-3), null where unsure or too short.

    Args:
        texts: strings; null counts as empty. Of a dialogue give the last user turn: that is what the answers answer.

    Returns:
        Strings, named language, in the order of the texts.
    """
    found = detect(texts)
    enough = texts.str.slice(0, MAX_CHARACTERS).str.contains(rf"(?s)(?:\p{{L}}.*?){{{MIN_LETTERS}}}").fill_null(False)
    sure = enough & (found["confidence"] >= MIN_CONFIDENCE) & (found["language"] != NO_LANGUAGE)
    return found.select(pl.when(sure).then("language")).to_series()


def detect(texts: pl.Series) -> pl.DataFrame:
    """What py3langid says of each text's first `MAX_CHARACTERS` characters, sure or not.

    Returns:
        Columns language (string) and confidence (float32 between 0 and 1: the normalised probability of the language,
        as `LanguageIdentifier(norm_probs=True)` gives it).
    """
    heads = _prepare(texts.str.slice(0, MAX_CHARACTERS).fill_null(""))
    tables = library_tables()
    if tables is None:
        answers = [identifier().classify(head) for head in heads]
        return pl.DataFrame(
            {"language": [label for label, _ in answers], "confidence": [score for _, score in answers]},
            schema={"language": pl.String, "confidence": pl.Float32},
        )
    text, ends = utf8_bytes(heads)
    best = np.empty(len(heads), dtype=np.int64)
    confidence = np.empty(len(heads), dtype=np.float32)
    firsts = np.array([tables.labels.index(label) for label in tables.labels])  # two columns may share one label

    def classify(start: int) -> None:
        stop = min(start + _CHUNK, len(heads))
        _classify(text, ends[start : stop + 1], *tables[:5], firsts, best[start:stop], confidence[start:stop])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(classify, range(0, len(heads), _CHUNK)))
    labels = pl.Series(tables.labels, dtype=pl.String)
    return pl.DataFrame({"language": labels.gather(best), "confidence": confidence})


@cache
def identifier() -> LanguageIdentifier:
    """py3langid's own, restricted to the languages that have a two-letter code (and its label for no language)."""
    found = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    found.set_languages([label for label in found.labels if len(label) == 2 or label == NO_LANGUAGE])
    return found


@cache
def library_tables() -> Tables | None:
    """The library's tables as arrays, None for a version that may read them another way or keep them elsewhere."""
    if not version("py3langid").startswith(KNOWN_VERSION):
        return None
    found = identifier()
    try:
        tables = Tables(
            np.asarray(found.tk_nextmove, dtype=np.uint32),
            np.asarray(found.tk_row, dtype=np.uint32),
            np.asarray(found.tk_output, dtype=np.int32),
            np.ascontiguousarray(found.nb_ptc, dtype=np.float32),
            np.asarray(found.nb_pc, dtype=np.float32),
            list(found.nb_classes),
        )
    except (AttributeError, TypeError, ValueError):
        return None
    states, classes = len(tables.rows), len(tables.labels)
    fits = (
        len(tables.moves) % 256 == 0
        and tables.moves.max(initial=0) < states
        and tables.rows.max(initial=0) < len(tables.moves) // 256
        and len(tables.patterns) == states
        and tables.weights.ndim == 2
        and tables.weights.shape[1] == len(tables.priors) == classes
        and tables.patterns.max(initial=-1) < len(tables.weights)
    )
    return tables if fits else None


def _prepare(heads: pl.Series) -> pl.Series:
    """What py3langid does to a text before it reads the bytes: all capitals to small letters, then NFC."""
    odd = ~heads.str.contains("[a-z]") | heads.str.contains(r"[^\x00-\x7f]")
    if not odd.any():
        return heads
    mended = [unicodedata.normalize("NFC", t.lower() if t.isupper() else t) for t in heads.filter(odd)]
    return heads.scatter(odd.arg_true(), mended)


@numba.njit(cache=True, nogil=True)
def _classify(
    text: np.ndarray,
    ends: np.ndarray,
    moves: np.ndarray,
    rows: np.ndarray,
    patterns: np.ndarray,
    weights: np.ndarray,
    priors: np.ndarray,
    firsts: np.ndarray,
    best: np.ndarray,
    confidence: np.ndarray,
) -> None:
    """Fill `best` (column of the likeliest label) and `confidence` for the texts between consecutive `ends` in `text`."""
    counts = np.zeros(len(weights), dtype=np.int32)
    met = np.empty(len(weights), dtype=np.int64)
    scores = np.empty(len(priors), dtype=np.float32)
    for number in range(len(ends) - 1):
        state, different = 0, 0
        for place in range(ends[number], ends[number + 1]):
            state = moves[(np.int64(rows[state]) << 8) + text[place]]
            pattern = patterns[state]
            if pattern >= 0:
                if counts[pattern] == 0:
                    met[different] = pattern
                    different += 1
                counts[pattern] += 1
        scores[:] = priors * np.float32(different > 0)
        for pattern in met[:different]:
            much = np.float32(np.log1p(np.float32(counts[pattern])))
            counts[pattern] = 0
            row = weights[pattern]
            for column in range(len(scores)):
                scores[column] += much * row[column]
        heat = np.float32(1 / np.sqrt(max(ends[number + 1] - ends[number], 1)))
        scores[:] = np.exp((scores - scores.max()) * heat)
        total = scores.sum()
        for column in range(len(scores)):
            if firsts[column] != column:
                scores[firsts[column]] += scores[column]
                scores[column] = 0
        best[number] = scores.argmax()
        confidence[number] = scores[best[number]] / total
