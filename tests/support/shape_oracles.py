"""What a record says, told a second time and in other words: which text won, which label, score or rank a text has.

`agrees(name, record, row)` is the oracle of the damage test. It is written from the publishers' documentation, knows
nothing of how a reader works, and says nothing about records that a reader refuses.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any


def agrees(name: str, record: dict[str, Any], row: Any) -> bool:
    """True where the row's judgement is the record's, and all its texts stand in the record."""
    if name in JUDGED:
        first, second, lead = JUDGED[name](record, row)
        better, worse = (second, first) if lead < 0 else (first, second)
        judged = row.tie == (lead == 0) and _within(row.chosen, better) and _within(row.rejected, worse)
    else:
        judged = RATED[name](record, row)
    return judged and all(_stands(message.get("content"), record) for message in row.prompt)


def texts(value: Any) -> Iterator[str]:
    """Every text inside a value, and every text of a list that is written as JSON."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
            if value.startswith("["):
                waiting += _parsed(value)
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every object inside a value."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _parsed(text: str) -> list[Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return []
    return [part for part in found if isinstance(part, str)] if isinstance(found, list) else []


def _within(messages: list[dict[str, Any]], value: Any) -> bool:
    """Every text of the messages is (a part of) a text of the value."""
    there = list(texts(value))
    return all(
        any(message["content"] in text for text in there) for message in messages if message.get("content") is not None
    )


def _stands(content: str | None, record: dict[str, Any]) -> bool:
    """A prompt's text stands in the record, as it is, or as two texts with one or two line breaks between them."""
    there = list(texts(record))
    if content is None or any(content in text for text in there):
        return True
    if content.endswith(("TL;DR:", "TL;DR:\n")):
        info = record["info"]
        parts = ("article",) if info.get("article") is not None else ("subreddit", "title", "post")
        return all(info[part] in content for part in parts)
    whole = set(there)
    breaks = [(place, sep) for sep in ("\n\n", "\n") for place in range(len(content)) if content.startswith(sep, place)]
    return any({content[:place], content[place + len(sep) :]} <= whole for place, sep in breaks)


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _is(value: Any, wanted: float) -> bool:
    return _number(value) == wanted


def _true(value: Any) -> bool:
    return value is True or (isinstance(value, str) and value.strip().lower() == "true")


# -- shapes that compare two answers: (first, second, lead); lead is above 0 where the first is better, 0 in a tie -------


def _columns(better: str, worse: str) -> Callable[[dict, Any], tuple[Any, Any, int]]:
    return lambda record, row: (record[better], record[worse], 1)


def _axolotl(record: dict, row: Any) -> tuple[Any, Any, int]:
    sides = ("chosen", "rejected") if "chosen" in record else ("chosen_response", "rejected_response")
    return record[sides[0]], record[sides[1]], 0 if record.get("status") == "tie" else 1


def _binarized(record: dict, row: Any) -> tuple[Any, Any, int]:
    if "chosen_response" in record:
        names = ("chosen_response", "rejected_response", "chosen_avg_rating", "rejected_avg_rating")
    elif "score_chosen" in record or "chosen-rating" not in record:
        names = ("chosen", "rejected", "score_chosen", "score_rejected")
    else:
        names = ("chosen", "rejected", "chosen-rating", "rejected-rating")
    better, worse, high, low = (record.get(name) for name in names)
    tie = _number(high) is not None and _number(high) == _number(low)
    return better, worse, 0 if tie else 1


def _arena(record: dict, row: Any) -> tuple[Any, Any, int]:
    if "conversation_a" in record:
        winner = record["winner"].strip()
        lead = {"model_a": 1, "model_b": -1}.get(winner, 0)
        return record["conversation_a"], record["conversation_b"], lead
    lead = 1 if _is(record["winner_model_a"], 1) else -1 if _is(record["winner_model_b"], 1) else 0
    return record["response_a"], record["response_b"], lead


def _helpsteer_preference(record: dict, row: Any) -> tuple[Any, Any, float]:
    third = "overall_preference" in record
    names = ("response1", "response2") if third else ("response_1", "response_2")
    preference = _number(record["overall_preference" if third else "preference_strength"])
    assert preference is not None
    return record[names[0]], record[names[1]], -preference


def _pandalm(record: dict, row: Any) -> tuple[Any, Any, int]:
    verdict = record[row.annotator]
    return record["response1"], record["response2"], 1 if _is(verdict, 1) else -1 if _is(verdict, 2) else 0


def _tulu(record: dict, row: Any) -> tuple[Any, Any, int]:
    side = record["preference"].strip()[0]
    return record["completion_a"], record["completion_b"], {"a": 1, "b": -1}.get(side, 0)


def _summarize(record: dict, row: Any) -> tuple[Any, Any, int]:
    first, second = record["summaries"]
    return first["text"], second["text"], 1 if _is(record["choice"], 0) else -1


def _swift(record: dict, row: Any) -> tuple[Any, Any, int]:
    return record["messages"][-1], record["rejected_response"], 1


JUDGED: dict[str, Callable[[dict, Any], tuple[Any, Any, float]]] = {
    "hh": _columns("chosen", "rejected"),
    "preference": _columns("chosen", "rejected"),
    "openai": _columns("preferred_output", "non_preferred_output"),
    "sharegpt": _columns("chosen", "rejected"),
    "alpaca": _columns("chosen", "rejected"),
    "axolotl": _axolotl,
    "swift": _swift,
    "ultrafeedback_binarized": _binarized,
    "helpsteer_preference": _helpsteer_preference,
    "shp": lambda r, row: (r["human_ref_A"], r["human_ref_B"], 1 if _is(r["labels"], 1) else -1),
    "safe_rlhf": lambda r, row: (r["response_0"], r["response_1"], 1 if _is(r["better_response_id"], 0) else -1),
    "arena": _arena,
    "webgpt": lambda r, row: (r["answer_0"], r["answer_1"], _number(r["score_0"]) - _number(r["score_1"])),
    "summarize": _summarize,
    "tulu_human_eval": _tulu,
    "pandalm": _pandalm,
    "llmbar": lambda r, row: (r["output_1"], r["output_2"], 1 if _is(r["label"], 1) else -1),
}

# -- shapes that judge answers one by one ---------------------------------------------------------------------------------

_UP = ("true", "thumbs_up", "like", "positive", "good")
_DOWN = ("false", "thumbs_down", "dislike", "negative", "bad")


def _answer(row: Any) -> Any:
    return row.completion[-1].get("content")


def _unpaired(record: dict, row: Any) -> bool:
    return row.label is _true(record["label"]) and _within(row.completion, record["completion"])


def _kto(record: dict, row: Any) -> bool:
    conversation = next((record[name] for name in ("conversations", "messages") if record.get(name) is not None), None)
    return row.label is _true(record["kto_tag"]) and _within(
        row.completion, record["output"] if conversation is None else conversation[-1]
    )


def _thumbs(record: dict, row: Any) -> bool:
    votes = []
    for column in ("label", "liked", "rating", "feedback"):
        said = str(record[column]).strip().lower() if isinstance(record.get(column), (bool, str)) else None
        number = _number(record.get(column)) if column == "feedback" else None
        votes += [True] * (said in _UP or number == 1) + [False] * (said in _DOWN or number == -1)
    return {row.label} == set(votes) and _within(row.completion, record["messages"][-1])


def _open_webui(record: dict, row: Any) -> bool:
    rated = record["snapshot"]["chat"]["chat"]["history"]["messages"][record["meta"]["message_id"]]
    return row.label is _is(record["data"]["rating"], 1) and _within(row.completion, rated)


def _ultrafeedback(record: dict, row: Any) -> bool:
    return any(c.get("response") == _answer(row) and row.score == _mean(c) for c in record["completions"])


def _mean(completion: dict) -> float | None:
    if _number(completion.get("fine-grained_score")) is not None:
        return _number(completion["fine-grained_score"])
    ratings = [_number(aspect.get("Rating")) for aspect in (completion.get("annotations") or {}).values()]
    numbers = [rating for rating in ratings if rating is not None]
    return sum(numbers) / len(numbers) if numbers else None


def _helpsteer(record: dict, row: Any) -> bool:
    rated = record["helpfulness"]
    scores = [_number(score) for score in rated] if isinstance(rated, list) else [_number(rated)]
    place = int(row.annotator.removeprefix("annotator")) - 1 if isinstance(rated, list) else 0
    return _answer(row) == record["response"] and row.score == scores[place]


def _open_assistant(record: dict, row: Any) -> bool:
    place = None if row.rank is None else row.rank - 1
    return any(
        node.get("text") == _answer(row) and _number(node.get("rank")) == place for node in objects(record["prompt"])
    )


RATED: dict[str, Callable[[dict, Any], bool]] = {
    "unpaired": _unpaired,
    "kto": _kto,
    "thumbs": _thumbs,
    "open_webui": _open_webui,
    "alpaca_ranking": lambda r, row: r["output"][row.rank - 1] == _answer(row),
    "ultrafeedback": _ultrafeedback,
    "helpsteer": _helpsteer,
    "nectar": lambda r, row: any(a["answer"] == _answer(row) and _is(a.get("rank"), row.rank) for a in r["answers"]),
    "open_assistant": _open_assistant,
    "summarize_axis": lambda r, row: (
        r["summary"]["text"] == _answer(row) and row.score == _number(r["summary"]["axes"]["overall"])
    ),
}
