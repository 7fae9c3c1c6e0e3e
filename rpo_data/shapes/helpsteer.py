r"""HelpSteer and HelpSteer2: one response, rated by people for helpfulness and four more attributes, 0 to 4.

Rules: dataset cards of nvidia/HelpSteer and nvidia/HelpSteer2. Turns of a longer dialogue are parted by
"\n<extra_id_1>Assistant\n" and "\n<extra_id_1>User\n". The score is `helpfulness`, whose difference the card of
HelpSteer2 recommends for comparisons; `--columns helpfulness=correctness` takes another attribute. In the part
`disagreements` each attribute is a list, one entry an annotator; the card names none, so they are numbered.
"""

import re
from collections.abc import Mapping
from typing import Any

from rpo_data.shapes.base import Message, Response, Row, Shape, ShapeError, assistant, text, user
from rpo_data.shapes.scales import score

_MARKER = re.compile(r"\n<extra_id_1>(User|Assistant)\n")
_ROLES = {"User": "user", "Assistant": "assistant"}


def split_turns(prompt: str) -> list[Message]:
    r"""The turns of a HelpSteer prompt.

    >>> split_turns("Hi\n<extra_id_1>Assistant\nHello\n<extra_id_1>User\nBye")[1:]
    [{'role': 'assistant', 'content': 'Hello'}, {'role': 'user', 'content': 'Bye'}]
    """
    parts = _MARKER.split(prompt)
    later = [{"role": _ROLES[role], "content": content} for role, content in zip(parts[1::2], parts[2::2], strict=True)]
    return [user(parts[0]), *later]


def _claims(data: Mapping[str, Any]) -> bool:
    return all(isinstance(data[column], str) for column in ("prompt", "response"))


def _read(data: Mapping[str, Any]) -> list[Row]:
    prompt, response = split_turns(text(data, "prompt")), assistant(text(data, "response"))
    rating = data.get("helpfulness")
    if not isinstance(rating, list):
        return [Response(prompt=prompt, completion=[response], score=score(data, "helpfulness"))]
    if not rating:
        raise ShapeError("no_judgement", "holds no judgement: 'helpfulness' is an empty list")
    return [
        Response(
            prompt=prompt,
            completion=[response],
            score=score({"helpfulness": entry}, "helpfulness"),
            annotator=f"annotator{place}",
        )
        for place, entry in enumerate(rating, start=1)
    ]


SHAPE = Shape(
    name="helpsteer",
    title="HelpSteer, HelpSteer2",
    gives="scored",
    source="https://huggingface.co/datasets/nvidia/HelpSteer2",
    needs=(("prompt", "response", "helpfulness"),),
    claims=_claims,
    read=_read,
)
