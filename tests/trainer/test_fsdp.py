import json
import os
import re
import runpy
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rpo_data.pipelines.train_settings import make_config, read_settings
from rpo_data.trainer import RPOConfig, RPOTrainer


@pytest.fixture
def folder(make, tiny_models, tmp_path):
    """Groups of 4, 2, 3 and 3 pairs and as many again, so that two processes hold unequal cells; and both models."""
    members = [[0, 1, 2, 3], [4, 5], [6, 7, 8], [9, 10, 11]]
    members += [[12 + row for row in group] for group in members]
    rows = {split: make.echo_pairs(24, seed=seed) for seed, split in enumerate(("train", "test"))}
    data = make.dataset(rows, {split: make.paired_groups(split, [members]) for split in rows})
    for name in ("pairs", "groups", "neighbors"):
        getattr(data, name).save_to_disk(str(tmp_path / name))
    (tmp_path / "manifest.json").write_text(data.manifest.to_json())
    for name, path in tiny_models.items():
        (tmp_path / name).symlink_to(path)
    return tmp_path


def figures(log: list[dict]) -> list[dict[str, float]]:
    wanted = re.compile("loss|grad_norm|/")
    return [{name: value for name, value in entry.items() if wanted.search(name)} for entry in log]


def losses(log: list[dict]) -> dict[int, float]:
    return {entry["step"]: entry["loss"] for entry in log if "loss" in entry}


@pytest.mark.slow
def test_two_shards_equal_one_whole_model(folder, monkeypatch):
    """Two steps an epoch of four groups each: two batches of two in one process, of one in each of two.

    Checkpoint 3 lies in the middle of epoch 1. With tied embeddings (qwen2) and untied (llama), prompts shared and not.
    Measured: weights differ by up to 7e-7 (a step of Adam is 1e-2), figures by up to 3e-6 (log-probs are near -24).
    """
    script = Path(__file__).with_name("two_shards.py")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    given = [str(script), str(folder), str(folder / "sharded"), "sharded"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launch, *given], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    monkeypatch.setattr(sys, "argv", [str(script), str(folder), str(folder / "whole"), "whole"])
    runpy.run_path(str(script))

    one = json.loads((folder / "whole" / "rank-0.json").read_text())
    ranks = [json.loads((folder / "sharded" / f"rank-{rank}.json").read_text()) for rank in range(2)]
    assert (one["processes"], one["kind"]) == (1, "NO")
    assert [(rank["processes"], rank["kind"]) for rank in ranks] == [(2, "FSDP")] * 2
    assert len(one["runs"]) == 4
    for name, run in one["runs"].items():
        alone, (first, second) = run["all"], (rank["runs"][name] for rank in ranks)
        assert first["shards"].keys() == alone["weights"].keys()
        for parameter, (count, along, here, total) in first["shards"].items():
            assert (count, along) == (2, "(Shard(dim=0),)"), parameter
            assert (here + second["shards"][parameter][2], total) == (total, len(alone["weights"][parameter]))
            assert 0 < here < total
        for rank in (first, second):
            assert rank["again"]["weights"] == rank["all"]["weights"]  # resumed: equal to the bit
            assert losses(rank["again"]["log"]) == losses(rank["all"]["log"])
            for mine, theirs in zip(figures(rank["all"]["log"]), figures(alone["log"]), strict=True):
                assert mine == pytest.approx(theirs, abs=2e-5)
            for parameter, values in rank["all"]["weights"].items():
                assert values == pytest.approx(alone["weights"][parameter], abs=5e-6), parameter
        steps = losses(alone["log"])
        assert sorted(steps) == [1, 2, 3, 4]
        assert steps[4] < steps[1] - 0.01  # it moved, so equal weights say something
        assert (folder / "sharded" / name / "checkpoint-3" / "pytorch_model_fsdp.bin").is_file()
        saved = AutoModelForCausalLM.from_pretrained(folder / "sharded" / name)
        AutoTokenizer.from_pretrained(folder / "sharded" / name)
        assert {name: value.flatten().tolist() for name, value in saved.named_parameters()} == first["all"]["weights"]

    sentences = (
        "the model is in shards already",
        "fsdp does not work on CPUs, accelerate would",
        "micro_batch_size does not work under FSDP",
        "under fsdp evaluate() cannot run before train(): set eval_on_start=True instead",
    )
    for rank in ranks:
        for refused, sentence in zip(rank["refused"], sentences, strict=True):
            assert refused.startswith(sentence)


@pytest.mark.parametrize("given", [{"fsdp": True}, ["--fsdp"], ["--fsdp", "true"], ["--fsdp=full_shard"], []])
def test_fsdp_is_a_switch_in_yaml_and_on_the_command_line(tmp_path, monkeypatch, given):
    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "false")  # transformers sets it, for all that follow
    settings = given if isinstance(given, dict) else read_settings(None, given)
    args = make_config(settings | {"use_cpu": True}, tmp_path)
    assert (args.fsdp_plugin_args or {}).get("fsdp_version") == (2 if given else None)


@pytest.mark.parametrize(
    ("fsdp", "placed", "seen"), [(True, False, ["cuda", "cpu"]), (False, True, ["cuda", "cpu"]), (False, False, [])]
)
def test_a_model_goes_to_the_device_and_home_again(tiny_models, echo, config, monkeypatch, fsdp, placed, seen):
    """No device here: a stand-in for the model notes where it is sent. Stock places no model under FSDP."""

    class Model:
        device, sent = torch.device("cpu"), []

        def to(self, device: torch.device) -> None:
            self.device = device
            self.sent.append(device.type)

    trainer, model = RPOTrainer(tiny_models["qwen2"], config(), echo), Model()
    trainer.is_fsdp_enabled, trainer.place_model_on_device = fsdp, placed
    monkeypatch.setattr(RPOConfig, "device", torch.device("cuda"))
    with trainer._on_device(model):
        assert model.sent == seen[:1]
    assert model.sent == seen


def test_layouts_are_tried_and_references_scored_on_the_device(tiny_models, echo, config, monkeypatch):
    there, done = [], []

    @contextmanager
    def on_device(self, model):
        there.append(model)
        yield
        there.pop()

    def noting(module: str, name: str, place: int):
        inner = getattr(sys.modules[module], name)
        monkeypatch.setattr(
            f"{module}.{name}", lambda *a, **k: done.append((name, a[place] is there[-1])) or inner(*a, **k)
        )

    monkeypatch.setattr(RPOTrainer, "_on_device", on_device)
    noting("rpo_data.trainer.trainer", "fit_layout", 1)
    noting("rpo_data.trainer.trainer", "reference_logprobs", 0)
    RPOTrainer(tiny_models["qwen2"], config(), echo, ref_model=tiny_models["llama"])
    assert done == [("fit_layout", True), ("fit_layout", True), ("reference_logprobs", True)]
