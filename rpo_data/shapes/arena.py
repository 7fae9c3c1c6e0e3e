"""Chatbot Arena: two models' conversations with one person, and which of them won.

Rules: dataset card of lmsys/chatbot_arena_conversations (`conversation_a`, `conversation_b`, `winner`, `turn`, `judge`;
the values of `winner` in fastchat/serve/monitor/clean_battle_data.py) and of lmsys/lmsys-arena-human-preference-55k
(`prompt`, `response_a`, `response_b` are JSON lists in a text, one entry a turn; one of `winner_model_a`,
`winner_model_b`, `winner_tie` is 1). A vote follows the last of `turn` turns, so later messages are left out. The
pair is the last answer of each side; where the sides part before it, `prompts_equal` is False and the prompt is the chosen
side's. Both kinds of tie are ties.
"""

import json
from collections.abc import Mapping
from typing import Any

from rpo_data.shapes.base import Message, Pair, Row, Shape, ShapeError, assistant, messages, required, text, user
from rpo_data.shapes.scales import level, ordered, value_key, whole

_LEADS = {"model_a": 1, "model_b": -1, "tie": 0, "tie (bothbad)": 0}
_FLAGS = {"winner_model_a": 1, "winner_model_b": -1, "winner_tie": 0}


def _claims(data: Mapping[str, Any]) -> bool:
    if "conversation_a" in data and "winner" in data:
        winner = data["winner"]
        return isinstance(data["conversation_a"], list) and (winner is None or value_key(winner) in _LEADS)
    return isinstance(data.get("prompt"), str)


def _read(data: Mapping[str, Any]) -> list[Row]:
    if "conversation_a" in data:
        lead, annotator = level(data, "winner", _LEADS), value_key(data.get("judge")) or None
        sides = _conversation(data, "conversation_a"), _conversation(data, "conversation_b")
    else:
        lead, annotator = _flagged(data), None
        prompts = _turns(data, "prompt")
        sides = _alternating(prompts, data, "response_a"), _alternating(prompts, data, "response_b")
    chosen, rejected = ordered(lead, *sides)
    return [
        Pair(
            prompt=chosen[:-1],
            chosen=chosen[-1:],
            rejected=rejected[-1:],
            tie=lead == 0,
            prompts_equal=chosen[:-1] == rejected[:-1],
            annotator=annotator,
        )
    ]


def _conversation(data: Mapping[str, Any], column: str) -> list[Message]:
    """The messages up to the answer that was voted on.

    Raises:
        ShapeError: there is no such answer.
    """
    conversation = messages(required(data, column), column)
    answers = [place for place, message in enumerate(conversation, start=1) if message["role"] == "assistant"]
    turn = whole(data.get("turn"))
    if data.get("turn") is None and answers and answers[-1] == len(conversation):
        return conversation
    if not turn or turn > len(answers):
        raise ShapeError(
            "wrong_type", f"'{column}' has {len(answers)} answers and none of them is known to be the last"
        )
    return conversation[: answers[turn - 1]]


def _flagged(data: Mapping[str, Any]) -> int:
    """What the one flag that is 1 says."""
    flags = {column: level(data, column, {"0": 0, "1": 1}) for column in _FLAGS}
    if sum(flags.values()) != 1:
        raise ShapeError("unknown_judgement", f"one of {', '.join(flags)} must be 1, here {sum(flags.values())} are")
    return next(lead for column, lead in _FLAGS.items() if flags[column])


def _turns(data: Mapping[str, Any], column: str) -> list[str]:
    """The texts of a JSON list.

    Raises:
        ShapeError: the text is no JSON list of texts.
    """
    try:
        turns = json.loads(text(data, column))
    except (ValueError, RecursionError):
        turns = None
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, str) for turn in turns):
        raise ShapeError("wrong_type", f"'{column}' is no JSON list of texts")
    return turns


def _alternating(prompts: list[str], data: Mapping[str, Any], column: str) -> list[Message]:
    answers = _turns(data, column)
    if len(answers) != len(prompts):
        raise ShapeError("wrong_type", f"'{column}' has {len(answers)} turns, where 'prompt' has {len(prompts)}")
    return [
        message
        for prompt, answer in zip(prompts, answers, strict=True)
        for message in (user(prompt), assistant(answer))
    ]


SHAPE = Shape(
    name="arena",
    title="Chatbot Arena",
    gives="pairs",
    source="https://huggingface.co/datasets/lmsys/chatbot_arena_conversations",
    needs=(
        ("conversation_a", "conversation_b", "winner"),
        ("prompt", "response_a", "response_b", *_FLAGS),
    ),
    claims=_claims,
    read=_read,
)
