"""What comes with transformers.Trainer, and must work with contrast groups as it does elsewhere."""

import hashlib
import json
import math
import re

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer, EarlyStoppingCallback

from rpo_data import model_card
from rpo_data.errors import TrainingError
from rpo_data.trainer import RPOTrainer
from rpo_data.trainer.loss import LOSS_TYPES


def weights(trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


@pytest.mark.parametrize("bf16", [False, True])
def test_activation_checkpointing_computes_twice_and_changes_nothing(tiny_models, echo, config, bf16):
    runs, calls = [], []
    for on in (False, True):
        args = config(max_steps=3, activation_checkpointing=on, bf16=bf16, gradient_accumulation_steps=2)
        trainer = RPOTrainer(tiny_models["llama"], args, echo)
        count = []
        trainer.model.model.layers[0].mlp.register_forward_pre_hook(lambda *_, count=count: count.append(1))
        trainer.train()
        runs.append(weights(trainer))
        calls.append(len(count))
    assert calls[1] == 2 * calls[0] > 0
    assert torch.allclose(*runs, atol=1e-3 if bf16 else 1e-6)
    assert (runs[0] - weights(RPOTrainer(tiny_models["llama"], config(), echo))).abs().max() > 1e-2


@pytest.mark.parametrize("micro_batch_size", [None, 3])
def test_tokens_and_operations_are_counted_as_transformers_does(tiny_models, echo, config, micro_batch_size):
    args = config(max_steps=2, include_num_input_tokens_seen=True, micro_batch_size=micro_batch_size)
    trainer = RPOTrainer(tiny_models["llama"], args, echo)
    read = []
    embed = trainer.model.get_input_embeddings()
    embed.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].numel()))
    trainer.train()
    tokens = sum(read) // (1 if micro_batch_size is None else 2)  # pieces are read twice
    assert trainer.state.num_input_tokens_seen == tokens > 0
    assert trainer.state.total_flos == 6 * tokens * trainer.model.num_parameters(exclude_embeddings=True)


def test_the_best_model_is_the_one_at_the_end(tiny_models, echo, config, tmp_path):
    """The log-probs of the chosen rise at first and then fall (as they do in real runs), so the last is not the best."""
    args = config(
        max_steps=6, learning_rate=0.3, eval_strategy="steps", save_strategy="steps", eval_steps=1, save_steps=1,
        load_best_model_at_end=True, metric_for_best_model="logps/chosen", greater_is_better=True, eval_on_start=True,
    )  # fmt: skip
    trainer = RPOTrainer(tiny_models["qwen2"], args, echo, echo)
    trainer.train()
    values = {e["step"]: e["eval_logps/chosen"] for e in trainer.state.log_history if "eval_logps/chosen" in e}
    best = max((step for step in values if step), key=values.get)
    assert sorted(values) == list(range(7))
    assert values[best] > values[6] + 1e-3  # else nothing would have to be loaded
    assert trainer.state.best_model_checkpoint == str(tmp_path / "run" / f"checkpoint-{best}")
    assert trainer.evaluate()["eval_logps/chosen"] == pytest.approx(values[best], abs=1e-5)


def test_a_callback_can_end_the_run(tiny_models, echo, config):
    args = config(
        max_steps=50, learning_rate=0.0, eval_strategy="steps", save_strategy="steps", eval_steps=1, save_steps=1,
        load_best_model_at_end=True, metric_for_best_model="loss", save_total_limit=1,
    )  # fmt: skip
    trainer = RPOTrainer(tiny_models["qwen2"], args, echo, echo, callbacks=[EarlyStoppingCallback(2)])
    trainer.train()
    assert trainer.state.global_step == 3  # one best, and two that are no better


def test_tensorboard_gets_every_figure_from_the_first_step_on(tiny_models, echo, config, tmp_path, monkeypatch):
    writer = pytest.importorskip("tensorboardX")
    seen = []
    add = writer.SummaryWriter.add_scalar
    monkeypatch.setattr(writer.SummaryWriter, "add_scalar", lambda *a, **k: seen.append(a[1:4]) or add(*a, **k))
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    args = config(max_steps=2, report_to="tensorboard", eval_on_start=True)
    RPOTrainer(tiny_models["qwen2"], args, echo, echo).train()
    assert list((tmp_path / "board").rglob("events.out.tfevents.*"))
    for name in ("rewards/chosen", "rewards/margins", "rewards/accuracies", "logps/chosen", "logps/rejected", "loss"):
        assert [step for tag, _, step in seen if tag == f"train/{name}"] == [1, 2], name
        assert [step for tag, _, step in seen if tag == f"eval/{name}"] == [0], name


def test_the_model_card_says_what_made_the_model(tiny_models, echo, config, tmp_path):
    trainer = RPOTrainer(tiny_models["qwen2"], config(max_steps=2, eval_on_start=True, beta=0.3), echo, echo)
    trainer.train()
    after = trainer.evaluate()
    trainer.create_model_card(license="apache-2.0", dataset="someone/pairs", tags="chat", model_name="my-model")
    page = (tmp_path / "run" / "README.md").read_text()
    head = yaml.safe_load(page.split("---\n")[1])
    assert head == {
        "library_name": "transformers",
        "tags": ["rpo-data", "preference-optimization", "chat"],
        "license": "apache-2.0",
        "datasets": "someone/pairs",
    }
    assert "# my-model\n\nTrained from `qwen2` with" in page  # the name of a folder, and not where it lies
    assert str(tmp_path.parent) not in page
    assert f"`{hashlib.sha256(echo.manifest.to_json().encode()).hexdigest()}`" in page
    assert "Rows: 16 train, 4 test (paired mode)" in page
    assert all(
        line in page for line in ("| beta | 0.3 |", "| loss_type | rpo |", "| steps | 2 |", "| max_length | 1024 |")
    )
    assert "arXiv:2402.10958" in page
    assert f"| accuracy | 0.5000 | {after['eval_rewards/accuracies']:.4f} |" in page
    assert f"| margin of rewards | 0.0000 | {after['eval_rewards/margins']:.4f} |" in page


def test_the_model_card_shows_the_weights_that_were_used(tiny_models, echo, config, tmp_path):
    for given, shown in (
        ({}, {"temperature": f"{echo.manifest.temperature:g} (as built)", "normalize": "row (as built)"}),
        ({"temperature": 0.3}, {"temperature": "0.3", "normalize": "row (as built)"}),
        ({"normalize": "none"}, {"temperature": f"{echo.manifest.temperature:g} (as built)", "normalize": "none"}),
    ):
        trainer = RPOTrainer(tiny_models["qwen2"], config(max_steps=1, **given), echo)
        trainer.create_model_card()
        page = (tmp_path / "run" / "README.md").read_text()
        assert all(f"| {name} | {value} |" in page for name, value in shown.items())


def test_the_model_card_has_one_sign_of_zero():
    table = model_card._results([{"step": 2, "eval_loss": 0.5, "eval_rewards/margins": -1e-6}])
    assert "| margin of rewards | 0.0000 |" in table


def test_the_model_card_names_the_method_of_each_loss():
    others = set(LOSS_TYPES) - {"uniform", "diagonal"}  # which are the paper's own, too
    assert set(model_card._METHODS) == others


def test_the_model_card_of_adapters_names_a_base_on_the_hub(tiny_models, echo, config, tmp_path):
    peft = pytest.importorskip("peft")
    lora = peft.LoraConfig(r=4, target_modules="all-linear")
    trainer = RPOTrainer(tiny_models["qwen2"], config(max_steps=1), echo, peft_config=lora)
    trainer.train()
    trainer.save_model()
    trainer.create_model_card(finetuned_from="someone/base")
    page = (tmp_path / "run" / "README.md").read_text()
    head = yaml.safe_load(page.split("---\n")[1])
    assert (head["library_name"], head["base_model"]) == ("peft", "someone/base")
    assert "Adapters for `someone/base` with" in page
    assert "| r | 4 |" in page
    assert "Nothing was held out." in page


def test_push_to_hub_uploads_the_model_and_its_card(tiny_models, echo, config, tmp_path, monkeypatch):
    """No Hub is reachable here: the client stands in for it."""
    import transformers.trainer as stock

    sent = {}

    class Hub:
        def create_repo(self, repo_id, **_):
            return type("Repo", (), {"repo_id": repo_id})

        def upload_folder(self, **given):
            sent.update(given)

    monkeypatch.setattr(stock, "hf_api", Hub)
    trainer = RPOTrainer(tiny_models["qwen2"], config(max_steps=1, hub_model_id="someone/run"), echo, echo)
    trainer.train()
    trainer.evaluate()
    trainer.push_to_hub()
    assert (sent["repo_id"], sent["folder_path"]) == ("someone/run", str(tmp_path / "run"))
    assert (tmp_path / "run" / "model.safetensors").is_file()
    assert re.search(r"^# run$", (tmp_path / "run" / "README.md").read_text(), re.MULTILINE)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["model_type"] == "qwen2"


@pytest.mark.parametrize("missing", ["pad_token", "chat_template"])
def test_a_tokenizer_without_pad_token_or_template_will_do(tiny_models, echo, config, missing):
    first = []
    for taken in (None, missing):
        tokenizer = AutoTokenizer.from_pretrained(tiny_models["qwen2"])
        if taken:
            setattr(tokenizer, taken, None)
        trainer = RPOTrainer(tiny_models["qwen2"], config(max_steps=2), echo, echo, processing_class=tokenizer)
        trainer.train()
        first.append((trainer.evaluate()["eval_loss"], trainer.train_dataset.pairs.sequences.tokens.tolist()))
    losses, tokens = zip(*first, strict=True)
    assert losses[0] < math.log(2) - 1e-4
    if missing == "pad_token":  # padding is masked: another token there changes nothing
        assert tokens[0] == tokens[1]
        assert losses[1] == pytest.approx(losses[0], abs=1e-6)
    else:
        assert tokens[0] != tokens[1]
        assert losses[1] < math.log(2) - 1e-4


def test_a_folder_without_a_tokenizer_and_a_sequence_too_long_are_one_sentence(tiny_models, echo, config, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(tiny_models["qwen2"])
    model.save_pretrained(tmp_path / "bare")
    with pytest.raises(TrainingError, match="tokenizer") as caught:
        RPOTrainer(tmp_path / "bare", config(), echo)
    assert "\n" not in str(caught.value)
    model.config.max_position_embeddings = 8
    tokenizer = AutoTokenizer.from_pretrained(tiny_models["qwen2"])
    with pytest.raises(
        TrainingError, match=r"a sequence has \d+ tokens, the model takes 8: set max_length to that or less"
    ):
        RPOTrainer(model, config(), echo, processing_class=tokenizer)
