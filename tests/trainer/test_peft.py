import json
import math

import pytest
import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig
from transformers import AutoModelForCausalLM, AutoTokenizer

from rpo_data.errors import TrainingError
from rpo_data.trainer import RPOTrainer
from rpo_data.trainer.models import model_id

LORA = {"r": 4, "lora_alpha": 16, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}


def lora(**settings) -> LoraConfig:
    return LoraConfig(**LORA | settings)


def trained(model) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
def test_only_adapters_move_and_the_reference_is_the_base(tiny_models, echo, config, architecture):
    plain = RPOTrainer(tiny_models[architecture], config(), echo)
    trainer = RPOTrainer(tiny_models[architecture], config(max_steps=4), echo, peft_config=lora())
    assert (
        trainer.reference_id
        == plain.reference_id
        == model_id(AutoModelForCausalLM.from_pretrained(tiny_models[architecture]))
    )
    assert trainer.reference_computed == 0  # the base was scored by the plain run
    assert trainer.train_dataset.ref_logps.tolist() == plain.train_dataset.ref_logps.tolist()
    before = trained(trainer.model)
    assert all("lora_" in name for name in before)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-6)
    assert losses[-1] < losses[0] - 0.001
    after = trained(trainer.model)
    assert max((after[name] - before[name]).abs().max() for name in before) > 1e-3
    with trainer.model.disable_adapter():
        assert model_id(trainer.model) == plain.reference_id


def test_scored_with_adapters_off_even_where_they_do_something_at_once(tiny_models, echo, config):
    trainer = RPOTrainer(tiny_models["llama"], config(max_steps=1), echo, peft_config=lora(init_lora_weights=False))
    plain = RPOTrainer(tiny_models["llama"], config(cache_dir=trainer.args.cache_dir + "-2"), echo)
    assert trainer.reference_computed == plain.reference_computed > 0
    assert trainer.train_dataset.ref_logps.tolist() == plain.train_dataset.ref_logps.tolist()
    trainer.train()
    assert abs(trainer.state.log_history[0]["loss"] - math.log(2)) > 1e-4


def test_saved_adapters_load_with_peft_and_resume_goes_on(tiny_models, echo, config, tmp_path):
    def run(folder, resume=None):
        args = config(output_dir=str(tmp_path / folder), max_steps=6, save_strategy="steps", save_steps=3)
        trainer = RPOTrainer(tiny_models["qwen2"], args, echo, peft_config=lora())
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    whole = run("whole")
    resumed = run("again", str(tmp_path / "whole" / "checkpoint-3"))
    losses = [{e["step"]: e["loss"] for e in t.state.log_history if "loss" in e} for t in (whole, resumed)]
    assert losses[1] == losses[0]  # to the bit
    for name, value in trained(whole.model).items():
        assert torch.equal(value, trained(resumed.model)[name]), name

    whole.save_model(str(tmp_path / "saved"))
    assert not (tmp_path / "saved" / "model.safetensors").exists()
    base = AutoModelForCausalLM.from_pretrained(tiny_models["qwen2"])
    tokens = torch.arange(20)[None]
    without = base(tokens).logits
    loaded = PeftModel.from_pretrained(base, tmp_path / "saved")
    assert torch.equal(loaded(tokens).logits, whole.model.eval()(tokens).logits)
    assert not torch.allclose(loaded(tokens).logits, without, atol=1e-4)
    AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "adapter_config.json").read_text())["r"] == 4


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_changes_nothing_with_adapters(tiny_models, echo, config, reentrant):
    runs = []
    for on in (False, True):
        kwargs = {"use_reentrant": reentrant} if on else None
        args = config(max_steps=3, activation_checkpointing=on, activation_checkpointing_kwargs=kwargs, seed=7)
        trainer = RPOTrainer(tiny_models["llama"], args, echo, peft_config=lora())
        trainer.train()
        runs.append(trained(trainer.model))
    for name, value in runs[0].items():
        assert torch.allclose(value, runs[1][name], atol=1e-6), name
    assert any(value.abs().max() > 1e-3 for name, value in runs[1].items() if "lora_B" in name)  # B starts at 0


def test_a_model_with_adapters_of_its_own_starts_from_itself(tiny_models, echo, config):
    from peft import get_peft_model

    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_models["llama"]), lora(init_lora_weights=False))
    trainer = RPOTrainer(
        model, config(max_steps=1), echo, processing_class=AutoTokenizer.from_pretrained(tiny_models["llama"])
    )
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    with pytest.raises(TrainingError, match="has adapters already: merge them"):
        RPOTrainer(model, config(), echo, processing_class=trainer.processing_class, peft_config=lora())


def test_a_folder_of_adapters_is_read_frozen_and_refused_until_merged(tiny_models, echo, config, tmp_path):
    trainer = RPOTrainer(tiny_models["llama"], config(max_steps=1), echo, peft_config=lora())
    trainer.train()
    trainer.save_model(str(tmp_path / "adapters"))
    frozen = RPOTrainer(tmp_path / "adapters", config(max_steps=1), echo)
    with pytest.raises(TrainingError, match=r"the model is frozen: merge_and_unload"):
        frozen.train()
    base = AutoModelForCausalLM.from_pretrained(tiny_models["llama"])
    PeftModel.from_pretrained(base, tmp_path / "adapters").merge_and_unload().save_pretrained(tmp_path / "merged")
    trainer.processing_class.save_pretrained(tmp_path / "merged")
    merged = RPOTrainer(tmp_path / "merged", config(max_steps=1), echo)
    merged.train()
    assert merged.state.log_history[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize(
    ("adapters", "sentence"),
    [
        (lora(init_lora_weights="pissa"), "init_lora_weights 'pissa' changes the base, the reference"),
        (lora(target_modules=["nowhere"]), "these adapters do not fit the model"),
        (PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2), "PROMPT_TUNING adds tokens to the prompt"),
    ],
)
def test_adapters_that_cannot_work_are_one_sentence(tiny_models, echo, config, adapters, sentence):
    with pytest.raises(TrainingError, match=sentence) as caught:
        RPOTrainer(tiny_models["llama"], config(), echo, peft_config=adapters)
    assert "\n" not in str(caught.value)
