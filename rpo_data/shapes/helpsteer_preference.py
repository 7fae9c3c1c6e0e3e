"""HelpSteer2-Preference and HelpSteer3: two responses, compared by people from -3 (first much better) to 3.

Rules: dataset cards of nvidia/HelpSteer2, section "Preferences", and nvidia/HelpSteer3. HelpSteer2 has `prompt`,
`response_1`, `response_2`, `preference_strength`; HelpSteer3 has `context` (messages, or the one user message as a text),
`response1`, `response2`, `overall_preference`. The single annotators' votes (`all_preferences_unprocessed`,
`individual_preference`) stay out: the card takes the overall value from the most similar of them, so that outliers do
not count, and NeMo-RL, the publisher's trainer, reads the overall value alone. In HelpSteer3 `language` is a
programming language where `domain` is "code"; it is carried as it stands.
"""

from collections.abc import Mapping
from typing import Any

from rpo_data.shapes.base import Message, Pair, Row, Shape, assistant, messages, required, text, user
from rpo_data.shapes.helpsteer import split_turns
from rpo_data.shapes.scales import level, ordered

_LEADS = {str(value): -value for value in range(-3, 4)}


def _claims(data: Mapping[str, Any]) -> bool:
    if "context" in data and "overall_preference" in data:
        return isinstance(data["context"], (list, str))
    return isinstance(data.get("prompt"), str)


def _read(data: Mapping[str, Any]) -> list[Row]:
    if "overall_preference" in data:
        return [_pair(data, _context(data), "response1", "response2", "overall_preference")]
    return [_pair(data, split_turns(text(data, "prompt")), "response_1", "response_2", "preference_strength")]


def _context(data: Mapping[str, Any]) -> list[Message]:
    context = required(data, "context")
    return [user(context)] if isinstance(context, str) else messages(context, "context")


def _pair(data: Mapping[str, Any], prompt: list[Message], first: str, second: str, judgement: str) -> Pair:
    lead = level(data, judgement, _LEADS)
    chosen, rejected = ordered(lead, text(data, first), text(data, second))
    return Pair(
        prompt=prompt,
        chosen=[assistant(chosen)],
        rejected=[assistant(rejected)],
        tie=lead == 0,
        strength=abs(float(lead)),
    )


SHAPE = Shape(
    name="helpsteer_preference",
    title="HelpSteer2-Preference, HelpSteer3",
    gives="pairs",
    source="https://huggingface.co/datasets/nvidia/HelpSteer3",
    needs=(
        ("prompt", "response_1", "response_2", "preference_strength"),
        ("context", "response1", "response2", "overall_preference"),
    ),
    claims=_claims,
    read=_read,
)
