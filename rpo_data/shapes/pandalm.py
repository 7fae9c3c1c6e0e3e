"""PandaLM's human test set: two responses to an instruction with its input, judged by three annotators.

Rules: README of github.com/WeOpenML/PandaLM, section "Test data": "1" or "2" names the better response, "0" means similar
quality. The README's example calls the judgements `label_0` to `label_2`, the file data/testset-v1.json `annotator1` to
`annotator3`; each gives one row with its column as `annotator`. The prompt is the instruction and, where there is an
input, an empty line and the input.
"""

from collections.abc import Mapping
from typing import Any

from rpo_data.shapes.base import Pair, Row, Shape, ShapeError, assistant, text, user
from rpo_data.shapes.scales import is_empty, level, ordered

_LEADS = {"1": 1, "0": 0, "2": -1}
_ANNOTATORS = ("annotator1", "annotator2", "annotator3", "label_0", "label_1", "label_2")


def _claims(data: Mapping[str, Any]) -> bool:
    return isinstance(data["instruction"], str)


def _read(data: Mapping[str, Any]) -> list[Row]:
    instruction, context = text(data, "instruction"), text(data, "input")
    prompt = [user(f"{instruction}\n\n{context}" if context.strip() else instruction)]
    answers = assistant(text(data, "response1")), assistant(text(data, "response2"))
    leads = {name: level(data, name, _LEADS) for name in _ANNOTATORS if not is_empty(data.get(name))}
    if not leads:
        raise ShapeError("no_judgement", "holds no judgement: no annotator has judged")
    pairs = [(name, lead, *ordered(lead, *answers)) for name, lead in leads.items()]
    return [
        Pair(prompt=prompt, chosen=[chosen], rejected=[rejected], tie=lead == 0, annotator=name)
        for name, lead, chosen, rejected in pairs
    ]


SHAPE = Shape(
    name="pandalm",
    title="PandaLM test set",
    gives="pairs",
    source="https://github.com/WeOpenML/PandaLM#test-data",
    needs=tuple(("instruction", "input", "response1", "response2", first) for first in ("annotator1", "label_0")),
    claims=_claims,
    read=_read,
)
