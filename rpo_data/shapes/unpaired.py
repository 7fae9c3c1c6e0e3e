"""TRL "unpaired preference" rows: `prompt` and `completion` (two texts, or two lists of messages), `label` true or false.

Rules: TRL documentation, "Dataset formats and types", section "Unpaired preference". Axolotl's KTO types (docs/rlhf.qmd,
"KTO") add an optional `system` text; where they call the prompt otherwise, map it: `--columns prompt=question`.
"""

from collections.abc import Mapping
from typing import Any

from rpo_data.shapes.base import Response, Row, Shape, ShapeError, assistant, kind, required, user
from rpo_data.shapes.turns import as_boolean, behind, turns, with_system, yes_or_no


def _claims(data: Mapping[str, Any]) -> bool:
    prompt, completion = data["prompt"], data["completion"]
    same_kind = any(isinstance(prompt, form) and isinstance(completion, form) for form in (str, list))
    return same_kind and as_boolean(data["label"]) is not None


def _read(data: Mapping[str, Any]) -> list[Row]:
    prompt, completion = required(data, "prompt"), required(data, "completion")
    label = yes_or_no(data, "label")
    if isinstance(prompt, str) and isinstance(completion, str):
        return [Response(prompt=with_system([user(prompt)], data), completion=[assistant(completion)], label=label)]
    if isinstance(prompt, list) and isinstance(completion, list):
        asked = turns(prompt, "prompt")
        answered = behind(asked, turns(completion, "completion"), "completion")
        return [Response(prompt=with_system(asked, data), completion=answered, label=label)]
    raise ShapeError(
        "wrong_type",
        f"'prompt' is a {kind(prompt)} and 'completion' a {kind(completion)}, where two texts or two lists are needed",
    )


SHAPE = Shape(
    name="unpaired",
    title="TRL unpaired preference",
    gives="labelled",
    source="https://huggingface.co/docs/trl/dataset_formats#unpaired-preference",
    needs=(("prompt", "completion", "label"),),
    claims=_claims,
    read=_read,
)
