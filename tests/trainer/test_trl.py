"""What `to_trl` gives, with the two overrides of its module's docstring, is what TRL computes by itself."""

import re
import textwrap

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rpo_data.errors import DatasetError, TrainingError
from rpo_data.trainer import to_trl
from rpo_data.trainer import trl as module

trl = pytest.importorskip("trl")


def stored_reference_trainer() -> type:
    """The class of the docstring, as it stands there."""
    lines = re.search(r"^    class .*?return dataset\n\n.*?return dataset\n", module.__doc__, re.DOTALL | re.MULTILINE)
    names = {"DPOTrainer": trl.DPOTrainer}
    exec(textwrap.dedent(lines[0]), names)
    return names["StoredReferenceTrainer"]


@pytest.fixture
def arguments(tmp_path):
    def build(**settings):
        defaults = {
            "output_dir": str(tmp_path / "trl"), "use_cpu": True, "bf16": False, "report_to": "none", "max_steps": 2,
            "logging_steps": 1, "learning_rate": 1e-2, "per_device_train_batch_size": 4, "max_length": None,
            "activation_checkpointing": False, "save_strategy": "no", "disable_tqdm": True, "eval_strategy": "steps",
            "eval_steps": 2,
        }  # fmt: skip
        return trl.DPOConfig(**defaults | settings)

    return build


def steps(trainer) -> tuple[list[float], int]:
    """Losses of a run, the held-out one last, and how often the model was called for them without gradients."""
    without = []

    def note(*_):
        if not torch.is_grad_enabled():
            without.append(1)

    hook = trainer.model.register_forward_pre_hook(note)
    trainer.train()
    hook.remove()
    log = trainer.state.log_history
    return [e["loss"] for e in log if "loss" in e] + [e["eval_loss"] for e in log if "eval_loss" in e], len(without)


def test_trl_trains_on_stored_log_probs_as_on_its_own(tiny_models, echo, config, arguments, monkeypatch):
    folder = tiny_models["llama"]
    ours = {split: to_trl(echo, folder, config(), split=split) for split in ("train", "test")}
    assert len(ours["train"]) == 16
    assert ours["train"]["pair_id"][:] == echo.pairs["train"]["pair_id"][:]

    def run(kind, data, **settings):
        trainer = kind(
            str(folder),
            args=arguments(**settings),
            train_dataset=data["train"],
            eval_dataset=data["test"],
            processing_class=AutoTokenizer.from_pretrained(folder),
        )
        return trainer, *steps(trainer)

    scored = []
    inner = trl.DPOTrainer.compute_ref_log_probs
    monkeypatch.setattr(trl.DPOTrainer, "compute_ref_log_probs", lambda *a, **k: scored.append(1) or inner(*a, **k))
    with_ours, losses, calls = run(stored_reference_trainer(), ours, precompute_ref_log_probs=True)
    assert with_ours.ref_model is None
    assert scored == []
    assert calls == 1  # the held-out batch of the policy; not one forward of a reference
    with_theirs, their_losses, _ = run(trl.DPOTrainer, echo.pairs)
    assert with_theirs.ref_model is not None
    assert losses == pytest.approx(their_losses, abs=1e-5)
    assert losses[1] < losses[0] - 0.001
    run(trl.DPOTrainer, echo.pairs, precompute_ref_log_probs=True)
    assert scored  # what is counted above is really where TRL scores


def test_log_probs_are_of_completions_whatever_the_loss(tiny_models, echo, config):
    plain, joint = (to_trl(echo, tiny_models["llama"], config(loss_type=kind)) for kind in ("rpo", "joint"))
    assert joint["ref_chosen_logps"][:] == plain["ref_chosen_logps"][:]


def test_settings_of_a_training_run_are_of_no_effect(tiny_models, make, config):
    data = make.dataset({"train": make.echo_pairs(4, seed=3)}, {"train": make.paired_groups("train", [[[0, 1, 2, 3]]])})
    args = config(eval_strategy="steps", push_to_hub=True, load_best_model_at_end=True, save_strategy="steps")
    assert len(to_trl(data, tiny_models["llama"], args)) == 4
    assert args.push_to_hub  # they are still what they were
    with pytest.raises(TrainingError, match="args are DPOConfig: give an RPOConfig"):
        to_trl(data, tiny_models["llama"], trl.DPOConfig(use_cpu=True, bf16=False))


def test_what_teaches_nothing_is_left_out_and_the_rest_keeps_its_order(tiny_models, make, config):
    rows = make.echo_pairs(4, seed=3)
    rows[1]["rejected"] = rows[1]["chosen"]
    data = make.dataset({"train": rows}, {"train": make.paired_groups("train", [[[0, 1, 2, 3]]])})
    got = to_trl(data, tiny_models["qwen2"], config())
    assert got["pair_id"][:] == [rows[number]["pair_id"] for number in (0, 2, 3)]
    tokenizer, row = AutoTokenizer.from_pretrained(tiny_models["qwen2"]), got[1]
    assert "yes" in tokenizer.decode(row["chosen_ids"])
    model = AutoModelForCausalLM.from_pretrained(tiny_models["qwen2"])
    tokens = row["prompt_ids"] + row["rejected_ids"]
    logits = model(torch.tensor([tokens])).logits[0].double().log_softmax(-1)
    by_hand = sum(logits[place - 1, tokens[place]].item() for place in range(len(row["prompt_ids"]), len(tokens)))
    assert row["ref_rejected_logps"] == pytest.approx(by_hand, abs=1e-4)


def test_an_unknown_split_is_refused(tiny_models, echo, config):
    with pytest.raises(DatasetError, match="the dataset has no split 'dev', it has train, test"):
        to_trl(echo, tiny_models["qwen2"], config(), split="dev")


def test_responses_are_refused(tiny_models, make, config):
    rows = make.echo_pairs(2, seed=3)
    data = make.dataset({"train": rows}, {"train": make.paired_groups("train", [[[0, 1]]])})
    unpaired = data.manifest.model_copy(update={"mode": "unpaired"})
    with pytest.raises(DatasetError, match="holds no pairs"):
        to_trl(type(data)(unpaired, data.rows, data.groups, data.neighbors), tiny_models["qwen2"], config())
