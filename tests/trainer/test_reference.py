import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from rpo_data.trainer import RPOTrainer
from rpo_data.trainer.models import model_id
from rpo_data.trainer.reference import ReferenceStore


@pytest.fixture
def scored(monkeypatch):
    """Sequences scored so far, counted where the model is called."""
    from rpo_data.trainer import reference

    counted = []
    score = reference.sequence_logprobs
    monkeypatch.setattr(
        reference, "sequence_logprobs", lambda model, **k: (counted.append(len(k["input_ids"])), score(model, **k))[1]
    )
    return counted


def test_another_run_computes_nothing(tiny_models, echo, config, scored):
    first = RPOTrainer(tiny_models["qwen2"], config(), echo, echo)
    assert sum(scored) == len(first.train_dataset.ref_logps) + len(first.eval_dataset.ref_logps) == 40
    scored.clear()
    again = RPOTrainer(tiny_models["qwen2"], config(learning_rate=3e-4, beta=0.5, loss_type="uniform"), echo, echo)
    assert scored == []
    assert again.reference_computed == 0
    assert again.train_dataset.ref_logps.tolist() == first.train_dataset.ref_logps.tolist()


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
    assert mixed.reference_computed == len(mixed.train_dataset.ref_logps)


def test_the_store_lies_in_the_cache_home_by_default(tiny_models, echo, config, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    trainer = RPOTrainer(tiny_models["qwen2"], config(cache_dir=None), echo)
    folder = tmp_path / "home" / "rpo-data" / "reference" / trainer.reference_id
    assert [file.suffix for file in folder.iterdir()] == [".arrow"]


def test_a_killed_write_leaves_nothing_that_is_read(tmp_path, monkeypatch):
    store = ReferenceStore(tmp_path / "reference")
    store.write([b"a" * 16], [-1.5])

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            store.write([b"b" * 16], [-2.5])
    assert len(list(store.folder.iterdir())) == 2  # the whole file, and the torn one under another name
    logps = store.read([b"b" * 16, b"a" * 16])
    assert np.isnan(logps[0])
    assert logps[1] == -1.5


def test_a_killed_scoring_goes_on_where_it_stopped(tiny_models, echo, config, scored, monkeypatch):
    from rpo_data.trainer import reference

    monkeypatch.setattr(reference, "_BATCHES_A_FILE", 1)
    write, calls = ReferenceStore.write, []

    def third_fails(self, keys, logps):
        calls.append(len(keys))
        if len(calls) == 3:
            raise KeyboardInterrupt
        write(self, keys, logps)

    with monkeypatch.context() as patch:
        patch.setattr(ReferenceStore, "write", third_fails)
        with pytest.raises(KeyboardInterrupt):
            RPOTrainer(tiny_models["qwen2"], config(), echo)
    kept = sum(calls[:2])
    scored.clear()
    trainer = RPOTrainer(tiny_models["qwen2"], config(), echo)
    assert kept > 0
    assert sum(scored) == len(trainer.train_dataset.ref_logps) - kept


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
