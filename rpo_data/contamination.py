"""Overlap with evaluation sets: the same run of words, or nearly the same meaning.

Words: as in GPT-3's check, 13 words in a row that a row shares with an evaluation text, whatever their case and
punctuation; an evaluation text of 8 to 12 words has to be there whole, and one of fewer words is not looked for, since
such runs meet by chance. A character of a script that sets no blanks between words (Chinese, Japanese, Thai, ...) counts as
a word. Runs that more than `MAX_TEXTS` evaluation texts hold are their common template and do not count.

Meaning: the cosine of prompt and evaluation text is at least a score.

Source: Brown et al. 2020, "Language Models are Few-Shot Learners", appendix C (13-grams, at least 8 words, without case
and punctuation).
"""

import os
import unicodedata
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, NamedTuple

import numba
import numpy as np
import polars as pl

from rpo_data.errors import LogError
from rpo_data.utf8 import mix, utf8_bytes

NGRAM = 13
MIN_WORDS = 8
MAX_TEXTS = 10
"""A run that more evaluation texts than this hold is a template."""

TEXT_COLUMNS = (
    "prompt", "question", "instruction", "problem", "query", "text", "input", "messages", "conversation",
    "conversations", "turns",
)  # fmt: skip
"""Where an evaluation record keeps its text: the first of these that holds any. `input` is added to an instruction."""

_CHUNK = 2048
_BLOCK = 4096
_MARGIN = 1e-5
"""Float32 inner products of unit vectors are off by far less than this."""
_SEPARATOR, _WORD, _ALONE = 0, 1, 2
_UNSPACED = ("CJK ", "HIRAGANA ", "KATAKANA ", "THAI ", "LAO ", "KHMER ", "MYANMAR ", "TIBETAN ")


class Ngrams(NamedTuple):
    """The runs of words of evaluation texts, each once, as hashes.

    hashes   uint64 (G,), rising
    sizes    int64, which lengths of runs there are, rising
    gram     int64 (O,), number of a run, for each occurrence (a run in a text, once)
    text     int64 (O,), the text it occurs in; of equal texts only the first has any
    total    int64 (T,), different runs of each text; 0: too short, a repeat, or a template alone
    """

    hashes: np.ndarray
    sizes: np.ndarray
    gram: np.ndarray
    text: np.ndarray
    total: np.ndarray


def evaluation_texts(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """The text of each record of an evaluation set, as `TEXT_COLUMNS` says; of a dialogue the user turns, joined.

    Raises:
        LogError: a record has none of the columns, or nothing in them.

    >>> evaluation_texts([{"question": "Why?", "answer": "So."}, {"messages": [{"role": "user", "content": "Who?"}]}])
    ['Why?', 'Who?']
    """
    return [_record_text(number, record) for number, record in enumerate(records, 1)]


def index_ngrams(texts: pl.Series) -> Ngrams:
    """Collect the runs of words of evaluation texts: all of `NGRAM` words, or the whole text where it is shorter."""
    data, ends = utf8_bytes(texts)
    rows, hashes, sizes, whole = _collect(data, ends, *_alphabet())
    _, first = np.unique(whole, return_index=True)
    kept = np.isin(rows, first)
    known, gram = np.unique(hashes[kept], return_inverse=True)
    gram, text = np.divmod(np.unique(gram.astype(np.int64) * len(texts) + rows[kept]), max(len(texts), 1))
    rare = np.bincount(gram, minlength=len(known))[gram] <= MAX_TEXTS
    gram, text = gram[rare], text[rare]
    return Ngrams(known, np.unique(sizes), gram, text, np.bincount(text, minlength=len(texts)))


def ngram_overlap(texts: pl.Series, evaluation: Ngrams) -> pl.DataFrame:
    """Which evaluation text each text overlaps with most, and how much of it is there.

    Args:
        texts: prompts or responses; null counts as empty.
        evaluation: from `index_ngrams`.

    Returns:
        One row a text: evaluation (int64, number of the evaluation text, the first of equals, null where none overlaps)
        and share (float64 between 0 and 1, found runs of that text's different runs).
    """
    data, ends = utf8_bytes(texts)
    search = partial(_search, data, ends, *_alphabet(), evaluation.hashes, _bitmap(evaluation.hashes), evaluation.sizes)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(search, range(0, max(len(texts), 1), _CHUNK)))
    row, gram = np.divmod(np.unique(np.concatenate(found)), max(len(evaluation.hashes), 1))
    hit = pl.DataFrame({"row": row, "gram": gram})
    where = pl.DataFrame({"gram": evaluation.gram, "evaluation": evaluation.text})
    total = pl.DataFrame({"evaluation": np.arange(len(evaluation.total)), "total": evaluation.total})
    best = (
        hit.join(where, on="gram")
        .group_by("row", "evaluation")
        .len("found")
        .join(total, on="evaluation")
        .select("row", "evaluation", share=pl.col("found") / pl.col("total"))
        .sort(["row", "share", "evaluation"], descending=[False, True, False])
        .unique("row", keep="first", maintain_order=True)
    )
    rows = pl.DataFrame({"row": np.arange(len(texts))})
    joined = rows.join(best, on="row", how="left", maintain_order="left")
    return joined.select("evaluation", pl.col("share").fill_null(0.0))


def embedding_overlap(vectors: np.ndarray, evaluation: np.ndarray, score: float) -> tuple[np.ndarray, np.ndarray]:
    """The evaluation text nearest to each prompt, where it is at least this near.

    Args:
        vectors: of the prompts, unit length, shape (prompts, dimension), float32.
        evaluation: of the evaluation texts, by the same model, shape (texts, dimension), float32.
        score: cosine from which on they overlap.

    Returns:
        Number of the evaluation text, int64, -1 where none is that near, the first of equals; and the cosine, float32,
        summed in float64, 0 where none is that near. Both have shape (prompts,).
    """
    nearest = np.full(len(vectors), -1, dtype=np.int64)
    cosine = np.zeros(len(vectors), dtype=np.float32)
    for start in range(0, len(vectors), _BLOCK):
        block = vectors[start : start + _BLOCK]
        rows, texts = _near(block, evaluation, score)
        exact = np.einsum("ij,ij->i", block[rows].astype(np.float64), evaluation[texts].astype(np.float64))
        exact = np.clip(exact, -1.0, 1.0).astype(np.float32)
        keep = exact >= np.float32(score)
        rows, texts, exact = rows[keep], texts[keep], exact[keep]
        order = np.lexsort((texts, -exact, rows))
        first = order[np.unique(rows[order], return_index=True)[1]]
        nearest[start + rows[first]], cosine[start + rows[first]] = texts[first], exact[first]
    return nearest, cosine


def _near(block: np.ndarray, evaluation: np.ndarray, score: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows and evaluation texts that may be nearest: by float32, with a margin, so that none is missed."""
    best = np.full(len(block), score, dtype=np.float32)
    rows: list[np.ndarray] = [np.empty(0, dtype=np.int64)]
    texts: list[np.ndarray] = [np.empty(0, dtype=np.int64)]
    for start in range(0, len(evaluation), _BLOCK):
        scores = block @ evaluation[start : start + _BLOCK].T
        best = np.maximum(best, scores.max(axis=1))
        row, text = np.nonzero(scores >= best[:, None] - 2 * _MARGIN)
        rows.append(row)
        texts.append(text + start)
    return np.concatenate(rows), np.concatenate(texts)


def _record_text(number: int, record: Mapping[str, Any]) -> str:
    for column in TEXT_COLUMNS:
        text = _flatten(record.get(column))
        if column == "instruction" and text:
            text = "\n".join(filter(None, [text, _flatten(record.get("input"))]))
        if text:
            return text
    raise LogError(
        f"evaluation record {number} has a text in none of the columns {', '.join(TEXT_COLUMNS)}, only the columns "
        f"{', '.join(map(str, record)) or '(none)'}: rename the column that holds its text to prompt"
    )


def _flatten(value: Any) -> str:
    """A text, or the texts and user turns of a list."""
    if isinstance(value, str):
        return value.strip()
    if not isinstance(value, list):
        return ""
    turns = [
        turn.get("content", turn.get("value"))
        for turn in ({"role": "user", "content": turn} if isinstance(turn, str) else turn for turn in value)
        if isinstance(turn, Mapping) and turn.get("role", turn.get("from")) in ("user", "human")
    ]
    return "\n".join(turn.strip() for turn in turns if isinstance(turn, str) and turn.strip())


@cache
def _alphabet() -> tuple[np.ndarray, np.ndarray]:
    """For every code point what it is to a word, uint8, and its small letter, uint32."""
    kinds = np.zeros(0x110000, dtype=np.uint8)
    small = np.arange(0x110000, dtype=np.uint32)
    for code in range(0x110000):
        character = chr(code)
        if unicodedata.category(character)[0] in "LMN":
            alone = code > 0x7F and unicodedata.name(character, "").startswith(_UNSPACED)
            kinds[code] = _ALONE if alone else _WORD
            small[code] = ord(character.lower()[0])
    return kinds, small


def _bitmap(hashes: np.ndarray) -> np.ndarray:
    """Whether any hash begins with these bits, for 8 cells a hash or more, a power of two: most lookups end here."""
    bits = max(10, (8 * len(hashes)).bit_length())
    bitmap = np.zeros(1 << bits, dtype=np.bool_)
    bitmap[(hashes >> np.uint64(64 - bits)).astype(np.int64)] = True
    return bitmap


@numba.njit(cache=True, nogil=True)
def _hash_words(
    data: np.ndarray, start: int, stop: int, kinds: np.ndarray, small: np.ndarray, words: np.ndarray
) -> int:
    """Fill `words` with the hash of each word of the UTF-8 text data[start:stop]; gives their number."""
    count, place = 0, start
    word = np.uint64(0)
    while place < stop:
        byte = data[place]
        length = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
        code = np.int64(byte) if length == 1 else np.int64(byte) & (0x7F >> length)
        for step in range(1, length):
            code = (code << 6) | (np.int64(data[place + step]) & 0x3F)
        place += length
        kind = kinds[code]
        if kind != _WORD and word:
            words[count] = mix(word)
            count += 1
            word = np.uint64(0)
        if kind == _WORD:
            word = (word + np.uint64(small[code]) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
            word ^= word >> np.uint64(29)
        elif kind == _ALONE:
            words[count] = mix(np.uint64(small[code]))
            count += 1
    if word:
        words[count] = mix(word)
        count += 1
    return count


@numba.njit(cache=True, nogil=True)
def _hash_runs(words: np.ndarray, size: int, runs: np.ndarray) -> int:
    """Fill `runs` with the hash of each run of `size` words; gives their number."""
    base, power, value = np.uint64(0xD1342543DE82EF95), np.uint64(1), np.uint64(0)
    for _ in range(size):
        power *= base
    for place in range(len(words)):
        value = value * base + words[place]
        if place >= size:
            value -= power * words[place - size]
        if place >= size - 1:
            runs[place - size + 1] = mix(value + np.uint64(size))
    return max(len(words) - size + 1, 0)


@numba.njit(cache=True, nogil=True)
def _collect(
    data: np.ndarray, ends: np.ndarray, kinds: np.ndarray, small: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Row and hash of each run of the evaluation texts; the size of each text's runs; and a hash of each whole text."""
    longest = np.diff(ends).max() if len(ends) > 1 else 0
    words, runs = np.empty(longest + 1, dtype=np.uint64), np.empty(longest + 1, dtype=np.uint64)
    rows, hashes = np.empty(len(data) + 1, dtype=np.int64), np.empty(len(data) + 1, dtype=np.uint64)
    sizes, whole = np.zeros(len(ends) - 1, dtype=np.int64), np.zeros(len(ends) - 1, dtype=np.uint64)
    total = 0
    for row in range(len(ends) - 1):
        count = _hash_words(data, ends[row], ends[row + 1], kinds, small, words)
        if count < MIN_WORDS:
            continue
        sizes[row] = min(count, NGRAM)
        _hash_runs(words[:count], count, runs)
        whole[row] = runs[0]
        found = _hash_runs(words[:count], sizes[row], runs)
        rows[total : total + found] = row
        hashes[total : total + found] = runs[:found]
        total += found
    return rows[:total], hashes[:total], sizes[sizes > 0], whole


@numba.njit(cache=True, nogil=True)
def _search(
    data: np.ndarray,
    ends: np.ndarray,
    kinds: np.ndarray,
    small: np.ndarray,
    known: np.ndarray,
    bitmap: np.ndarray,
    sizes: np.ndarray,
    first: int,
) -> np.ndarray:
    """Each known run in the chunk of rows from `first` on, as row * len(known) + number of the run, int64."""
    last = min(first + _CHUNK, len(ends) - 1)
    longest = np.diff(ends[first : last + 1]).max() if last > first else 0
    words, runs = np.empty(longest + 1, dtype=np.uint64), np.empty(longest + 1, dtype=np.uint64)
    hits, total = np.empty(1024, dtype=np.int64), 0
    shift = np.uint64(64) - np.uint64(np.log2(len(bitmap)))
    for row in range(first, last):
        count = _hash_words(data, ends[row], ends[row + 1], kinds, small, words)
        for size in sizes:
            for run in runs[: _hash_runs(words[:count], size, runs)]:
                if bitmap[np.int64(run >> shift)]:
                    place = np.searchsorted(known, run)
                    if place < len(known) and known[place] == run:
                        if total == len(hits):
                            hits = np.concatenate((hits, np.empty_like(hits)))
                        hits[total] = row * len(known) + place
                        total += 1
    return hits[:total]
