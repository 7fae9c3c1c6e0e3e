"""`rpo-data train` with adapters, and with two losses side by side."""

import itertools
import json
import re
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, TrainingArguments
from typer.testing import CliRunner

from rpo_data.errors import TrainingError
from rpo_data.pipelines.cli import app
from rpo_data.pipelines.compare import compare
from rpo_data.pipelines.train import train
from rpo_data.pipelines.train_settings import make_config, make_lora, read_settings
from rpo_data.trainer import RPOConfig, RPOTrainer
from rpo_data.trainer.loss import LOSS_TYPES


@pytest.fixture
def settings(tmp_path):
    return {
        "cache_dir": str(tmp_path / "cache"), "use_cpu": "true", "learning_rate": "1e-2", "logging_steps": "1",
        "max_steps": "4", "save_steps": "2",
    }  # fmt: skip


def test_lora_options_are_fields_of_loraconfig(tmp_path):
    file = tmp_path / "train.yaml"
    file.write_text("lora_r: 8\nlora_dropout: 0.1\nlora_target_modules: [q_proj, v_proj]\nbeta: 0.2\n")
    given = read_settings(file, ["--lora-r", "16", "--lora-alpha=32", "--lora-use-rslora", "true"])
    assert make_config(given, tmp_path).beta == 0.2
    lora = make_lora(given)
    assert (lora.r, lora.lora_alpha, lora.lora_dropout, lora.use_rslora) == (16, 32, 0.1, True)
    assert set(lora.target_modules) == {"q_proj", "v_proj"}
    assert set(make_lora({"lora_target_modules": "k_proj,o_proj"}).target_modules) == {"k_proj", "o_proj"}
    assert make_lora({"lora_r": 4}).target_modules == "all-linear"
    assert make_lora({"lora_bias": "all"}).bias == "all"
    starts = [make_lora({"lora_init_lora_weights": text}).init_lora_weights for text in ("gaussian", "false")]
    assert starts == ["gaussian", False]
    assert make_lora({"beta": 1}) is None


@pytest.mark.parametrize(
    ("option", "field", "value"),
    [
        (["--lora-target-modules", "q_proj"], "target_modules", {"q_proj"}),
        (["--lora-target-modules", "self_attn.q_proj, lm_head,"], "target_modules", {"self_attn.q_proj", "lm_head"}),
        (["--lora-target-modules", "all-linear"], "target_modules", "all-linear"),
        (["--lora-target-modules", r".*\.(q|k)_proj"], "target_modules", r".*\.(q|k)_proj"),
        (["--lora-target-modules", r".*\.\w{1,2}_proj"], "target_modules", r".*\.\w{1,2}_proj"),
        (["--lora-modules-to-save", "lm_head"], "modules_to_save", ["lm_head"]),
        (["--lora-modules-to-save", "none"], "modules_to_save", None),
        (["--lora-trainable-token-indices", "1,2"], "trainable_token_indices", [1, 2]),
        (["--lora-trainable-token-indices", "7"], "trainable_token_indices", [7]),
        (["--lora-target-modules", "q_proj", "--lora-layers-to-transform", "1,0"], "layers_to_transform", [1, 0]),
        (["--lora-target-modules", "q_proj", "--lora-layers-to-transform", "1"], "layers_to_transform", 1),
        (["--lora-use-dora"], "use_dora", True),
        (["--lora-use-rslora", "--lora-r", "4"], "use_rslora", True),
        (["--no-lora-init-lora-weights"], "init_lora_weights", False),
    ],
)
def test_lora_options_may_be_lists_and_flags(option, field, value):
    assert getattr(make_lora(read_settings(None, option)), field) == value


def test_one_plain_name_trains_those_modules(tiny_models, echo, settings, tmp_path):
    lines, options = [], ["--lora-target-modules", "q_proj", "--lora-modules-to-save", "lm_head", "--lora-use-dora"]
    given = settings | {"max_steps": 1} | read_settings(None, options)
    train(echo, str(tiny_models["llama"]), tmp_path / "out", given, say=lines.append)
    assert any(line.startswith("model     LoRA of rank 8 on q_proj: ") for line in lines)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"lora_rr": 4}, "'lora_rr' is no setting of LoRA: did you mean 'lora_r'?"),
        ({"lora_r": "many"}, "lora_r needs a value of type int, got 'many'"),
        ({"lora_layers_to_transform": "1,x"}, "lora_layers_to_transform needs a value of type int, got 'x'"),
        ({"lora_modules_to_save": 3}, "lora_modules_to_save needs a value of type list, got '3'"),
        ({"lora_r": 0}, "these adapters do not fit the model: `r` should be a positive integer"),
    ],
)
def test_wrong_lora_settings_are_one_sentence(tiny_models, echo, settings, sentence, tmp_path):
    with pytest.raises(TrainingError) as caught:
        train(echo, str(tiny_models["qwen2"]), tmp_path / "out", settings | {"use_cpu": True})
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_adapters_are_trained_saved_and_resumed(tiny_models, echo, settings, tmp_path, monkeypatch):
    settings |= {"lora_r": "4", "lora_alpha": "16"}
    whole = train(echo, str(tiny_models["qwen2"]), tmp_path / "whole", settings)
    step, count = RPOTrainer.training_step, itertools.count(1)

    def fourth_step_is_killed(self, *args, **kwargs):
        if next(count) == 4:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    out = tmp_path / "killed"
    with monkeypatch.context() as patch:
        patch.setattr(RPOTrainer, "training_step", fourth_step_is_killed)
        with pytest.raises(KeyboardInterrupt):
            train(echo, str(tiny_models["qwen2"]), out, settings)
    lines = []
    resumed = train(echo, str(tiny_models["qwen2"]), out, settings, say=lines.append)
    assert "resume    from " + str(out / "checkpoint-2") in lines
    assert train(echo, str(tiny_models["qwen2"]), out, settings | {"lora_r": 4})["steps"] == 4  # as YAML has it
    assert resumed["last_loss"] == pytest.approx(whole["last_loss"], abs=1e-6)
    assert resumed["last_loss"] < whole["first_loss"] - 1e-3
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_models["qwen2"]), out)
    assert "library_name: peft" in (out / "README.md").read_text()
    with pytest.raises(TrainingError, match=r"of another run: its lora is .*'r': 4.*, now it is .*'r': 8"):
        train(echo, str(tiny_models["qwen2"]), out, settings | {"lora_r": "8"})


def test_one_line_says_that_adapters_are_trained(tiny_models, echo, settings, tmp_path):
    lines = []
    given = settings | {"max_steps": 1, "lora_alpha": 8, "lora_target_modules": "v_proj,q_proj"}
    train(echo, str(tiny_models["qwen2"]), tmp_path / "out", given, say=lines.append)
    base = AutoModelForCausalLM.from_pretrained(tiny_models["qwen2"])
    sides = [sum(w.shape) for name, w in base.named_parameters() if name.endswith(("q_proj.weight", "v_proj.weight"))]
    trained, size = 8 * sum(sides), sum(p.numel() for p in base.parameters())  # A is (8, in), B is (out, 8)
    line = f"model     LoRA of rank 8 on q_proj, v_proj: {trained:,} of {size + trained:,} parameters are trained"
    first_log = next(n for n, text in enumerate(lines) if text.startswith(("held out", "step ")))
    assert lines.index(line) < first_log


def test_both_losses_see_the_same_pairs_and_stand_side_by_side(tiny_models, echo, settings, tmp_path, monkeypatch):
    seen, inner = [], RPOTrainer.compute_loss

    def noting(self, model, inputs, *args, **kwargs):
        if model.training:
            seen.append((self.args.loss_type, inputs["pieces"][0]["input_ids"].tolist()))
        return inner(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(RPOTrainer, "compute_loss", noting)
    lines = []
    results = compare(echo, str(tiny_models["qwen2"]), tmp_path / "out", settings, say=lines.append)
    batches = {name: [ids for loss_type, ids in seen if loss_type == name] for name in ("rpo", "dpo")}
    assert batches["rpo"] == batches["dpo"]
    assert len(batches["dpo"]) == 4
    for name, folder in (("rpo", tmp_path / "out"), ("dpo", tmp_path / "out" / "compare-dpo")):
        assert json.loads((folder / "rpo_run.json").read_text())["loss_type"] == name
        assert (folder / "model.safetensors").is_file()
        assert results[name]["steps"] == 4
    alone = train(echo, str(tiny_models["qwen2"]), tmp_path / "alone", settings | {"loss_type": "dpo"})
    assert "with [Direct Preference" in (tmp_path / "out" / "compare-dpo" / "README.md").read_text()
    assert "with [Relative Preference" in (tmp_path / "out" / "README.md").read_text()
    assert results["dpo"]["after"]["eval_loss"] == pytest.approx(alone["after"]["eval_loss"], abs=1e-6)

    table = lines[lines.index("held out  4 pairs, 4 steps each") + 1 :]
    assert table[0].split() == ["before", "rpo", "dpo"]
    margins = [results[name]["after"]["eval_rewards/margins"] for name in ("rpo", "dpo")]
    row = next(line for line in table if line.startswith("margin "))
    assert row.split()[-2:] == [f"{value:+.3f}" for value in margins]
    assert [line.split("  ")[0] for line in table[1:3]] == ["accuracy", "margin"]

    seen.clear()
    again = compare(echo, str(tiny_models["qwen2"]), tmp_path / "out", settings)
    assert seen == []  # both are finished: nothing is trained twice
    for name in ("rpo", "dpo"):
        assert again[name]["after"]["eval_loss"] == pytest.approx(results[name]["after"]["eval_loss"], abs=1e-6)


def test_a_comparison_killed_in_its_second_run_goes_on_there(tiny_models, echo, settings, tmp_path, monkeypatch):
    step, count = RPOTrainer.training_step, itertools.count(1)

    def eighth_step_is_killed(self, *args, **kwargs):
        if next(count) == 8:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    monkeypatch.setattr(RPOTrainer, "training_step", eighth_step_is_killed)
    with pytest.raises(KeyboardInterrupt):
        compare(echo, str(tiny_models["qwen2"]), tmp_path / "out", settings)
    lines = []
    results = compare(echo, str(tiny_models["qwen2"]), tmp_path / "out", settings, say=lines.append)
    assert "resume    from " + str(tmp_path / "out" / "compare-dpo" / "checkpoint-2") in lines
    assert {name: result["steps"] for name, result in results.items()} == {"rpo": 4, "dpo": 4}
    assert next(count) == 11  # 8 before the kill, two of them for nothing, and 2 of the second run after it


def test_what_cannot_be_compared_is_one_sentence(tiny_models, make, echo, settings, tmp_path):
    model, out = str(tiny_models["qwen2"]), tmp_path / "out"
    no_test = make.dataset({"train": make.echo_pairs(2, 0)}, {"train": make.paired_groups("train", [[[0, 1]]])})
    cases = [
        (echo, {"loss_type": "dpo"}, "dpo", "would train with loss_type 'dpo' twice: name another loss"),
        (no_test, {}, "dpo", "needs a test split, and the dataset has none"),
        (echo, {}, "dbo", "loss_type 'dbo' is not known: did you mean 'dpo'?"),
        (
            echo,
            {"push_to_hub": True},
            "dpo",
            "--compare does not go with push_to_hub, the second model would replace the",
        ),
    ]
    for data, more, other, sentence in cases:
        with pytest.raises(TrainingError) as caught:
            compare(data, model, out, settings | more, other)
        assert sentence in str(caught.value)
    unpaired = echo.manifest.model_copy(update={"mode": "unpaired"})
    data = type(echo)(unpaired, echo.rows, echo.groups, echo.neighbors)
    with pytest.raises(TrainingError, match="loss_type 'dpo' needs pairs, the dataset has responses"):
        compare(data, model, out, settings)
    assert not out.exists()


def test_runs_of_two_lengths_are_not_compared(tiny_models, echo, settings, tmp_path, monkeypatch):
    model, out = str(tiny_models["qwen2"]), tmp_path / "out"
    train(echo, model, out, settings | {"max_steps": 2})
    with monkeypatch.context() as patch:
        patch.setattr("rpo_data.pipelines.compare.train", None)  # neither run begins
        sentence = r"out was asked for max_steps 2 \(world size 1\), now for max_steps 4 \(world size 1\): the two runs"
        with pytest.raises(TrainingError, match=sentence):
            compare(echo, model, out, settings)
        train(echo, model, out, settings)  # goes on, under a schedule made anew
        with pytest.raises(TrainingError, match=sentence):
            compare(echo, model, out, settings)
    note = out / "rpo_run.json"
    older = {name: value for name, value in json.loads(note.read_text()).items() if name != "lengths"}
    note.write_text(json.dumps(older))
    lines = []
    compare(echo, model, out, settings | {"max_steps": 2}, say=lines.append)
    assert "held out  4 pairs, 4 steps and 2 steps" in lines


def test_a_second_folder_of_another_run_is_refused_before_the_first_run(
    tiny_models, echo, settings, tmp_path, monkeypatch
):
    settings, out = settings | {"max_steps": 1}, tmp_path / "out"
    (out / "compare-dpo").mkdir(parents=True)
    (out / "rpo_run.json").write_text("{}")
    train(echo, str(tiny_models["qwen2"]), out / "compare-dpo", settings | {"loss_type": "dpo"})
    monkeypatch.setattr("rpo_data.pipelines.compare.train", None)  # no run begins
    with pytest.raises(
        TrainingError, match=r"compare-dpo/checkpoint-1 is of another run: its beta is 0.1, now it is 0.3"
    ):
        compare(echo, str(tiny_models["qwen2"]), out, settings | {"beta": 0.3})
    with pytest.raises(TrainingError, match=r"compare-dpo/checkpoint-1 is of another run: its model is Qwen2"):
        compare(echo, str(tiny_models["llama"]), out, settings)


def test_help_names_every_loss_and_every_option_of_rpoconfig():
    text = CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"}).output
    words = " ".join(re.sub("[│|]", " ", text).split())
    assert f"dpo, or another of {', '.join(LOSS_TYPES)}." in words
    own = [name for name in RPOConfig.__dataclass_fields__ if name not in TrainingArguments.__dataclass_fields__]
    assert [name for name in own if f"--{name.replace('_', '-')}" not in words] == []
    section = re.search('docs/training.md lists them with their defaults under "(.*?)"', words)[1]
    assert f"## {section}" in (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_command_line_compares(tiny_models, echo, settings, tmp_path, monkeypatch):
    monkeypatch.setattr("rpo_data.dataset.load", lambda folder, revision: echo)
    options = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", value)]
    out = tmp_path / "out"
    command = ["train", "anywhere", "--model", str(tiny_models["qwen2"]), "--out", str(out), "--compare", "dpo"]
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    done = CliRunner().invoke(app, [*command, *options, "--lora-r", "4"], catch_exceptions=False)
    assert done.exit_code == 0
    assert not torch.distributed.is_initialized()  # its threads could abort Python at its end
    assert "loss (its own)" in done.output
    assert (out / "compare-dpo" / "adapter_model.safetensors").is_file()
