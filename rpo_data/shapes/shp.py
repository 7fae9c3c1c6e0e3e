"""Stanford Human Preferences (SHP, SHP-2): two comments on one post, the preferred one by what readers voted.

Rules: dataset card of stanfordnlp/SHP, section "Data Structure": `history` is the post, `labels` is 1 where
`human_ref_A` is preferred and 0 where `human_ref_B` is; `score_A` and `score_B` are the votes of each, `score_ratio` how
many times as many the preferred one has (kept as `strength`). There are no ties.
"""

from collections.abc import Mapping
from typing import Any

from rpo_data.shapes.base import Pair, Row, Shape, assistant, number, text, user
from rpo_data.shapes.scales import level, ordered

_LEADS = {"1": 1, "0": -1}


def _claims(data: Mapping[str, Any]) -> bool:
    return isinstance(data["history"], str)


def _read(data: Mapping[str, Any]) -> list[Row]:
    lead = level(data, "labels", _LEADS)
    chosen, rejected = ordered(lead, text(data, "human_ref_A"), text(data, "human_ref_B"))
    score_chosen, score_rejected = ordered(lead, number(data, "score_A"), number(data, "score_B"))
    return [
        Pair(
            prompt=[user(text(data, "history"))],
            chosen=[assistant(chosen)],
            rejected=[assistant(rejected)],
            score_chosen=score_chosen,
            score_rejected=score_rejected,
            strength=number(data, "score_ratio"),
        )
    ]


SHAPE = Shape(
    name="shp",
    title="Stanford Human Preferences (SHP, SHP-2)",
    gives="pairs",
    source="https://huggingface.co/datasets/stanfordnlp/SHP",
    needs=(("history", "human_ref_A", "human_ref_B", "labels"),),
    claims=_claims,
    read=_read,
)
