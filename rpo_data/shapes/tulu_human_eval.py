"""Human evaluation of Tulu: two completions, compared by one evaluator on five levels with ties.

Rules: human_eval/ of github.com/allenai/open-instruct: README, section "Tulu 1 Annotation Results", and
compute_metrics.py, which reads "a-is-better" as clearly better. `strength` is 2 for better, 1 for slightly better. One
item has a row for each `evaluator`. `completion_a_is_acceptable` and `completion_b_is_acceptable` judge each completion
by itself; they are not read here.
"""

from collections.abc import Mapping
from typing import Any

from rpo_data.shapes.base import Pair, Row, Shape, assistant, text, user
from rpo_data.shapes.scales import level, ordered, value_key

_LEADS = {"a-is-better": 2, "a-is-slightly-better": 1, "tie": 0, "b-is-slightly-better": -1, "b-is-better": -2}


def _claims(data: Mapping[str, Any]) -> bool:
    preference = data["preference"]
    return isinstance(data["prompt"], str) and (preference is None or value_key(preference) in _LEADS)


def _read(data: Mapping[str, Any]) -> list[Row]:
    lead = level(data, "preference", _LEADS)
    chosen, rejected = ordered(lead, text(data, "completion_a"), text(data, "completion_b"))
    return [
        Pair(
            prompt=[user(text(data, "prompt"))],
            chosen=[assistant(chosen)],
            rejected=[assistant(rejected)],
            tie=lead == 0,
            strength=abs(float(lead)),
            annotator=value_key(data.get("evaluator")) or None,
        )
    ]


SHAPE = Shape(
    name="tulu_human_eval",
    title="Tulu human evaluation",
    gives="pairs",
    source="https://github.com/allenai/open-instruct/tree/main/human_eval",
    needs=(("prompt", "completion_a", "completion_b", "preference"),),
    claims=_claims,
    read=_read,
)
