"""Chat messages to the text and the tokens that a model reads: by its chat template, or as plain text where it has none."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Messages = Sequence[Mapping[str, Any]]

_SPEAKERS = {"user": "Human", "assistant": "Assistant"}


def chat_text(tokenizer: "PreTrainedTokenizerBase", messages: Messages, answered: bool) -> str:
    """A dialogue as the tokenizer's model reads it, with the opening of an answer where it is not `answered` yet.

    Keys without a value never reach the template; what the template raises is not caught.
    """
    known = [{key: value for key, value in message.items() if value is not None} for message in messages]
    if tokenizer.chat_template:
        return tokenizer.apply_chat_template(known, tokenize=False, add_generation_prompt=not answered)
    return plain_text(known) + ("" if answered else "\n\nAssistant:")


def plain_text(messages: Messages) -> str:
    r"""Render a dialogue for a tokenizer without chat template, as HH-RLHF does.

    >>> plain_text([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}])
    '\n\nHuman: Hi\n\nAssistant: Hello'
    """
    return "".join(
        f"\n\n{_SPEAKERS.get(m['role'], m['role'].capitalize())}: {m.get('content') or ''}"
        + (json.dumps(m["tool_calls"]) if m.get("tool_calls") else "")
        for m in messages
    )


def chat_tokens(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], answered: bool) -> list[list[int]]:
    """Token ids of what `chat_text` gave. A template writes its special tokens itself; plain text gets those it needs."""
    if not texts:
        return []
    ids = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    if tokenizer.chat_template:
        return ids
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    start = [bos] if bos is not None and bos in tokenizer("")["input_ids"] else []
    end = [eos] if answered and eos is not None else []
    return [start + row + end for row in ids]


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens two sequences share from the start.

    >>> common_prefix([1, 2, 3, 4], [1, 2, 5])
    2
    """
    places = enumerate(zip(left, right, strict=False))
    return next((place for place, (one, other) in places if one != other), min(len(left), len(right)))
