"""Check rows before they are kept: each may stay, or has a code and a sentence that say why not."""

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

import polars as pl
import xxhash
from pandera.errors import SchemaErrors

from rpo_data.schemas.frames import CANDIDATES, MAX_CHARACTERS
from rpo_data.shapes import Message, Response, Row, is_judged

_SENTENCES = {
    "no_judgement": "the response has no label, score or rank: judge it or drop it",
    "prompts_differ": "chosen and rejected do not answer the same prompt: pair answers to one prompt",
    "empty_prompt": "the prompt is empty: drop the record",
    "empty_response": "{side} is empty: drop the record",
    "identical_responses": "chosen and rejected are the same text: drop the record",
    "not_a_number": "{column} is {value}: write null where a score is not known",
    "bad_weight": "the weight is {weight}: write a number above 0, or null",
    "too_long": f"a text has {{characters:,}} characters, more than the limit of {MAX_CHARACTERS:,}: cut or drop it",
    "roles_out_of_order": "{roles}: mend the roles, or --ignore this rule",
    "prompt_ends_with_assistant": "the prompt ends with an assistant turn: end it with a question, or --ignore this rule",
    "no_assistant_turn": "{other} does not end in an assistant turn: end it with the answer, or --ignore this rule",
    "control_characters": "a text holds the control character {control}: clean it, or --ignore this rule",
}

# C0 but blanks, DEL, two noncharacters; not C1, which real logs hold where quotes of Windows-1252 were decoded wrongly
_CONTROL = re.compile("[\x00-\x08\x0e-\x1b\x7f\ufffe\uffff]")
_ROLES = {"system", "developer", "user", "assistant", "tool", "function"}
_NUMBERS = ("score_chosen", "score_rejected", "strength", "score")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a row is left out: a code of schemas/rules.py and a sentence without the place."""

    code: str
    sentence: str


def check_batch(rows: list[Row], ignore: Iterable[str] = ()) -> list[Refusal | None]:
    """Check rows against schemas/frames.py; one verdict each, None where it may stay.

    Args:
        rows: what the readers gave.
        ignore: codes that are not applied.
    """
    if not rows:
        return []
    frame = pl.DataFrame([_measure(row) for row in rows])
    verdicts: list[Refusal | None] = [None] * len(rows)
    try:
        CANDIDATES.validate(frame, lazy=True)
    except SchemaErrors as errors:
        order = [code for code in _SENTENCES if code not in set(ignore)]
        failed = [case for case in errors.failure_cases.select("index", "check").rows() if case[1] in order]
        for index, code in sorted(failed, key=lambda case: order.index(case[1])):
            if verdicts[index] is None:
                verdicts[index] = Refusal(code, _sentence(code, rows[index]))
    return verdicts


def canonical_bytes(messages: list[Message]) -> bytes:
    """The one byte string that stands for a list of messages, whatever file they came from.

    Raises:
        UnicodeEncodeError: a text holds half of a surrogate pair.
    """
    return json.dumps(messages, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode("utf-8")


def row_ids(prompt: list[Message], chosen: list[Message], rejected: list[Message] | None) -> dict[str, str | None]:
    """Content hashes (xxh3-128, 32 hex digits) of a row, its prompt and its responses; outer blanks do not count.

    Args:
        prompt: messages.
        chosen: messages; for a response judged by itself, the completion.
        rejected: messages; None for a response judged by itself.

    Raises:
        UnicodeEncodeError: a text holds half of a surrogate pair.
    """
    hashes = [
        xxhash.xxh3_128_hexdigest(canonical_bytes(stripped(side)))
        for side in (prompt, chosen, rejected)
        if side is not None
    ]
    return {
        "pair_id": pair_id(hashes),
        "prompt_id": hashes[0],
        "chosen_id": hashes[1],
        "rejected_id": hashes[2] if rejected is not None else None,
    }


def pair_id(hashes: Sequence[str]) -> str:
    """The content hash of a row, out of those of its prompt and its responses."""
    return xxhash.xxh3_128_hexdigest("".join(hashes).encode())


def stripped(messages: list[Message]) -> list[Message]:
    """Messages without outer blanks: what identity is decided on."""
    return [m | {"content": (m.get("content") or "").strip()} for m in messages]


def sides(row: Row) -> list[list[Message]]:
    """The prompt and the one or two responses of a row."""
    return [row.prompt, row.completion] if isinstance(row, Response) else [row.prompt, row.chosen, row.rejected]


def flags(row: Row) -> list[str]:
    """What is odd about a row that may stay: `repeated_role` where two turns of one role follow each other."""
    repeated = any(
        a["role"] == b["role"] and a["role"] in ("user", "assistant")
        for side in sides(row)[1:]
        for a, b in pairwise([*row.prompt, *side])
    )
    return ["repeated_role"] if repeated else []


def _measure(row: Row) -> dict[str, Any]:
    prompt, *answers = sides(row)
    lengths = [_characters(answer) for answer in answers]
    return {
        "judged": not isinstance(row, Response) or is_judged(row),
        "prompts_equal": isinstance(row, Response) or row.prompts_equal,
        "prompt_characters": _characters(prompt),
        "shorter_response": min(lengths),
        "longer_response": max(lengths),
        "responses_differ": isinstance(row, Response) or row.tie or stripped(answers[0]) != stripped(answers[1]),
        "numbers_finite": all(math.isfinite(getattr(row, column, None) or 0) for column in _NUMBERS),
        "weight_positive": row.weight is None or 0 < row.weight < math.inf,
        "roles_in_order": not any(_disorder(prompt, answer) for answer in answers),
        "prompt_asks": not prompt or prompt[-1]["role"] != "assistant",
        "answers_last": all(answer and answer[-1]["role"] == "assistant" for answer in answers),
        "printable": not any(_CONTROL.search(m.get("content") or "") for side in (prompt, *answers) for m in side),
    }


def _characters(messages: list[Message]) -> int:
    """Characters of the messages, outer blanks not counted; a tool call counts, since it is an answer too."""
    return sum(len((m.get("content") or "").strip()) + len(str(m.get("tool_calls") or "")) for m in messages)


def _disorder(prompt: list[Message], answer: list[Message]) -> str:
    """What is wrong with the order of the roles; empty where nothing is.

    A system turn stands first, a user turn comes before the first assistant turn, a tool turn follows a tool call.
    """
    before = ""
    asked = False
    for place, message in enumerate([*prompt, *answer], start=1):
        role = message["role"]
        if role not in _ROLES:
            return f"turn {place} has the role '{role[:30]}', which is none of {', '.join(sorted(_ROLES))}"
        if role in ("system", "developer") and before not in ("", "system", "developer"):
            return f"turn {place} is a {role} turn in the middle of the conversation"
        if role in ("tool", "function") and before not in ("assistant", "tool", "function"):
            return f"turn {place} is a {role} turn that answers no assistant turn"
        if role == "assistant" and not asked:
            return f"turn {place} is an assistant turn before any user turn"
        before, asked = role, asked or role == "user"
    return ""


def _sentence(code: str, row: Row) -> str:
    prompt, *answers = sides(row)
    names = ["response"] if len(answers) == 1 else ["chosen", "rejected"]
    bad = next((c for c in _NUMBERS if not math.isfinite(getattr(row, c, None) or 0)), "")
    control = next((found for m in chain(prompt, *answers) if (found := _CONTROL.search(m.get("content") or ""))), None)
    return _SENTENCES[code].format(
        side=next((name for name, answer in zip(names, answers, strict=True) if not _characters(answer)), ""),
        other=next(
            (n for n, answer in zip(names, answers, strict=True) if not answer or answer[-1]["role"] != "assistant"), ""
        ),
        column=bad,
        value=getattr(row, bad, None),
        weight=row.weight,
        characters=max(map(_characters, (prompt, *answers))),
        roles=next(filter(None, (_disorder(prompt, answer) for answer in answers)), ""),
        control=f"U+{ord(control.group()):04X}" if control else "",
    )
