"""A dataset's rows in forms that other trainers read: TRL's unpaired preferences, LLaMA-Factory's dialogues."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Features, Value

from rpo_data.schemas.tables import PAIRS, RESPONSES

_KEPT = ("pair_id", "prompt_id", "prompt", "weight", "annotator", "language", "source", "source_row")
UNPAIRED = Features({name: PAIRS[name] for name in _KEPT} | {"completion": PAIRS["chosen"], "label": Value("bool")})
"""Rows of TRL's "unpaired preference" type: as of `responses`, but with the id of the pair that a response is from."""

_MESSAGE = {"role": Value("string"), "content": Value("string")}
LLAMAFACTORY = {
    "paired": Features(
        {"pair_id": PAIRS["pair_id"], "messages": [_MESSAGE], "chosen": dict(_MESSAGE), "rejected": dict(_MESSAGE)}
    ),
    "unpaired": Features({"response_id": RESPONSES["response_id"], "messages": [_MESSAGE], "label": Value("bool")}),
}
"""Rows of LLaMA-Factory's sharegpt format by mode: `ranking` for pairs, `kto_tag` for liked and disliked responses."""


def unpaired_batch(pairs: pa.Table) -> pa.Table:
    """Two rows of each pair, the chosen response (label true) before the rejected one."""
    count = pairs.num_rows
    twice = pairs.select(list(_KEPT)).take(pa.array(np.arange(2 * count) // 2))
    sides = [pairs[name].combine_chunks() for name in ("chosen", "rejected")]
    in_turn = pa.array(np.arange(2 * count).reshape(2, count).T.ravel())
    completion = pa.concat_arrays(sides).take(in_turn)
    return twice.append_column("completion", completion).append_column("label", pa.array([True, False] * count))


def llamafactory_batch(rows: pa.Table) -> pa.Table:
    """The rows that LLaMA-Factory can read, in its form; those of other dialogues are left out.

    It wants an optional system message, then user and assistant in turn, one assistant message as each response, no call of a
    tool and a text in each message (its `SharegptDatasetConverter` skips other rows with a warning).

    Args:
        rows: of `pairs`, or of `responses` with labels.
    """
    paired = "chosen" in rows.column_names
    identity, sides = ("pair_id", ("chosen", "rejected")) if paired else ("response_id", ("completion",))
    features = LLAMAFACTORY["paired" if paired else "unpaired"]
    made = []
    names = [identity, "prompt", *sides, *([] if paired else ["label"])]
    for row in rows.select(names).to_pylist():
        prompt, answers = row["prompt"], [row[side] for side in sides]
        if not _in_turn(prompt) or not all(_one_answer(answer) for answer in answers):
            continue
        messages = [_plain(message) for message in prompt]
        if paired:
            made.append({identity: row[identity], "messages": messages} | {s: _plain(row[s][0]) for s in sides})
        else:
            messages.append(_plain(answers[0][0]))
            made.append({identity: row[identity], "messages": messages, "label": row["label"]})
    return pa.Table.from_pylist(made, schema=features.arrow_schema)


def dataset_info(repo: str, mode: str) -> dict[str, Any]:
    """LLaMA-Factory's dataset_info.json for the `llamafactory` table of a repository."""
    entry: dict[str, Any] = {"hf_hub_url": repo, "subset": "llamafactory", "split": "train", "formatting": "sharegpt"}
    if mode == "paired":
        entry["ranking"] = True
        columns = {"messages": "messages", "chosen": "chosen", "rejected": "rejected"}
    else:
        columns = {"messages": "messages", "kto_tag": "label"}
    tags = {
        "role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant",
        "system_tag": "system", "observation_tag": "observation", "function_tag": "function_call",
    }  # fmt: skip
    return {repo.partition("/")[2]: entry | {"columns": columns, "tags": tags}}


Message = Mapping[str, Any]


def _in_turn(prompt: Sequence[Message]) -> bool:
    turns = prompt[1:] if prompt and prompt[0]["role"] == "system" else prompt
    roles = [message["role"] for message in turns]
    return (
        len(roles) % 2 == 1
        and roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
        and all(map(_is_text, prompt))
    )


def _one_answer(answer: Sequence[Message]) -> bool:
    return len(answer) == 1 and answer[0]["role"] == "assistant" and _is_text(answer[0])


def _is_text(message: Message) -> bool:
    return message["content"] is not None and message["tool_calls"] is None


def _plain(message: Message) -> dict[str, Any]:
    return {"role": message["role"], "content": message["content"]}
