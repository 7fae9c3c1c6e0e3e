import json
import shutil

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rpo_data.errors import TrainingError
from rpo_data.trainer import RPOTrainer
from rpo_data.trainer.models import model_id


@pytest.fixture
def scored(monkeypatch):
    """Sequences scored so far, counted where the model is called."""
    from rpo_data.trainer import reference

    counted = []
    score = reference.evaluated_logprobs
    monkeypatch.setattr(
        reference,
        "evaluated_logprobs",
        lambda model, pieces: (counted.append(sum(len(piece["rows"]) for piece in pieces)), score(model, pieces))[1],
    )
    return counted


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 3e-4, "max_steps": 7, "seed": 5, "gradient_accumulation_steps": 2},
        {"beta": 0.5},
        {"temperature": 0.2, "normalize": "none"},
        {"loss_type": "uniform"},
        {"loss_type": "diagonal", "diagonal_alpha": 0.5},
        {"output_dir": "elsewhere"},
        {"per_device_train_batch_size": 2, "per_device_eval_batch_size": 4},
    ],
    ids=str,
)
def test_a_setting_without_a_say_in_log_probs_computes_nothing(change, tiny_models, echo, config, scored, tmp_path):
    change = {name: str(tmp_path / value) if name == "output_dir" else value for name, value in change.items()}
    first = RPOTrainer(tiny_models["qwen2"], config(), echo, echo)
    assert sum(scored) == len(first.train_dataset.ref_logps) + len(first.eval_dataset.ref_logps) == 40
    scored.clear()
    again = RPOTrainer(tiny_models["qwen2"], config(**change), echo, echo)
    assert scored == []
    assert again.reference_computed == 0
    assert again.train_dataset.ref_logps.tolist() == first.train_dataset.ref_logps.tolist()


def test_other_groups_weights_and_order_compute_nothing(tiny_models, make, config, scored):
    rows = make.echo_pairs(8, seed=1)
    one = make.dataset({"train": rows}, {"train": make.paired_groups("train", [[[0, 1, 2, 3], [4, 5, 6, 7]]])})
    eights = make.paired_groups("train", [[list(range(8))]], weight=lambda size: np.eye(size))
    other = make.dataset({"train": rows[::-1]}, {"train": eights})
    first = RPOTrainer(tiny_models["qwen2"], config(), one).train_dataset
    scored.clear()
    again = RPOTrainer(tiny_models["qwen2"], config(), other).train_dataset
    assert scored == []
    assert again.ref_logps[again.pairs.chosen].tolist() == first.ref_logps[first.pairs.chosen][::-1].tolist()


def test_added_pairs_are_computed_alone(tiny_models, make, config, scored):
    rows = make.echo_pairs(12, seed=1)
    for count, computed in ((8, 16), (12, 8), (8, 0), (12, 0)):
        groups = make.paired_groups("train", [make.in_groups(count, 4)])
        RPOTrainer(tiny_models["qwen2"], config(), make.dataset({"train": rows[:count]}, {"train": groups}))
        assert sum(scored) == computed
        scored.clear()


def test_a_changed_template_is_computed_where_it_shows(tiny_models, make, config, scored):
    rows = make.echo_pairs(4, seed=1)
    for row in rows[:2]:
        row["prompt"].insert(0, make.message("system", "be kind"))
    data = make.dataset({"train": rows}, {"train": make.paired_groups("train", [[[0, 1, 2, 3]]])})
    RPOTrainer(tiny_models["qwen2"], config(), data)
    scored.clear()
    tokenizer = AutoTokenizer.from_pretrained(tiny_models["qwen2"])
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "{{ message.content }}", "{{ message.content | upper if message.role == 'system' else message.content }}"
    )
    RPOTrainer(tiny_models["qwen2"], config(), data, processing_class=tokenizer)
    assert sum(scored) == 4  # two sequences of each of the two pairs with a system turn


@pytest.mark.parametrize("change", ["weights", "config", "dtype", "bf16"])
def test_another_model_computes_everything_beside_what_is_stored(change, tiny_models, echo, config, scored):
    first = RPOTrainer(tiny_models["qwen2"], config(), echo)
    scored.clear()
    model = AutoModelForCausalLM.from_pretrained(tiny_models["qwen2"])
    with torch.no_grad():
        if change == "weights":
            model.model.norm.weight[0] += 1e-3
    if change == "config":
        model.config.rms_norm_eps = 1e-3
    if change == "dtype":
        model.to(torch.bfloat16)
    second = RPOTrainer(model, config(bf16=change == "bf16"), echo, processing_class=first.processing_class)
    assert sum(scored) == len(first.train_dataset.ref_logps) == 32
    assert second.reference_folder != first.reference_folder
    scored.clear()
    RPOTrainer(tiny_models["qwen2"], config(), echo)
    assert scored == []


def test_rows_that_differ_in_the_border_alone_are_two_sequences(tiny_models, make, config):
    rows = [make.pair_row(0, "apple", "bread", "cloud"), make.pair_row(1, "apple", "bread", "cloud")]
    rows[1]["prompt"] += [make.message("assistant", "bread"), make.message("user", "apple")]
    data = make.dataset({"train": rows}, {"train": make.paired_groups("train", [[[0, 1]]])})
    trained = RPOTrainer(tiny_models["qwen2"], config(), data).train_dataset
    assert len(trained.pairs.sequences) == 4
    assert len(set(trained.ref_logps.tolist())) == 4


def test_only_what_a_cut_changed_is_computed_again(tiny_models, make, config, scored):
    rows = make.echo_pairs(6, seed=1)
    rows += [make.pair_row(number, "apple bread cloud? " * 20, "yes", "no") for number in (6, 7)]
    rows[7]["chosen"][0]["content"] = "yes yes"
    data = make.dataset({"train": rows}, {"train": make.paired_groups("train", [[list(range(8))]])})
    whole = RPOTrainer(tiny_models["qwen2"], config(max_length=None), data)
    assert sum(scored) == len(whole.train_dataset.ref_logps)
    scored.clear()
    limit = int(whole.train_dataset.pairs.sequences.lengths[:12].max())  # fits all but the last two pairs
    cut = RPOTrainer(tiny_models["qwen2"], config(max_length=limit), data)
    counts = cut.train_dataset.pairs.counts
    assert (counts.prompts_cut, counts.responses_cut) == (2, 0)
    changed = set(cut.train_dataset.pairs.sequences.keys) - set(whole.train_dataset.pairs.sequences.keys)
    assert sum(scored) == len(changed)
    assert len(changed) == 4  # how much of a prompt is cut goes with the longer response of its pair


def test_scores_are_those_of_the_policy_before_training(tiny_models, echo, config):
    trainer = RPOTrainer(tiny_models["qwen2"], config(max_steps=3), echo)
    model = AutoModelForCausalLM.from_pretrained(tiny_models["qwen2"])
    before = trainer.train_dataset.ref_logps.copy()
    identity = trainer.reference_id
    trainer.train()
    assert model_id(trainer.model) != identity  # the policy did move
    assert trainer.train_dataset.ref_logps.tolist() == before.tolist()
    sequence = trainer.train_dataset.pairs.sequences[5]
    prompt = trainer.train_dataset.pairs.sequences.prompt_lengths[5]
    logits = model(torch.tensor(sequence[None].astype(np.int64))).logits[0].double().log_softmax(-1)
    by_hand = sum(logits[place - 1, sequence[place]].item() for place in range(prompt, len(sequence)))
    assert before[5] == pytest.approx(by_hand, abs=1e-4)


def test_a_reference_of_its_own_is_used_and_left_alone(tiny_models, echo, config):
    reference = AutoModelForCausalLM.from_pretrained(tiny_models["qwen2"])
    with torch.no_grad():
        reference.model.embed_tokens.weight.mul_(1.5)
    identity = model_id(reference)
    trainer = RPOTrainer(tiny_models["qwen2"], config(max_steps=1), echo, ref_model=reference)
    assert trainer.reference_id == identity
    trainer.train()
    assert model_id(reference) == identity
    own = RPOTrainer(tiny_models["qwen2"], config(), echo)
    assert own.reference_id != identity
    assert not np.allclose(own.train_dataset.ref_logps, trainer.train_dataset.ref_logps)


def test_mixed_precision_has_a_folder_of_its_own(tiny_models, echo, config):
    plain = RPOTrainer(tiny_models["qwen2"], config(), echo)
    mixed = RPOTrainer(tiny_models["qwen2"], config(bf16=True), echo)
    assert mixed.reference_id == plain.reference_id + "-bf16"
    assert mixed.reference_folder.name == mixed.reference_id


def test_the_store_lies_in_the_cache_home_by_default(tiny_models, echo, config, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    trainer = RPOTrainer(tiny_models["qwen2"], config(cache_dir=None), echo)
    folder = tmp_path / "home" / "rpo-data" / "reference" / trainer.reference_id
    assert trainer.reference_folder == folder
    assert sorted(file.suffix for file in folder.iterdir()) == [".arrow", ".json"]
    assert json.loads((folder / "reference.json").read_text()) == {"model": trainer.reference_id}


def test_a_store_is_a_cache_dir_of_its_model(tiny_models, echo, config, scored, tmp_path, monkeypatch):
    first = RPOTrainer(tiny_models["qwen2"], config(), echo)
    shutil.copytree(first.reference_folder, tmp_path / "shared")
    scored.clear()
    again = RPOTrainer(tiny_models["qwen2"], config(cache_dir=str(tmp_path / "shared")), echo)
    assert scored == []
    assert again.reference_folder == tmp_path / "shared"
    sentence = r"shared holds the log-probs of another model or number type \(Qwen2.*, and this one is Lla"
    with monkeypatch.context() as patch:
        patch.setattr("rpo_data.trainer.trainer.tokenize_pairs", None)  # refused before that
        with pytest.raises(TrainingError, match=sentence):
            RPOTrainer(tiny_models["llama"], config(cache_dir=str(tmp_path / "shared")), echo)
    with pytest.raises(
        TrainingError, match=r"of another model or number type \(.*-float32, and this one is .*-float32-bf16\)"
    ) as caught:
        RPOTrainer(tiny_models["qwen2"], config(cache_dir=str(tmp_path / "shared"), bf16=True), echo)
    assert "\n" not in str(caught.value)
    assert scored == []


def test_log_probs_that_are_not_finite_name_the_first_row(tiny_models, make, config):
    rows = make.echo_pairs(6, seed=1)
    rows[3]["rejected"][0]["content"] += " ~"
    rows[4]["chosen"][0]["content"] += " ~"
    data = make.dataset({"train": rows}, {"train": make.paired_groups("train", [[[0, 1, 2], [3, 4, 5]]])})
    model = AutoModelForCausalLM.from_pretrained(tiny_models["llama"])
    tokenizer = AutoTokenizer.from_pretrained(tiny_models["llama"])
    (token,) = tokenizer("~")["input_ids"]
    with torch.no_grad():
        model.model.embed_tokens.weight[token] = float("nan")
    with pytest.raises(
        TrainingError, match=r"log-prob of row 3 of split 'train' \(rejected\) is not finite: the reference is damaged"
    ):
        RPOTrainer(model, config(), data, processing_class=tokenizer)


def test_model_id_knows_content_not_place(tiny_models, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(tiny_models["qwen2"])
    model.save_pretrained(tmp_path / "copy")
    copy = AutoModelForCausalLM.from_pretrained(tmp_path / "copy")
    copy.config.use_cache = False
    assert model_id(copy) == model_id(model)
    assert model_id(model.to(torch.bfloat16)) != model_id(copy)
    with torch.no_grad():
        copy.model.norm.weight[0] += 1e-3
    assert model_id(copy) != model_id(AutoModelForCausalLM.from_pretrained(tiny_models["qwen2"]))
