"""What several shapes share: turns written as from/value or role/content, verdicts of yes or no, the last answer.

Roles: LLaMA-Factory, data/README.md, "tags" (human, gpt, observation, function_call, system); Axolotl,
prompt_strategies/chat_template.py (human or user, gpt or assistant, system, tool); OpenAI chat messages (developer is the
newer name of system).
"""

import json
from collections.abc import Mapping
from typing import Any

from rpo_data.shapes.base import Message, ShapeError, assistant, kind, required

ROLES = {
    "system": "system", "developer": "system",
    "human": "user", "user": "user",
    "gpt": "assistant", "assistant": "assistant", "function_call": "assistant",
    "observation": "tool", "tool": "tool",
}  # fmt: skip


def turns(value: Any, column: str) -> list[Message]:
    """A list of turns as messages; a turn has `from` and `value`, or `role` and `content`.

    A `function_call` turn, whose text is JSON with a name and arguments, becomes an assistant message with `tool_calls`.

    >>> turns([{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}], "conversations")
    [{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Hello'}]

    Raises:
        ShapeError: it is no list of turns, or a role is not known.
    """
    if not isinstance(value, list):
        raise ShapeError("wrong_type", f"'{column}' is a {kind(value)}, where a list of turns is needed")
    return [_message(turn, place, column) for place, turn in enumerate(value, start=1)]


def answer(value: Any, column: str) -> list[Message]:
    """One side of a comparison: a text, one turn, or a list of turns.

    Raises:
        ShapeError: it is none of these.
    """
    if isinstance(value, str):
        return [assistant(value)]
    return turns([value] if isinstance(value, dict) else value, column)


def _message(turn: Any, place: int, column: str) -> Message:
    if not isinstance(turn, dict):
        raise ShapeError("wrong_type", f"turn {place} of '{column}' is a {kind(turn)}, where an object is needed")
    role, content, calls = turn.get("from"), turn.get("value"), turn.get("tool_calls")
    if role is None:
        role = turn.get("role")
    if content is None:
        content = turn.get("content")
    usual = ROLES.get(role) if isinstance(role, str) else None
    if usual is None:
        what = "no role" if role is None else f"the role {shown(role)}, which is not known"
        raise ShapeError("wrong_type", f"turn {place} of '{column}' has {what}")
    if role == "function_call" and not calls and isinstance(content, str):
        calls, content = _tool_calls(content, column), None
    message: Message = {"role": usual}
    if content is not None or not calls:
        if not isinstance(content, str):
            raise ShapeError("wrong_type", f"turn {place} of '{column}' has a {kind(content)} as content")
        message["content"] = content
    if calls:
        message["tool_calls"] = calls
    for key in ("name", "tool_call_id"):
        value = turn.get(key)
        if isinstance(value, str):
            message[key] = value
        elif value is not None:
            raise ShapeError("wrong_type", f"turn {place} of '{column}' has a {kind(value)} as '{key}'")
    return message


def _tool_calls(content: str, column: str) -> list[dict[str, Any]]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        value = None
    calls = value if isinstance(value, list) else [value]
    if not calls or not all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in calls):
        raise ShapeError("wrong_type", f"a function call of '{column}' is no JSON object with a name and arguments")
    return [
        {"type": "function", "function": {"name": call["name"], "arguments": call.get("arguments")}} for call in calls
    ]


def behind(prompt: list[Message], side: list[Message], column: str) -> list[Message]:
    """The answer of a side, without the prompt's turns where it repeats them.

    Raises:
        ShapeError: what is left does not start with an assistant message.
    """
    if prompt and side[: len(prompt)] == prompt:
        side = side[len(prompt) :]
    if not side or side[0]["role"] != "assistant":
        what = f"has a {side[0]['role']} message" if side else "has nothing"
        raise ShapeError("wrong_type", f"'{column}' {what} where the answer should begin")
    return side


def last_answer(conversation: list[Message], column: str) -> tuple[list[Message], list[Message]]:
    """A conversation as its prompt and its last message, the answer that is judged.

    Raises:
        ShapeError: the last message is not an assistant's.
    """
    if not conversation or conversation[-1]["role"] != "assistant":
        raise ShapeError("wrong_type", f"'{column}' does not end with an assistant message")
    return conversation[:-1], conversation[-1:]


def with_system(prompt: list[Message], data: Mapping[str, Any]) -> list[Message]:
    """A prompt with the text of the `system` column in front; a system message that is there already wins.

    Raises:
        ShapeError: the column holds no text.
    """
    system = optional_text(data, "system")
    if system is None or not system.strip() or (prompt and prompt[0]["role"] == "system"):
        return prompt
    return [{"role": "system", "content": system}, *prompt]


def optional_text(data: Mapping[str, Any], column: str) -> str | None:
    """The text of a column; None where it is not there, null, or NaN (how tables write null).

    Raises:
        ShapeError: it is no text.
    """
    value = data.get(column)
    if value is None or (isinstance(value, float) and value != value):
        return None
    if not isinstance(value, str):
        raise ShapeError("wrong_type", f"'{column}' is a {kind(value)}, where a text is needed")
    return value


def yes_or_no(data: Mapping[str, Any], column: str) -> bool:
    """The boolean of a column; a CSV file writes it as text.

    Raises:
        ShapeError: it is not there, null, or anything else (0 and 1 may as well be class numbers or stars).
    """
    if column in data and data[column] is None:
        raise ShapeError("no_judgement", f"'{column}' is null")
    verdict = as_boolean(required(data, column))
    if verdict is None:
        raise ShapeError("unknown_judgement", f"'{column}' is {shown(data[column])}, where true or false is needed")
    return verdict


def as_boolean(value: Any) -> bool | None:
    """True, False and their names as text; None for all else.

    >>> as_boolean("False"), as_boolean(1)
    (False, None)
    """
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}.get(value.strip().lower()) if isinstance(value, str) else None


def shown(value: Any) -> str:
    """A value as a message shows it: short, whatever it is."""
    if isinstance(value, str):
        return repr(value[:40])
    is_short = isinstance(value, float) or (isinstance(value, int) and abs(value) < 10**15)
    return repr(value) if is_short else f"a {kind(value)}"
