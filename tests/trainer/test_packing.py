import math
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    FalconConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GotOcr2Config,
    JambaConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    Qwen2Config,
)

from rpo_data.errors import TrainingError
from rpo_data.trainer import RPOTrainer, attention, packing
from rpo_data.trainer.attention import PART_BY_PART, tree_mask
from rpo_data.trainer.collator import Completion, Group, GroupCollator
from rpo_data.trainer.layouts import fit_layout, layout_refusal
from rpo_data.trainer.logprobs import batch_logprobs
from rpo_data.trainer.packing import Layout, pack_sequences

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "vocab_size": 50,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def tiny(config_class, dtype=torch.float32, **more):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config_class(**SIZES | {"initializer_range": 0.1} | more)).to(dtype)
    if dtype == torch.float64:  # transformers' own norms go through float32
        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                if type(child).__name__.endswith("RMSNorm"):
                    norm = nn.RMSNorm(child.weight.shape, eps=child.variance_epsilon, dtype=dtype)
                    norm.weight = child.weight
                    setattr(parent, name, norm)
    return model


def sequences_of(trees, vocabulary=47):
    """Sequences and prompt lengths of trees, given as (prompt length, completion lengths); first completions come first.

    Tokens begin at 3: the embedding of padding is 0, which a norm blows up.
    """
    draw = np.random.default_rng(0)
    prompts = [draw.integers(3, 3 + vocabulary, length) for length, _ in trees]
    by_side = [
        (np.concatenate([prompt, draw.integers(3, 3 + vocabulary, lengths[side])]), len(prompt))
        for side in range(max(len(lengths) for _, lengths in trees))
        for prompt, (_, lengths) in zip(prompts, trees, strict=True)
        if side < len(lengths)
    ]
    return [tokens for tokens, _ in by_side], [length for _, length in by_side]


def logprobs(model, sequences, prompt_lengths, layout="trees", **how):
    return batch_logprobs(model, GroupCollator(0, layout, **how).cut(sequences, prompt_lengths))


def fitted(model, share_prompts=True):
    return fit_layout(GroupCollator(0), model, group_of(PAIRS), share_prompts).layout


def gradient(model, logps):
    """Gradient of an uneven sum of log-probs by every parameter, flat."""
    slopes = torch.linspace(-1, 1, len(logps), dtype=logps.dtype)
    return torch.cat([g.flatten() for g in torch.autograd.grad((slopes * logps).sum(), list(model.parameters()))])


PAIRS = [(7, [3, 5]), (20, [9, 1]), (2, [30, 4])]
MANY = [(12, [4, 8, 1, 6, 2, 5]), (3, [2]), (12, [5, 5, 5])]
ONE_TOKEN = [(1, [4, 3]), (1, [1, 1])]  # two prompts of one token
NO_TOKEN = [(5, [0, 4]), (9, [0, 0]), (1, [3, 0])]
NO_PROMPT = [(0, [4, 3]), (6, [2, 5]), (0, [3])]


@pytest.mark.parametrize("count_prompts", [False, True])
@pytest.mark.parametrize(
    "trees",
    [PAIRS, MANY, ONE_TOKEN, NO_TOKEN, NO_PROMPT],
    ids=["pairs", "many", "one token", "no token", "no prompt"],
)
@pytest.mark.parametrize("config_class", [LlamaConfig, Qwen2Config])
@pytest.mark.parametrize(
    ("dtype", "close"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=["float64", "float32"]
)
def test_every_layout_equals_one_by_one(config_class, dtype, close, trees, count_prompts):
    model = tiny(config_class, dtype)
    sequences, prompt_lengths = sequences_of(trees)
    ways = [{"layout": "padded", "micro_batch_size": 1}]
    ways += [{"layout": layout, "micro_batch_size": size} for layout in get_args(Layout) for size in (None, 3)]
    ways += [{"layout": layout, "one_row": True} for layout in ("trees", "packed")]
    ways = [(way, "sdpa") for way in ways]
    ways += [({"layout": "trees", "one_row": True, "micro_batch_size": size}, PART_BY_PART) for size in (None, 3)]
    ways += [({"layout": "padded"}, PART_BY_PART)]  # with another mask it is sdpa
    results = []
    for way, implementation in ways:
        model.set_attn_implementation(implementation)
        logps = logprobs(model, sequences, prompt_lengths, count_prompts=count_prompts, **way)
        assert logps.dtype == dtype
        results.append((logps.detach(), gradient(model, logps)))
    (alone, slope), *others = results
    assert alone.abs().max() > 3
    assert slope.abs().max() > 0.1
    for logps, slopes in others:
        assert torch.allclose(logps, alone, rtol=close, atol=close)
        assert torch.allclose(slopes, slope, rtol=close, atol=close * slope.abs().max().item())


def test_sharing_reads_each_prompt_once():
    packed = pack_sequences(*sequences_of([(20, [3, 5, 4])]), 0)
    assert packed["input_ids"].shape == (1, 20 + 3 + 5 + 4)
    assert len(packed["target"]) == 3 + 5 + 4


def test_part_by_part_computes_what_is_seen_and_no_more(monkeypatch):
    """Scores that it computes, against the cells of the mask, but for the upper half of each square of a part by itself."""
    packed = pack_sequences(*sequences_of(MANY), 0, one_row=True)
    tree, branch = packed["tree"], packed["branch"]
    computed = []
    model = tiny(LlamaConfig, num_hidden_layers=1)
    model.set_attn_implementation(PART_BY_PART)
    sdpa = attention.sdpa_attention_forward

    def counting(module, query, key, *args, **how):
        computed.append(query.shape[2] * key.shape[2] - query.shape[2] * (query.shape[2] - 1) // 2)
        return sdpa(module, query, key, *args, **how)

    monkeypatch.setattr(attention, "sdpa_attention_forward", counting)
    logprobs(model, *sequences_of(MANY), one_row=True)
    assert sum(computed) == tree_mask(tree, branch).sum()


def test_a_model_that_went_part_by_part_writes_as_before():
    model = tiny(LlamaConfig).eval()
    asked = {"input_ids": torch.tensor([[0, 0, 5, 6, 7], [3, 4, 5, 6, 7]]), "max_new_tokens": 9, "do_sample": False}
    asked["attention_mask"] = (asked["input_ids"] != 0).long()
    before = model.generate(**asked)
    fitted(model)
    assert model.config._attn_implementation == PART_BY_PART
    assert torch.equal(model.generate(**asked), before)
    assert "part" not in model.config.to_json_string()


def test_of_a_model_that_reads_images_the_text_part_alone_goes_part_by_part():
    """Its image part has no sdpa: the model as a whole is eager, the text part sdpa."""
    torch.manual_seed(0)
    vision = {"hidden_size": 8, "output_channels": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_dim": 8}
    text = {"model_type": "qwen2", **SIZES, "initializer_range": 0.1}
    config = GotOcr2Config(vision_config=vision | {"image_size": 64}, text_config=text)
    model = AutoModelForImageTextToText.from_config(config).eval()
    attention_of = {"whole": model.config, "image": model.config.vision_config, "text": model.config.text_config}
    before = {name: part._attn_implementation for name, part in attention_of.items()}
    assert before == {"whole": "eager", "image": "eager", "text": "sdpa"}
    assert fitted(model) == "trees"
    assert {n: part._attn_implementation for n, part in attention_of.items()} == before | {"text": PART_BY_PART}
    alone = logprobs(model, *sequences_of(MANY), layout="padded", micro_batch_size=1)
    assert torch.allclose(logprobs(model, *sequences_of(MANY), one_row=True), alone, atol=1e-5)
    assert fitted(model, share_prompts=False) == "packed"
    assert {name: part._attn_implementation for name, part in attention_of.items()} == before


def test_a_model_without_the_attention_interface_shares_under_sdpa_with_one_warning(caplog):
    model = tiny(FalconConfig, alibi=False)
    assert fitted(model) == "trees"
    assert model.config._attn_implementation == "sdpa"
    (line,) = [record.message for record in caplog.records]
    assert line.startswith("masked places are computed, which is slower: ")


def test_trees_fill_rows():
    packed = pack_sequences(*sequences_of([(10, [5, 5]), (3, [4, 3]), (5, [3, 2])]), 0)
    assert packed["input_ids"].shape == (2, 20)  # 20, 10 + 10
    assert packed["tree"].tolist() == [[0] * 20, [1] * 10 + [2] * 10]


def test_a_tree_is_cut_before_attention_grows(monkeypatch):
    monkeypatch.setattr(packing, "_TREE_TOKENS", 20)
    sequences, prompt_lengths = sequences_of([(10, [4, 6, 3, 10, 10])])
    packed = pack_sequences(sequences, prompt_lengths, 0)
    assert packed["input_ids"].shape == (4, 20)
    assert packed["prompt_segment"].tolist() == [5, 5, 6, 7, 8]
    model = tiny(LlamaConfig)
    alone = logprobs(model, sequences, prompt_lengths, layout="padded")
    assert torch.allclose(logprobs(model, sequences, prompt_lengths), alone, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    trees=st.lists(st.tuples(st.integers(1, 9), st.lists(st.integers(0, 9), min_size=1, max_size=4)), min_size=1),
    size=st.none() | st.integers(1, 5),
    count=st.booleans(),
    one_row=st.booleans(),
)
def test_packed_tokens_are_the_sequences_tokens(trees, size, count, one_row):
    """From tree, branch and position alone each sequence can be read again; each counted token is predicted by its own past."""
    sequences, prompt_lengths = sequences_of(trees, vocabulary=3)  # so that prompts are equal by chance, too
    pieces = GroupCollator(0, "trees", one_row, size, count).cut(sequences, prompt_lengths)
    assert sorted(row for piece in pieces for row in piece["rows"].tolist()) == list(range(len(sequences)))
    for piece in pieces:
        rows = piece["rows"].tolist()
        assert not one_row or len(piece["input_ids"]) == 1
        assert size is None or len(rows) <= size
        ids, place, tree, branch = (piece[k].flatten() for k in ("input_ids", "position_ids", "tree", "branch"))
        for number, row in enumerate(rows):
            own = piece["prompt_segment"][number] - len(rows)
            read = (tree == own) & ((branch == 0) | (branch == 1 + number))
            assert place[read].tolist() == list(range(len(sequences[row])))
            assert ids[read].tolist() == sequences[row].tolist()
            counted = piece["segment"] == number
            past = piece["source"][counted]
            assert place[past].tolist() == list(range(prompt_lengths[row] - 1, len(sequences[row]) - 1))
            assert read[past].all()
            assert piece["target"][counted].tolist() == sequences[row][prompt_lengths[row] :].tolist()
            of_prompt = (piece["segment"] == piece["prompt_segment"][number]).sum()
            assert of_prompt == (prompt_lengths[row] - 1 if count else 0)


def group_of(trees):
    sequences, prompt_lengths = sequences_of(trees)
    items = {n: Completion(t, p, 0.0) for n, (t, p) in enumerate(zip(sequences, prompt_lengths, strict=True))}
    return Group(items, [0], [1], [1.0], [True], [False], [1.0], [1.0])


REFUSED = [  # and what the model reads instead
    (MistralConfig, {"sliding_window": 8}, "its layers attend to a sliding window", "packed"),
    (Gemma2Config, {"head_dim": 4, "sliding_window": 8}, "layers of the kind sliding_attention", "packed"),
    (Gemma3TextConfig, {"head_dim": 4, "sliding_window": 8}, "layers of the kind sliding_attention", "packed"),
    (
        Qwen2Config,
        {"use_sliding_window": True, "max_window_layers": 1, "sliding_window": 8},
        "kind sliding_attention",
        "packed",
    ),
    (Qwen2Config, {"layer_types": ["full_attention", "chunked_attention"]}, "kind chunked_attention", "padded"),
    (MambaConfig, {}, "layers of the kind linear_attention", "padded"),
    (JambaConfig, {"attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 2}, "linear_attention", "padded"),
    (FalconConfig, {"alibi": True}, "ALiBi", "padded"),
    (LlamaConfig, {"attn_implementation": "eager"}, "its attention, 'eager',", "packed"),
    (LlamaConfig, {"is_causal": False}, "its tokens see those behind them", "padded"),
]


@pytest.mark.parametrize(("config_class", "more", "reason", "instead"), REFUSED)
def test_models_that_cannot_share_are_refused_by_name(config_class, more, reason, instead, caplog):
    model = tiny(config_class, **more)
    assert reason in layout_refusal(model, "trees")
    assert (layout_refusal(model, "packed") is None) == (instead == "packed")
    assert fitted(model) == instead
    first, *others = [record.message for record in caplog.records if record.name == "rpo_data.trainer.layouts"]
    assert first.startswith("prompts are not shared, which is slower: ")
    assert reason in first
    assert type(model).__name__ in first
    assert len(others) == (instead == "padded")
    assert all(line.startswith("sequences are padded, which is slower: ") for line in others)


@pytest.mark.parametrize(("config_class", "more"), [one[:2] for one in REFUSED if one[3] == "packed"])
def test_what_cannot_share_is_read_without_padding(config_class, more):
    """A window of 8, sequences up to 50: a window that ran across sequences would show."""
    model, (sequences, prompt_lengths) = tiny(config_class, **more), sequences_of(PAIRS)
    alone = logprobs(model, sequences, prompt_lengths, layout="padded", micro_batch_size=1)
    got = logprobs(model, sequences, prompt_lengths, layout="packed")
    assert torch.allclose(got, alone, rtol=1e-5, atol=1e-5)
    slopes = gradient(model, alone)
    assert torch.allclose(gradient(model, got), slopes, rtol=1e-4, atol=1e-5 * slopes.abs().max().item())


@pytest.mark.parametrize("config_class", [LlamaConfig, Qwen2Config, MistralConfig])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_models_that_can_share_pass_the_first_group(config_class, dtype):
    model = tiny(config_class, dtype, sliding_window=None)
    assert layout_refusal(model, "trees") is None
    assert fitted(model) == "trees"
    assert fitted(model, share_prompts=False) == "packed"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_trial_in_float32_leaves_no_trace(dtype):
    model = tiny(LlamaConfig, dtype, tie_word_embeddings=True)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    assert fitted(model) == "trees"
    after = model.state_dict()
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert all(after[name].dtype == dtype and torch.equal(after[name], weight) for name, weight in before.items())


def test_a_fault_that_bfloat16_would_hide_shows():
    model = tiny(LlamaConfig, hidden_size=64, initializer_range=0.3)

    def stretch(module, args, inputs):
        places = inputs["position_ids"]
        return args, inputs | {"position_ids": None if places is None else places * 1.0005}

    model.model.register_forward_pre_hook(stretch, with_kwargs=True)
    sequences, prompt_lengths = sequences_of(PAIRS)
    alone, shared = (logprobs(model, sequences, prompt_lengths, layout=layout) for layout in ("padded", "trees"))
    fault = (shared - alone).norm() / alone.norm()
    model.bfloat16()
    rounding = (logprobs(model, sequences, prompt_lengths, layout="padded") - alone).norm() / alone.norm()
    assert 1e-4 < fault < rounding
    assert fitted(model) == "padded"


def test_a_sliding_window_would_be_silently_wrong():
    """The premise of the refusal."""
    model = tiny(MistralConfig, sliding_window=8)
    sequences, prompt_lengths = sequences_of(PAIRS)
    alone = logprobs(model, sequences, prompt_lengths, layout="padded")
    assert (logprobs(model, sequences, prompt_lengths) - alone).abs().max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_that_is_wrong_on_the_first_group_falls_back(dtype, caplog):
    """A model that nothing gives away by name: its positions run along the row."""
    model = tiny(LlamaConfig, dtype, hidden_size=64, initializer_range=0.3)
    inner = model.model.rotary_emb.forward
    model.model.rotary_emb.forward = lambda x, position_ids: inner(x, torch.arange(x.shape[1])[None])
    assert layout_refusal(model, "trees") is None
    model.train()
    assert fitted(model) == "packed"  # where the places of one sequence still count up by one
    assert model.training
    assert "log-probs of the first group come out otherwise, by up to" in caplog.text


@pytest.fixture
def many(make):
    """Four groups of 4 pairs, of responses as long as they come; the last is wholly masked."""
    rows = [
        make.pair_row(n, f"{'apple bread ' * (n % 5)}{n // 2}?", "yes " * (1 + n % 3), "no " * (1 + n % 4))
        for n in range(16)
    ]
    draw = np.random.default_rng(0)
    weights = [draw.uniform(0.1, 1, (4, 4)) * (draw.uniform(size=(4, 4)) < 0.7) for _ in range(3)] + [np.zeros((4, 4))]
    groups = [
        make.group_row("train", 0, n, range(4 * n, 4 * n + 4), range(4 * n, 4 * n + 4), weight)
        for n, weight in enumerate(weights)
    ]
    tests = [row | {"group_id": row["group_id"].replace("train", "test")} for row in groups]
    return make.dataset({"train": rows, "test": rows}, {"train": groups, "test": tests})


def one_step(model_folder, data, args, dropout=0.0):
    """Parameters after a step of plain gradient descent, what the log says, and the how often the model was called."""
    policy = AutoModelForCausalLM.from_pretrained(model_folder, attention_dropout=dropout)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    trainer = RPOTrainer(
        policy,
        args,
        data,
        data,
        processing_class=AutoTokenizer.from_pretrained(model_folder),
        ref_model=str(model_folder),
    )
    rows = []
    trainer.model.model.register_forward_hook(lambda module, inputs, output: rows.append(len(output[0])))
    before = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
    trainer.train()
    after = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
    passes = len(rows)
    return after - before, trainer.state.log_history[0], passes, trainer.evaluate()


STEP = {
    "max_steps": 1,
    "optim": "sgd",
    "learning_rate": 1.0,
    "max_grad_norm": 0.0,
    "train_sampling_strategy": "sequential",
    "lr_scheduler_type": "constant",
}


@pytest.mark.parametrize("loss_type", ["rpo", "diagonal", "joint"])
def test_sharing_and_pieces_give_the_same_step(tiny_models, many, config, loss_type):
    """Once as a whole and padded; then shared, in pieces of 3, and over 4 accumulation steps, in any company."""
    folder = tiny_models["llama"]
    whole = {"per_device_train_batch_size": 4, "share_prompts": False}
    plain, log, passes, evaluated = one_step(folder, many, config(loss_type=loss_type, **STEP, **whole))
    assert passes == 1
    assert plain.abs().max() > 1e-4
    shared = whole | {"share_prompts": True}
    counts = []
    for way in (
        shared,
        shared | {"micro_batch_size": 3},
        whole | {"micro_batch_size": 3},
        {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4, "micro_batch_size": 2},
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "micro_batch_size": 1000},
    ):
        moved, again, passes, also = one_step(folder, many, config(loss_type=loss_type, **STEP, **way))
        counts.append(passes)
        assert (moved - plain).abs().max() < 1e-6
        for name in ("loss", "rewards/margins", "rewards/accuracies", "logps/chosen"):
            assert again[name] == pytest.approx(log[name], abs=1e-5, rel=2e-7), name
            assert also[f"eval_{name}"] == pytest.approx(evaluated[f"eval_{name}"], abs=1e-5, rel=2e-7), name
    assert counts == [1, 2 * math.ceil(32 / 3), 2 * math.ceil(32 / 3), 4 * 2 * 4, 2]


def test_pieces_under_autocast_give_the_step_of_the_whole(tiny_models, many, config):
    """Autocast keeps weights it cast in a pass without gradients: a second pass in the same context would learn nothing."""
    steps = []
    for size in (None, 4):
        args = config(bf16=True, per_device_train_batch_size=4, micro_batch_size=size, **STEP)
        steps.append(one_step(tiny_models["llama"], many, args)[0])
    whole, pieces = steps
    assert (pieces != 0).float().mean() > 0.9 * (whole != 0).float().mean()
    assert torch.nn.functional.cosine_similarity(whole, pieces, dim=0) > 0.99


def test_both_passes_draw_the_same_dropout(tiny_models, many, config):
    """With one drawing for both passes the log-probs are the same, so the reported loss belongs to the step."""
    policy = AutoModelForCausalLM.from_pretrained(tiny_models["llama"], attention_dropout=0.5)
    args = config(micro_batch_size=3, disable_dropout=False, **STEP)
    trainer = RPOTrainer(policy, args, many)
    drawn = []
    trainer.model.lm_head.register_forward_hook(lambda module, inputs, logits: drawn.append(logits.detach()))
    batch = next(iter(trainer.get_train_dataloader()))
    pieces = len(batch["pieces"])
    trainer.training_step(trainer.model, batch)
    assert pieces > 1
    assert len(drawn) == 2 * pieces
    for first, second in zip(drawn[:pieces], drawn[pieces:], strict=True):
        assert torch.equal(first, second)
    drawn.clear()
    trainer.training_step(trainer.model, batch)
    assert not torch.equal(drawn[0], first)  # else dropout would be off


def test_settings_that_cannot_work_are_refused(config):
    with pytest.raises(TrainingError, match="micro_batch_size 0 cannot work: it must be a whole number, at least 1"):
        config(micro_batch_size=0)


def test_adapters_share_prompts_but_not_virtual_tokens():
    peft = pytest.importorskip("peft")
    sequences, prompt_lengths = sequences_of(PAIRS)
    lora = peft.get_peft_model(tiny(LlamaConfig), peft.LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False))
    assert fitted(lora) == "trees"
    alone = logprobs(lora, sequences, prompt_lengths, layout="padded", micro_batch_size=1)
    assert torch.allclose(logprobs(lora, sequences, prompt_lengths), alone, atol=1e-5)
    with lora.disable_adapter():
        assert (logprobs(lora, sequences, prompt_lengths) - alone).abs().max() > 1e-3
    virtual = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    assert "before the prompt" in layout_refusal(peft.get_peft_model(tiny(LlamaConfig), virtual), "packed")
