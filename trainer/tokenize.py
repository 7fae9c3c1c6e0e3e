"""Chat rows to token ids: each pair once, chosen and rejected behind the very same prompt tokens, every cut counted."""

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xxhash
from transformers import PreTrainedTokenizerBase

from rpo_data.errors import TrainingError

logger = logging.getLogger(__name__)

Messages = list[dict[str, Any]]
Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total)."""

_SPEAKERS = {"user": "Human", "assistant": "Assistant"}


@dataclass(frozen=True)
class PairTokens:
    """Token ids of one pair; `prompt + chosen` and `prompt + rejected` are what the model reads."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]


@dataclass
class TokenCounts:
    """What became of the pairs of a split: cut to max_length, or of no use as a contrast of their own.

    identical   chosen and rejected are the same tokens (often only after a cut): the own cell is masked
    empty       chosen or rejected has no token: every cell of that response is masked
    what        pairs, or responses
    """

    pairs: int = 0
    prompts_cut: int = 0
    responses_cut: int = 0
    identical: int = 0
    empty: int = 0
    what: str = "pairs"


@dataclass(frozen=True)
class TokenSequences:
    """Distinct sequences (prompt + completion), S of them, stored flat.

    tokens          int32 (T,), one sequence after the other
    offsets         int64 (S + 1,), where each begins and ends
    prompt_lengths  int64 (S,), tokens before the completion
    keys            xxh3-128 of prompt length and tokens, 16 bytes each
    """

    tokens: np.ndarray
    offsets: np.ndarray
    prompt_lengths: np.ndarray
    keys: list[bytes]

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, number: int) -> np.ndarray:
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
    rows: Iterable[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None = None,
    *,
    total: int = 0,
    progress: Progress | None = None,
) -> TokenizedPairs:
    """Tokenise the rows of `pairs` (see rpo_data.schemas.tables), cut to `max_length`; equal sequences are stored once.

    Raises:
        TrainingError: the tokenizer's chat template refuses a row.
    """
    tokens = _tokenize(rows, tokenizer, max_length, total, progress)
    _warn(tokens.counts, max_length)
    return tokens


def tokenize_responses(
    rows: Iterable[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None = None,
    *,
    total: int = 0,
    progress: Progress | None = None,
) -> TokenizedPairs:
    """The same for rows of `responses`.

    Raises:
        TrainingError: as above.
    """
    twice = (
        {"pair_id": row["response_id"], "prompt": row["prompt"]}
        | dict.fromkeys(("chosen", "rejected"), row["completion"])
        for row in rows
    )
    tokens = _tokenize(twice, tokenizer, max_length, total, progress)
    cut = tokens.counts.responses_cut // 2
    counts = replace(tokens.counts, responses_cut=cut, identical=0, what="responses")
    _warn(counts, max_length)
    return replace(tokens, counts=counts)


def _tokenize(
    rows: Iterable[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None,
    total: int,
    progress: Progress | None,
) -> TokenizedPairs:
    counts = TokenCounts()
    numbers: dict[bytes, int] = {}  # of the sequences, by key
    flat: list[np.ndarray] = []
    prompt_lengths: list[int] = []
    wins: list[int] = []
    losses: list[int] = []
    for row in rows:
        pair = cut_pair(pair_tokens(row, tokenizer), max_length, tokenizer.bos_token_id, counts)
        for completion, column in ((pair.chosen, wins), (pair.rejected, losses)):
            tokens = np.asarray(pair.prompt + completion, dtype=np.int32)
            key = sequence_key(tokens, len(pair.prompt))
            column.append(numbers.setdefault(key, len(numbers)))
            if len(flat) < len(numbers):
                flat.append(tokens)
                prompt_lengths.append(len(pair.prompt))
        if progress and (counts.pairs % 256 == 0 or counts.pairs == total):
            progress("tokenize", counts.pairs, total)
    offsets = np.cumsum([0, *map(len, flat)], dtype=np.int64)
    tokens = np.concatenate(flat) if flat else np.empty(0, dtype=np.int32)
    sequences = TokenSequences(tokens, offsets, np.asarray(prompt_lengths, dtype=np.int64), list(numbers))
    return TokenizedPairs(sequences, np.asarray(wins, dtype=np.int64), np.asarray(losses, dtype=np.int64), counts)


def sequence_key(tokens: np.ndarray, prompt_length: int) -> bytes:
    """xxh3-128 of prompt length and tokens (int32), 16 bytes."""
    return xxhash.xxh3_128_digest(prompt_length.to_bytes(8, "little") + tokens.tobytes())


def joint_keys(sequences: TokenSequences) -> list[bytes]:
    """Keys of the same sequences without a border, all of whose tokens count: other ones to the reference store."""
    return [sequence_key(sequences[number], 0) for number in range(len(sequences))]


def _warn(counts: TokenCounts, max_length: int | None) -> None:
    if counts.prompts_cut or counts.responses_cut or counts.identical or counts.empty:
        logger.warning("%s", describe_counts(counts, max_length))


def describe_counts(counts: TokenCounts, max_length: int | None) -> str:
    """One sentence on what was cut and masked."""
    text = f"{counts.pairs:,} {counts.what}"
    if max_length is not None:
        text += f", cut to max_length {max_length}: {counts.prompts_cut:,} prompts, {counts.responses_cut:,} responses"
    if counts.identical or counts.empty:
        masked = "own contrast masked" if counts.what == "pairs" else "masked"
        text += f"; {masked}: {counts.identical:,} identical, {counts.empty:,} empty"
    return text


def pair_tokens(row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> PairTokens:
    """Token ids of one row of `pairs`.

    The prompt ends where prompt (with its generation prompt) and prompt + response stop having the same tokens, at the
    earlier of the two places that chosen and rejected give: a token that reaches over the border belongs to the response.

    Raises:
        TrainingError: the chat template refuses the row.
    """
    prompt, chosen, rejected = (_without_nulls(row[name]) for name in ("prompt", "chosen", "rejected"))
    encode = _encode_chat if tokenizer.chat_template else _encode_plain
    try:
        opening = encode(tokenizer, prompt, False)
        with_chosen, with_rejected = (encode(tokenizer, prompt + answer, True) for answer in (chosen, rejected))
    except Exception as error:  # templates raise whatever their authors chose
        raise TrainingError(
            f"pair {row.get('pair_id')}: the tokenizer's chat template refuses it ({error}): leave the pair out of the "
            "logs, or use a model whose template knows its roles"
        ) from error
    border = min(_common_prefix(opening, with_chosen), _common_prefix(opening, with_rejected))
    return PairTokens(with_chosen[:border], with_chosen[border:], with_rejected[border:])


def cut_pair(pair: PairTokens, max_length: int | None, bos: int | None, counts: TokenCounts) -> PairTokens:
    """Cut a pair so that neither of its sequences is longer than `max_length`; adds to `counts`.

    First the prompt gives way, from its start (a leading `bos` token stays), down to a quarter of `max_length`; then
    the responses, at their end. Chosen and rejected keep the same prompt, and no response is cut away entirely.

    >>> cut_pair(PairTokens([1, 2, 3, 4], [5, 6], [7, 8, 9, 10]), 4, None, TokenCounts())
    PairTokens(prompt=[4], chosen=[5, 6], rejected=[7, 8, 9])
    """
    prompt, chosen, rejected = pair.prompt, pair.chosen, pair.rejected
    if max_length is not None:
        quarter = -(-max_length // 4)
        room = min(len(prompt), max(max_length - max(len(chosen), len(rejected)), quarter))
        if room < len(prompt):
            counts.prompts_cut += 1
            head = prompt[:1] if prompt[0] == bos and room > 1 else []
            prompt = head + prompt[len(prompt) - room + len(head) :]
        counts.responses_cut += sum(len(answer) > max_length - room for answer in (chosen, rejected))
        chosen, rejected = chosen[: max_length - room], rejected[: max_length - room]
    counts.pairs += 1
    counts.identical += chosen == rejected
    counts.empty += not chosen or not rejected
    return PairTokens(prompt, chosen, rejected)


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


def _encode_chat(tokenizer: PreTrainedTokenizerBase, messages: Messages, answered: bool) -> list[int]:
    return tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, add_generation_prompt=not answered)


def _encode_plain(tokenizer: PreTrainedTokenizerBase, messages: Messages, answered: bool) -> list[int]:
    text = plain_text(messages) if answered else plain_text(messages) + "\n\nAssistant:"
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    start = [bos] if bos is not None and bos in tokenizer("")["input_ids"] else []
    end = [eos] if answered and eos is not None else []
    return start + tokenizer(text, add_special_tokens=False)["input_ids"] + end


def _without_nulls(messages: Messages) -> Messages:
    return [{key: value for key, value in message.items() if value is not None} for message in messages]


def _common_prefix(left: list[int], right: list[int]) -> int:
    pairs = enumerate(zip(left, right, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(left), len(right)))
