"""What only a GPU can show; skipped where there is none. CI has none: docs/training.md says when these last ran."""

import math

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from rpo_data.errors import TrainingError
from rpo_data.pipelines.tiny_model import make_tiny_model
from rpo_data.trainer import RPOTrainer, layouts
from rpo_data.trainer.collator import GroupCollator
from rpo_data.trainer.logprobs import batch_logprobs

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

WAYS = [("sdpa", "packed", False), ("sdpa", "trees", False), ("flex_attention", "packed", True)]
WAYS += [("flex_attention", "trees", True), ("flex_attention", "padded", False)]


def logprobs_and_slopes(model, sequences, prompt_lengths, **how):
    pieces = [
        {name: tensor.cuda() for name, tensor in piece.items()}
        for piece in GroupCollator(0, **how).cut(sequences, prompt_lengths)
    ]
    logps = batch_logprobs(model, pieces)
    slopes = torch.autograd.grad(logps @ torch.linspace(-1, 1, len(logps), device="cuda"), list(model.parameters()))
    return logps.detach(), torch.cat([slope.flatten() for slope in slopes])


@pytest.mark.parametrize(("attention", "layout", "one_row"), WAYS)
def test_every_layout_and_attention_equals_one_by_one(attention, layout, one_row):
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(**sizes, num_hidden_layers=2, vocab_size=50, initializer_range=0.2)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).cuda()
    prompts = [torch.randint(3, 50, (length,)) for length in (200, 300, 20)]
    answers = [torch.randint(3, 50, (length,)) for length in (30, 200, 7, 64)]
    sequences = [torch.cat([prompt, answer]).numpy() for answer in answers for prompt in prompts]
    prompt_lengths = [len(prompt) for _ in answers for prompt in prompts]
    alone, slopes = logprobs_and_slopes(model, sequences, prompt_lengths, layout="padded", micro_batch_size=1)
    model.set_attn_implementation(attention)
    got, also = logprobs_and_slopes(model, sequences, prompt_lengths, layout=layout, one_row=one_row)
    assert (got - alone).norm() < 1e-5 * alone.norm()
    assert (also - slopes).norm() < 1e-4 * slopes.norm()


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    """FlexAttention needs heads of 16 numbers or more."""
    words = ["apple bread cloud drum eagle flute grape honey island jelly kite lemon mango north olive piano"] * 9
    folder = tmp_path_factory.mktemp("models") / "llama"
    make_tiny_model(folder, words, architecture="llama", hidden_size=64)
    config = LlamaConfig.from_pretrained(folder, num_attention_heads=4, num_key_value_heads=2, head_dim=16)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("tokens", [0, 8192])
@pytest.mark.parametrize("micro_batch_size", [None, 3])
def test_training_in_bfloat16_from_log_2(model_folder, echo, config, monkeypatch, tokens, micro_batch_size):
    """With FlexAttention, which long groups take, and without."""
    monkeypatch.setattr(layouts, "_FLEX_TOKENS", tokens)
    args = config(bf16=True, use_cpu=False, max_steps=3, logging_steps=1, micro_batch_size=micro_batch_size)
    trainer = RPOTrainer(str(model_folder), args, echo, echo)
    assert trainer.model.device.type == "cuda"
    assert trainer.model.config._attn_implementation == ("sdpa" if tokens else "flex_attention")
    assert trainer.data_collator.layout == "trees"
    assert trainer.data_collator.one_row == (tokens == 0)
    trainer.train()
    first, *_ = trainer.state.log_history
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-2)
    assert first["grad_norm"] > 0
    assert trainer.evaluate()["eval_loss"] < 1


def test_a_batch_too_large_for_memory_is_one_sentence(tiny_models, echo, config, monkeypatch):
    trainer = RPOTrainer(str(tiny_models["llama"]), config(use_cpu=False, max_steps=1), echo)

    def full(*args, **kwargs):
        return torch.empty(2**60, device="cuda")

    monkeypatch.setattr("rpo_data.trainer.trainer.batch_logprobs", full)
    with pytest.raises(TrainingError, match="does not fit in memory: set micro_batch_size"):
        trainer.train()
