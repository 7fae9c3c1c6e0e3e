"""Pairs that truncation makes equal: chosen and rejected part only behind `max_length`, so a trainer sees no difference.

What is compared is what TRL 1.16's DPO trainer reads with its default `truncation_mode="keep_start"`: prompt + chosen and
prompt + rejected through the chat template, each cut to its first `max_length` tokens; and it drops pairs whose prompt
alone fills them. A tokenizer without a template gets the dialogue as plain text, as this package's trainer gives it.

Source: trl/trainer/dpo_trainer.py (`_prepare_dataset`, `DataCollatorForPreference`); rlhf-book issues 503 and 504.
"""

import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rpo_data.chat import Messages, chat_text, chat_tokens, common_prefix
from rpo_data.errors import LogError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BATCH = 1000


class Collapsed(NamedTuple):
    """What truncation does to each pair, bool (pairs,).

    identical      the first max_length tokens of prompt + chosen and of prompt + rejected are the same
    prompt_fills   of these, the prompt alone has max_length tokens or more
    """

    identical: np.ndarray
    prompt_fills: np.ndarray


def collapsed_pairs(
    prompts: Sequence[Messages],
    chosen: Sequence[Messages],
    rejected: Sequence[Messages],
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
) -> Collapsed:
    """Find the pairs of which nothing that differs is left after truncation.

    Args:
        prompts: messages of each pair, oldest first.
        chosen: messages of the preferred answer, equally long.
        rejected: messages of the other answer, equally long.
        tokenizer: its chat template is used where it has one.
        max_length: tokens that are kept, from the start.

    Raises:
        LogError: the chat template refuses a pair.
    """
    identical, fills = np.zeros(len(prompts), dtype=bool), np.zeros(len(prompts), dtype=bool)
    head = _safe_head(tokenizer, max_length)
    for start in range(0, len(prompts), _BATCH):
        pairs = []
        for n in range(start, min(start + _BATCH, len(prompts))):
            left, right = (_render(tokenizer, n, [*prompts[n], *answer[n]], True) for answer in (chosen, rejected))
            if not _part_early(left, right, head):
                pairs.append((n, left, right))
        left_ids = chat_tokens(tokenizer, [left for _, left, _ in pairs], True)
        right_ids = chat_tokens(tokenizer, [right for _, _, right in pairs], True)
        tokens = zip(pairs, left_ids, right_ids, strict=True)
        same = {n: (a, b) for (n, *_), a, b in tokens if a[:max_length] == b[:max_length]}
        identical[list(same)] = True
        openings = chat_tokens(tokenizer, [_render(tokenizer, n, prompts[n], False) for n in same], False)
        for (n, sides), opening in zip(same.items(), openings, strict=True):
            fills[n] = min(common_prefix(opening, side) for side in sides) >= max_length
    return Collapsed(identical, fills)


def _safe_head(tokenizer: "PreTrainedTokenizerBase", max_length: int) -> int:
    """How many characters of ASCII surely lie within the first `max_length` tokens; 0 where nothing is sure.

    A byte-level tokenizer loses nothing, and each of its tokens spells a character of ASCII or more, but for the special
    ones that it adds itself and a blank before the first word.
    """
    from tokenizers import decoders, normalizers

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not isinstance(backend.decoder, decoders.ByteLevel):
        return 0
    if not isinstance(backend.normalizer, normalizers.NFC | None):
        return 0
    return max(max_length - tokenizer.num_special_tokens_to_add() - 1, 0)


def _part_early(left: str, right: str, head: int) -> bool:
    """Whether two texts differ in their first `head` characters, and these are ASCII: known without tokenising."""
    left, right = (unicodedata.normalize("NFC", text)[:head] for text in (left, right))
    return left != right and left.isascii()


def _render(tokenizer: "PreTrainedTokenizerBase", number: int, messages: Messages, answered: bool) -> str:
    try:
        return chat_text(tokenizer, messages, answered)
    except Exception as error:  # templates raise whatever their authors chose
        raise LogError(
            f"pair {number}: the tokenizer's chat template refuses it ({error}): leave the pair out of the logs, or give "
            "a tokenizer whose template knows its roles"
        ) from error
