"""Chat rows to token ids: each row once, chosen and rejected behind the very same prompt tokens, every cut counted."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash
from transformers import PreTrainedTokenizerBase

from rpo_data.chat import chat_text, chat_tokens, common_prefix
from rpo_data.errors import TrainingError

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total)."""

_SIDES = {"pairs": ("chosen", "rejected"), "responses": ("completion",)}
"""Columns of the completions, by table."""


@dataclass
class TokenCounts:
    """What became of the rows of a split: cut to max_length, or of no use as a contrast of their own.

    what        pairs, or responses
    identical   pairs whose chosen and rejected are the same tokens (often only after a cut): the own cell is masked
    empty       rows with a response that has no token: every cell of that response is masked
    """

    what: str = "pairs"
    rows: int = 0
    prompts_cut: int = 0
    responses_cut: int = 0
    identical: int = 0
    empty: int = 0


@dataclass(frozen=True)
class TokenSequences:
    """Distinct sequences (prompt + completion), S of them, stored flat.

    tokens          int32 (T,), one sequence after the other
    offsets         int64 (S + 1,), where each begins and ends
    prompt_lengths  int64 (S,), tokens before the completion
    keys            xxh3-128 of prompt length (0 where prompts count, too) and tokens, 16 bytes each
    """

    tokens: np.ndarray
    offsets: np.ndarray
    prompt_lengths: np.ndarray
    keys: list[bytes]

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, number: int | np.integer) -> np.ndarray:
        return self.tokens[self.offsets[number] : self.offsets[number + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each sequence, int64 (S,)."""
        return np.diff(self.offsets)


@dataclass(frozen=True)
class TokenizedPairs:
    """A split in tokens: for each row of `pairs` the number of its chosen and of its rejected sequence, int64 (P,).

    A row of `responses` has one sequence, which stands on both sides.
    """

    sequences: TokenSequences
    chosen: np.ndarray
    rejected: np.ndarray
    counts: TokenCounts


def tokenize_pairs(
    rows: Collection[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None = None,
    *,
    what: str = "pairs",
    joint: bool = False,
    progress: Progress | None = None,
) -> TokenizedPairs:
    """Tokenise the rows of a table, cut to `max_length`; equal sequences are stored once, and cuts are warned of.

    Args:
        rows: of `pairs` or `responses` (see rpo_data.schemas.tables).
        tokenizer: its chat template is used, where it has one.
        max_length: tokens that no sequence goes beyond; None sets no limit.
        what: the table, pairs or responses.
        joint: whether prompt tokens will count, too, and the border does not: it is then no part of the keys.
        progress: called with ("tokenize", done, total).

    Raises:
        TrainingError: the tokenizer's chat template refuses a row.
    """
    counts, sides = TokenCounts(what), _SIDES[what]
    found: dict[bytes, tuple[int, np.ndarray, int]] = {}  # number, tokens and prompt length of a sequence, by key
    numbers: list[int] = []
    for row in rows:
        prompt, completions = row_tokens(row, sides, tokenizer)
        prompt, completions = cut_row(prompt, completions, max_length, tokenizer.bos_token_id, counts)
        for completion in completions:
            tokens = np.asarray(prompt + completion, dtype=np.int32)
            key = sequence_key(tokens, 0 if joint else len(prompt))
            numbers.append(found.setdefault(key, (len(found), tokens, len(prompt)))[0])
        if progress and (counts.rows % 256 == 0 or counts.rows == len(rows)):
            progress("tokenize", counts.rows, len(rows))
    if counts.prompts_cut or counts.responses_cut or counts.identical or counts.empty:
        logger.warning("%s", describe_counts(counts, max_length))
    _, flat, prompt_lengths = zip(*found.values(), strict=True)
    offsets = np.cumsum([0, *map(len, flat)], dtype=np.int64)
    sequences = TokenSequences(np.concatenate(flat), offsets, np.array(prompt_lengths, dtype=np.int64), list(found))
    by_row = np.array(numbers, dtype=np.int64).reshape(-1, len(sides))
    return TokenizedPairs(sequences, by_row[:, 0], by_row[:, -1], counts)


def sequence_key(tokens: np.ndarray, prompt_length: int) -> bytes:
    """xxh3-128 of prompt length and tokens (int32), 16 bytes."""
    return xxhash.xxh3_128_digest(prompt_length.to_bytes(8, "little") + tokens.tobytes())


def describe_counts(counts: TokenCounts, max_length: int | None) -> str:
    """One sentence on what was cut and masked."""
    text = f"{counts.rows:,} {counts.what if counts.rows != 1 else counts.what[:-1]}"
    if max_length is not None:
        text += f", cut to max_length {max_length}: {counts.prompts_cut:,} prompts, {counts.responses_cut:,} responses"
    if counts.identical or counts.empty:
        masked = "own contrast masked" if counts.what == "pairs" else "masked"
        text += f"; {masked}: {counts.identical:,} identical, {counts.empty:,} empty"
    return text


def row_tokens(
    row: Mapping[str, Any], sides: Sequence[str], tokenizer: PreTrainedTokenizerBase
) -> tuple[list[int], list[list[int]]]:
    """Token ids of a row: of its prompt, and of its completions, which stand in the columns `sides`.

    The prompt ends where prompt (with its generation prompt) and prompt + completion stop having the same tokens, at the
    earliest of the places that the completions give: a token that reaches over the border belongs to the completion.

    Raises:
        TrainingError: the chat template refuses the row.
    """
    prompt, *completions = (row[name] for name in ("prompt", *sides))
    try:
        opening = chat_text(tokenizer, prompt, answered=False)
        dialogues = [chat_text(tokenizer, prompt + completion, answered=True) for completion in completions]
    except Exception as error:  # templates raise whatever their authors chose
        raise TrainingError(
            f"row {row.get('pair_id') or row.get('response_id')}: the tokenizer's chat template refuses it ({error}): "
            "leave the row out of the logs, or use a model whose template knows its roles"
        ) from error
    (start,) = chat_tokens(tokenizer, [opening], answered=False)
    whole = chat_tokens(tokenizer, dialogues, answered=True)
    border = min(common_prefix(start, tokens) for tokens in whole)
    return start[:border], [tokens[border:] for tokens in whole]


def cut_row(
    prompt: list[int], completions: list[list[int]], max_length: int | None, bos: int | None, counts: TokenCounts
) -> tuple[list[int], list[list[int]]]:
    """Cut a row so that the prompt with any of its completions is no longer than `max_length`; adds to `counts`.

    First the prompt gives way, from its start (a leading `bos` token stays), down to a quarter of `max_length`; then
    the completions, at their end. All completions keep the same prompt, and none is cut away entirely.

    >>> cut_row([1, 2, 3, 4], [[5, 6], [7, 8, 9, 10]], 4, None, TokenCounts())
    ([4], [[5, 6], [7, 8, 9]])
    """
    if max_length is not None:
        quarter = -(-max_length // 4)
        room = min(len(prompt), max(max_length - max(map(len, completions)), quarter))
        if room < len(prompt):
            counts.prompts_cut += 1
            head = prompt[:1] if prompt[0] == bos and room > 1 else []
            prompt = head + prompt[len(prompt) - room + len(head) :]
        counts.responses_cut += sum(len(completion) > max_length - room for completion in completions)
        completions = [completion[: max_length - room] for completion in completions]
    counts.rows += 1
    counts.identical += completions[1:] == completions[:1]  # a response has one alone
    counts.empty += not all(completions)
    return prompt, completions
