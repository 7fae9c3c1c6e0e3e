import pytest
import torch
from transformers import AutoModelForCausalLM

from rpo_data.trainer.logprobs import piece_logprobs, token_logprobs
from rpo_data.trainer.packing import pack_sequences

SEQUENCES = [[5, 6, 7, 8, 9], [10, 11, 12]]


@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
def test_sums_completion_tokens_only_and_padding_changes_nothing(tiny_models, architecture):
    model = AutoModelForCausalLM.from_pretrained(tiny_models[architecture])
    batch = pack_sequences(SEQUENCES, [2, 1], 0, "padded")
    got = piece_logprobs(model, batch)
    for row, (tokens, prompt) in enumerate(zip(SEQUENCES, [2, 1], strict=True)):
        probs = model(torch.tensor([tokens])).logits[0].double().log_softmax(dim=-1)
        by_hand = sum(probs[place - 1, tokens[place]].item() for place in range(prompt, len(tokens)))
        assert got[row].item() == pytest.approx(by_hand, abs=1e-5)
    assert got.dtype == torch.float32


def test_bfloat16_logits_are_summed_in_float32(tiny_models):
    model = AutoModelForCausalLM.from_pretrained(tiny_models["qwen2"], dtype=torch.bfloat16)
    batch = pack_sequences([list(range(5, 205))], [1], 0, "padded")
    got = piece_logprobs(model, batch)
    logits = model(batch["input_ids"]).logits[0, :-1].float().log_softmax(dim=-1)
    exact = logits.gather(1, batch["input_ids"][0, 1:, None]).double().sum().item()
    assert got.item() == pytest.approx(exact, abs=1e-2)  # a bfloat16 sum near 1,000 moves in steps of 4
    assert abs(got.item()) > 500


def test_a_token_without_context_and_an_empty_completion_count_nothing(tiny_models):
    model = AutoModelForCausalLM.from_pretrained(tiny_models["qwen2"])
    batch = pack_sequences([[5], [5, 6]], [0, 2], 0, "padded")
    got = piece_logprobs(model, batch)
    assert got.tolist() == [0.0, 0.0]
    got.sum().backward()  # no NaN, no missing graph


def test_logits_are_made_at_the_places_asked_for_alone(tiny_models):
    model = AutoModelForCausalLM.from_pretrained(tiny_models["llama"])
    made = []
    model.lm_head.register_forward_hook(lambda module, inputs, logits: made.append(logits.shape))
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    got = token_logprobs(model, torch.tensor([1, 3]), torch.tensor([7, 9]), input_ids=ids)
    assert made == [(2, model.config.vocab_size)]
    whole = model(ids).logits.log_softmax(dim=-1)
    assert made[1] == (2, 3, model.config.vocab_size)  # nothing stays behind
    assert torch.allclose(got, torch.stack([whole[0, 1, 7], whole[1, 0, 9]]), atol=1e-5)
    model.get_output_embeddings = lambda: None  # a model that does not say where its head is
    assert torch.allclose(token_logprobs(model, torch.tensor([1, 3]), torch.tensor([7, 9]), input_ids=ids), got)
