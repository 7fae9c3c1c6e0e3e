"""docs/training.md: its code runs, its commands hold settings that exist, and it quotes sentences as they are."""

import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, TrainingArguments

import rpo_data.trainer
from rpo_data.pipelines.run_folder import FIXED_BY_A_RUN
from rpo_data.pipelines.train import train
from rpo_data.pipelines.train_settings import make_config, make_lora, read_settings
from rpo_data.trainer import RPOConfig, rpo_loss
from rpo_data.trainer.loss import LOSS_TYPES
from rpo_data.trainer.tokenize import TokenCounts, cut_row

ROOT = Path(__file__).parents[2]
SHORT = {"max_steps": 1, "use_cpu": True, "max_length": 128}
PAGE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def run(code: str, changes: dict[str, str]) -> dict:
    for old, new in changes.items():
        assert old in code, old
        code = code.replace(old, new)
    names = {}
    exec(code, names)
    return names


def test_all_code_is_tested_here():
    assert len(blocks("python")) == 4
    assert len(blocks("bash")) == 4
    assert len(blocks("yaml")) == 1


@pytest.mark.slow
def test_from_logs_to_an_adapter_and_to_trl(write_lines, sample_rows, tiny_models, cache_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    logs, model = write_lines("logs.jsonl", sample_rows[:24]), str(tiny_models["llama"])
    first, merge, _, last = blocks("python")
    recipe = 'Recipe(embedder="static", test_fraction=0.2, group_size=4)'
    short = "max_steps=1, use_cpu=True, max_length=128"
    names = run(
        first,
        {
            '"user/preferences", "dataset"': f'"{logs}", "dataset", RECIPE, cache_dir="{cache_dir}"',
            "num_train_epochs=1": short,
            "your/model": model,
            "data = build(": f"import rpo_data\nRECIPE = rpo_data.{recipe}\ndata = build(",
        },
    )
    assert names["trainer"].state.global_step == 1
    assert Path("run", "README.md").is_file()

    base = run(merge, {"your/model": model})["base"]
    merged = train(names["data"], "merged", "run-2", SHORT | {"lora_r": 4})
    assert merged["first_loss"] == pytest.approx(0.6931, abs=1e-4)  # the merged model is the reference
    one, two = (AutoModelForCausalLM.from_pretrained(name).state_dict() for name in (model, "merged"))
    assert one.keys() == two.keys()
    assert base.num_parameters() == sum(w.numel() for w in two.values())

    trl = pytest.importorskip("trl")
    run(last, {"your/model": model, "bf16=False": 'bf16=False, max_steps=1, use_cpu=True, report_to="none"'})
    assert trl.DPOTrainer.__name__ == "DPOTrainer"
    assert (tmp_path / "run-trl" / "checkpoint-1").is_dir()


def test_the_loss_in_a_loop_of_ones_own():
    names = run(blocks("python")[2], {})
    # cells (0, 0), (0, 1), (1, 1): 0.1 * weight * (r_win - r_loss), r = 1, 0.5 against -1, 0.5
    logits = torch.tensor([0.1 * 0.7 * 2.0, 0.1 * 0.3 * 0.5, 0.0])
    assert names["loss"].item() == pytest.approx(torch.nn.functional.softplus(-logits).mean().item(), abs=1e-6)
    assert names["policy"].grad[0] < 0 < names["policy"].grad[3]


def test_commands_hold_settings_that_exist(tmp_path):
    commands = [line for block in blocks("bash") for line in block.splitlines() if "rpo-data train" in line]
    assert len(commands) == 5
    for command in commands:
        words = shlex.split(command.partition("rpo-data train ")[2])
        options = dict(zip(words[1::2], words[2::2], strict=True))
        assert (options.pop("--model"), options.pop("--out")) in (("your/model", "run"), ("merged", "run-2"))
        assert options.pop("--compare", "dpo") == "dpo"
        assert options.pop("--config", "train.yaml") == "train.yaml"
        settings = read_settings(None, [word for pair in options.items() for word in pair])
        make_config(settings, tmp_path)
        assert (make_lora(settings) is None) == ("--lora-r" not in options)
    file = tmp_path / "train.yaml"
    file.write_text(blocks("yaml")[0])
    settings = read_settings(file, ["--use-cpu"])
    args = make_config(settings, tmp_path)
    assert args.load_best_model_at_end
    assert args.gradient_checkpointing
    assert make_lora(settings).r == 16


def test_options_of_rpoconfig_are_those_of_the_dataclass():
    table = PAGE.partition("## Options of RPOConfig")[2].partition("\n## ")[0]
    shown = re.findall(r"^\| `(\w+)` \| (.*?) \|", table, re.MULTILINE)
    own = [one for one in fields(RPOConfig) if one.name not in TrainingArguments.__dataclass_fields__]
    assert shown == [(one.name, _as_shown(one.default)) for one in own]
    (losses,) = re.findall(r"^\| `loss_type` .*one of (.*) \|$", table, re.MULTILINE)
    assert re.findall(r"`(\w+)`", losses) == list(LOSS_TYPES)


def _as_shown(default) -> str:
    return "not set" if default is None else f"`{str(default).lower() if isinstance(default, bool) else default}`"


def test_what_a_resumed_run_must_keep_is_told_in_full():
    (told,) = re.findall(r"any of these\s+differs: (.*?)\.\n\n", PAGE, re.DOTALL)
    assert tuple(re.findall(r"`(\w+)`", told)) == FIXED_BY_A_RUN


def test_ipo_starts_where_the_page_says():
    zero, ones = torch.zeros(2), torch.ones(2, 2)
    assert "`ipo` starts at 1 / (4 β²) instead, 25 at β = 0.1" in PAGE
    for beta in (0.1, 0.5):
        loss = rpo_loss(zero, zero, ones, beta, loss_type="ipo").item()
        assert loss == pytest.approx(1 / (4 * beta**2))


def test_max_length_cuts_as_the_page_says():
    prompt, responses = list(range(100, 120)), [list(range(5)), list(range(9))]
    cut = cut_row(prompt, responses, 16, None, TokenCounts("pairs"))
    assert cut == (prompt[-7:], responses)  # the longer response fits
    cut = cut_row(prompt, responses, 8, 100, TokenCounts("pairs"))
    assert cut == ([100, 119], [responses[0], responses[1][:6]])  # a quarter, with its BOS
    assert "so that the longer response fits, but never below a quarter of `max_length`" in PAGE


def test_sentences_are_quoted_as_they_are():
    folders = [Path(rpo_data.trainer.__file__).parent, ROOT / "pipelines", ROOT / "rpo_data"]
    source = "\n".join(file.read_text(encoding="utf-8") for folder in folders for file in folder.glob("*.py"))
    joined = re.sub(r'"\s*\n\s*f?"', "", source)
    quoted = re.findall(r'^\| .* \| "(.*)" \|$', PAGE, re.MULTILINE)
    assert len(quoted) == 13
    assert [sentence for sentence in quoted if sentence not in joined] == []
