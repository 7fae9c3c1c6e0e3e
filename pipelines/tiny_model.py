"""A small chat model with random weights, made on the spot and offline: for demos and tests, knows nothing.

python -m rpo_data.pipelines.tiny_model DATASET OUT
"""

import argparse
import itertools
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, PreTrainedTokenizerFast, Qwen2Config, set_seed
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from rpo_data.dataset import ContrastDataset, load

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_CONFIGS = {"qwen2": Qwen2Config, "llama": LlamaConfig}


def make_tiny_model(
    path: str | Path,
    texts: Iterable[str],
    *,
    architecture: str = "qwen2",
    vocab_size: int = 350,
    hidden_size: int = 16,
    layers: int = 2,
    tie_embeddings: bool | None = None,
    max_positions: int = 2048,
    seed: int = 0,
) -> int:
    """Save a randomly initialised model, and a tokenizer (byte-level BPE, ChatML) that learns its tokens from texts.

    Args:
        path: folder to save in.
        texts: what the tokenizer is trained on.
        architecture: qwen2 (16 thousand parameters at the default sizes) or llama.
        vocab_size: tokens, at least 259 (256 bytes and three marks).
        hidden_size: width; a multiple of 8.
        layers: transformer layers.
        tie_embeddings: whether input and output embeddings are one; as usual for the architecture where None (qwen2
            yes, llama no).
        max_positions: longest sequence in tokens.
        seed: of the weights.

    Returns:
        How many parameters the model has.
    """
    tokenizer = _train_tokenizer(texts, vocab_size)
    tokenizer.save_pretrained(str(path))
    config = _CONFIGS[architecture](
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=max(hidden_size // 8, 1),
        num_key_value_heads=max(hidden_size // 16, 1),
        max_position_embeddings=max_positions,
        tie_word_embeddings=architecture == "qwen2" if tie_embeddings is None else tie_embeddings,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        set_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(str(path))
    return sum(parameter.numel() for parameter in model.parameters())


def dataset_texts(dataset: ContrastDataset, limit: int = 2000) -> Iterator[str]:
    """Every message of the first `limit` training rows."""
    sides = ("prompt", "chosen", "rejected") if dataset.paired else ("prompt", "completion")
    for row in itertools.islice(dataset.rows["train"], limit):
        for message in itertools.chain(*(row[side] for side in sides)):
            yield message["content"] or ""


def main() -> None:
    """Make a model for a dataset."""
    parser = argparse.ArgumentParser(prog="python -m rpo_data.pipelines.tiny_model", description=__doc__)
    parser.add_argument("dataset", help="folder that `rpo-data build` wrote; the tokenizer learns from its texts")
    parser.add_argument("out", help="folder to save model and tokenizer in")
    parser.add_argument("--vocab-size", type=int, default=2000)
    parser.add_argument("--hidden-size", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    transformers.utils.logging.disable_progress_bar()
    size = make_tiny_model(
        given.out,
        dataset_texts(load(given.dataset)),
        vocab_size=given.vocab_size,
        hidden_size=given.hidden_size,
        layers=given.layers,
    )
    logging.getLogger(__name__).info("model     %s: %s parameters, random weights", given.out, f"{size:,}")


def _train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    pad, _, eos = _SPECIAL
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=pad, eos_token=eos)
    fast.chat_template = CHATML
    return fast


if __name__ == "__main__":
    main()
