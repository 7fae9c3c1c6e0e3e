"""Whose log-probs are these, with peft: the id of a model with adapters on, off, and inactive."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from rpo_data.trainer import RPOTrainer
from rpo_data.trainer.models import model_id

peft = pytest.importorskip("peft")


@pytest.fixture
def base(tiny_models):
    return lambda: AutoModelForCausalLM.from_pretrained(tiny_models["qwen2"])


@pytest.fixture
def lora(base):
    """A model with LoRA weights that do something; keyword arguments go over the settings."""

    def build(seed=0, **settings):
        defaults = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "embed_tokens"], "init_lora_weights": False}
        torch.manual_seed(seed)
        return peft.get_peft_model(base(), peft.LoraConfig(**defaults | settings))

    return build


def test_weights_and_settings_of_adapters_count(base, lora):
    ids = [model_id(model) for model in (base(), lora(), lora(seed=1), lora(lora_alpha=16), lora(use_rslora=True))]
    assert len(set(ids)) == 5
    assert model_id(lora()) == ids[1]
    assert model_id(lora(target_modules=["embed_tokens", "q_proj"])) == ids[1]  # a set: its order says nothing


def test_switched_off_it_is_the_model_below(base, lora):
    model = lora(modules_to_save=["norm"])
    with model.disable_adapter():
        assert model_id(model) == model_id(base())
    assert model_id(model) != model_id(base())
    prompt = peft.get_peft_model(base(), peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
    with prompt.disable_adapter():
        assert model_id(prompt) == model_id(base())
    before = model_id(prompt)
    assert before != model_id(base())
    with torch.no_grad():
        prompt.prompt_encoder["default"].embedding.weight.mul_(2)
    assert model_id(prompt) != before


def test_only_the_active_adapter_counts(lora):
    model = lora()
    alone = model_id(model)
    model.add_adapter("other", peft.LoraConfig(r=2, target_modules=["v_proj"], init_lora_weights=False))
    assert model_id(model) == alone
    model.set_adapter("other")
    assert model_id(model) != alone


def test_a_saved_adapter_has_one_id_however_it_is_loaded(base, lora, tmp_path):
    model = lora()
    model.save_pretrained(tmp_path)
    assert model_id(peft.PeftModel.from_pretrained(base(), tmp_path)) == model_id(model)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert model_id(loaded) == model_id(model)
    loaded.disable_adapters()
    assert model_id(loaded) == model_id(base())


def test_a_reference_with_adapters_off_uses_what_its_base_stored(base, lora, echo, config, tiny_models):
    plain = RPOTrainer(tiny_models["qwen2"], config(), echo)
    model = lora()
    with model.disable_adapter():
        off = RPOTrainer(tiny_models["qwen2"], config(), echo, ref_model=model)
    assert (off.reference_id, off.reference_computed) == (plain.reference_id, 0)
    on = RPOTrainer(tiny_models["qwen2"], config(), echo, ref_model=lora())
    assert on.reference_computed == len(plain.train_dataset.ref_logps)
    assert abs(on.train_dataset.ref_logps - plain.train_dataset.ref_logps).max() > 1e-2
