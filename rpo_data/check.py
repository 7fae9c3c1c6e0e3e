"""Check candidate pairs: each becomes a row of the pairs table, or a code and a sentence that say why not."""

import json
import math
from dataclasses import dataclass
from typing import Any

import polars as pl
import xxhash
from pandera.errors import SchemaErrors

from rpo_data.schemas.frames import CANDIDATES, MAX_CHARACTERS
from rpo_data.shapes import Candidate, Message

_SENTENCES = {
    "prompts_differ": "chosen and rejected do not answer the same prompt: pair answers to one prompt",
    "empty_prompt": "the prompt is empty: drop the record",
    "empty_response": "{side} is empty: drop the record",
    "identical_responses": "chosen and rejected are the same text: drop the record",
    "not_a_number": "{column} is {value}: write null where a score is not known",
    "too_long": f"a text has {{characters:,}} characters, more than the limit of {MAX_CHARACTERS:,}: cut or drop it",
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a candidate is left out: a code of schemas/reasons.py and a sentence without the place."""

    code: str
    sentence: str


def check_batch(candidates: list[Candidate]) -> list[Refusal | None]:
    """Check candidates against schemas/frames.py; one verdict each, None where it may stay."""
    if not candidates:
        return []
    frame = pl.DataFrame([_measure(c) for c in candidates])
    verdicts: list[Refusal | None] = [None] * len(candidates)
    try:
        CANDIDATES.validate(frame, lazy=True)
    except SchemaErrors as errors:
        order = list(_SENTENCES)
        failed = errors.failure_cases.select("index", "check").rows()
        for index, code in sorted(failed, key=lambda case: order.index(case[1])):
            if verdicts[index] is None:
                verdicts[index] = Refusal(code, _sentence(code, candidates[index]))
    return verdicts


def canonical_bytes(messages: list[Message]) -> bytes:
    """The one byte string that stands for a list of messages, whatever file they came from.

    Raises:
        UnicodeEncodeError: a text holds half of a surrogate pair.
    """
    return json.dumps(messages, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode("utf-8")


def row_ids(candidate: Candidate) -> dict[str, str]:
    """Content hashes (xxh3-128, 32 hex digits) of the pair, its prompt and its two responses; outer blanks do not count.

    Raises:
        UnicodeEncodeError: a text holds half of a surrogate pair.
    """
    messages = map(_stripped, (candidate.prompt, candidate.chosen, candidate.rejected))
    prompt, chosen, rejected = map(canonical_bytes, messages)
    return {
        "pair_id": xxhash.xxh3_128_hexdigest(b"\n".join((prompt, chosen, rejected))),
        "prompt_id": xxhash.xxh3_128_hexdigest(prompt),
        "chosen_id": xxhash.xxh3_128_hexdigest(chosen),
        "rejected_id": xxhash.xxh3_128_hexdigest(rejected),
    }


def _measure(candidate: Candidate) -> dict[str, Any]:
    chosen, rejected = _characters(candidate.chosen), _characters(candidate.rejected)
    scores = (candidate.extras.get(column) for column in ("score_chosen", "score_rejected"))
    return {
        "prompts_equal": candidate.prompts_equal,
        "prompt_characters": _characters(candidate.prompt),
        "shorter_response": min(chosen, rejected),
        "longer_response": max(chosen, rejected),
        "responses_differ": _stripped(candidate.chosen) != _stripped(candidate.rejected),
        "numbers_finite": all(score is None or math.isfinite(score) for score in scores),
    }


def _characters(messages: list[Message]) -> int:
    """Characters of the messages, outer blanks not counted; a tool call counts, since it is an answer too."""
    return sum(len((m.get("content") or "").strip()) + len(str(m.get("tool_calls") or "")) for m in messages)


def _stripped(messages: list[Message]) -> list[Message]:
    return [m | {"content": (m.get("content") or "").strip()} for m in messages]


def _sentence(code: str, candidate: Candidate) -> str:
    column = next(
        (c for c in ("score_chosen", "score_rejected") if not math.isfinite(candidate.extras.get(c) or 0)), ""
    )
    longest = max(map(_characters, (candidate.prompt, candidate.chosen, candidate.rejected)))
    return _SENTENCES[code].format(
        side="rejected" if _characters(candidate.chosen) else "chosen",
        column=column,
        value=candidate.extras.get(column),
        characters=longest,
    )
