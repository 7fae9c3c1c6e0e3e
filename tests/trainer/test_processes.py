import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rpo_data import Recipe, build


@pytest.fixture
def folder(make, tiny_models, tmp_path):
    """Dataset, reference and a policy away from it, on disk. Five test groups: the last batch of two ranks is filled up."""
    draw = np.random.default_rng(0)
    more = ("score_chosen", "score_rejected", "weight")
    rows = [row | dict(zip(more, draw.uniform(0.5, 2, 3).tolist(), strict=True)) for row in make.echo_pairs(12, seed=5)]
    members, masks = [[0, 1, 2, 3], [4, 5], [6, 7, 8], [9, 10, 11]], [np.ones((4, 4)), np.eye(2), np.ones((3, 3))]
    masks.append(np.array([[1.0, 0, 0], [0, 0, 0], [1, 0, 0]]))
    groups = [
        make.group_row("train", 0, number, rows_in, rows_in, mask * draw.uniform(0.1, 1, mask.shape))
        for number, (rows_in, mask) in enumerate(zip(members, masks, strict=True))
    ]
    last = make.group_row("test", 0, 4, [0, 4], [0, 4], np.full((2, 2), 0.5))
    tests = [row | {"group_id": row["group_id"].replace("train", "test")} for row in groups] + [last]
    data = make.dataset({"train": rows, "test": rows}, {"train": groups, "test": tests})
    for name in ("pairs", "groups", "neighbors"):
        getattr(data, name).save_to_disk(str(tmp_path / name))
    (tmp_path / "manifest.json").write_text(data.manifest.to_json())
    model = AutoModelForCausalLM.from_pretrained(tiny_models["qwen2"])
    AutoTokenizer.from_pretrained(tiny_models["qwen2"]).save_pretrained(tmp_path / "model")
    model.save_pretrained(tmp_path / "model")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(tmp_path / "policy")
    return tmp_path


@pytest.mark.slow
def test_two_processes_equal_one(folder):
    """Four groups a step: two a batch and two batches on one process, one a batch and two batches on each of two.

    On two once more in pieces of 3 sequences: the groups have 8, 4, 6 and 6, so the ranks take turns unevenly. At the end
    three steps, and the best model is loaded on every rank.
    """
    script = Path(__file__).with_name("two_processes.py")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
    running = []
    for processes, pieces in ((1, 0), (2, 0), (2, 3)):
        out = folder / f"{processes}-{pieces}"
        out.mkdir()
        command = [*launch, str(processes), str(script), str(folder), str(out), str(2 // processes), str(pieces)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        running.append((out, subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)))
    results = []
    for out, process in running:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors[-3000:]
        results.append(json.loads((out / "result.json").read_text()))
    one, *more = results
    assert [result["processes"] for result in results] == [1, 2, 2]
    assert [result["files"] for result in results] == [1, 1, 1]  # only the main process wrote, and only once
    for two, loss_type in itertools.product(more, ("rpo", "diagonal", "lipo")):
        alone, shared = one["losses"][loss_type], two["losses"][loss_type]
        assert shared["reference"] == pytest.approx(alone["reference"], abs=1e-4)
        for part in ("before", "log"):
            for name in alone[part]:
                if "loss" in name or "rewards" in name or "logps" in name:
                    assert shared[part][name] == pytest.approx(alone[part][name], abs=1e-5), name
        assert shared["parameters"] == pytest.approx(alone["parameters"], abs=1e-6)
    for result in results:  # the loss only falls, so the highest is the first, and the last is not
        best, losses = result["best"], result["best"]["losses"]
        assert list(losses) == list("0123")
        assert losses == pytest.approx(one["best"]["losses"], abs=1e-5)
        assert losses["1"] > losses["2"] + 1e-4 > losses["3"] + 2e-4
        assert best["after"] == losses["1"]
        assert Path(best["checkpoint"]).name == "checkpoint-1"
        loaded = AutoModelForCausalLM.from_pretrained(best["checkpoint"]).parameters()
        assert best["weights"] == [torch.cat([p.flatten() for p in loaded]).tolist()] * result["processes"]
    # evaluate() before train() would leave every process with gradients of its own
    assert one["refused"] is None
    for two in more:
        assert "set eval_on_start=True" in two["refused"]


@pytest.mark.slow
def test_the_documented_commands_start_two_processes(write_lines, sample_rows, tiny_models, cache_dir, tmp_path):
    """As docs/training.md has them, but for the number of processes, in a folder that holds what they name."""
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    section = page.partition("\n## Several processes\n")[2].partition("\n## ")[0]
    commands = re.findall("^(?:torchrun|accelerate) .*$", section, re.MULTILINE)
    recipe = Recipe(embedder="static", test_fraction=0.2, group_size=4)
    build(write_lines("logs.jsonl", sample_rows[:24]), tmp_path / "dataset", recipe, cache_dir=cache_dir)
    (tmp_path / "train.yaml").write_text("max_steps: 1\nmax_length: 64\nlearning_rate: 1e-2\n")
    (tmp_path / "your").mkdir()
    (tmp_path / "your" / "model").symlink_to(tiny_models["llama"])
    programs = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    environment |= {"XDG_CACHE_HOME": str(tmp_path / "home"), "PET_STANDALONE": "1"}  # a free port, not always the same
    saved = []
    for command in commands:
        out = f"run-{command.split()[0]}"
        words = [{"8": "2", "run": out}.get(word, word) for word in shlex.split(command)] + ["--use-cpu"]
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        ranks = (tmp_path / out / "checkpoint-1").glob("rng_state*")
        assert sorted(file.name for file in ranks) == ["rng_state_0.pth", "rng_state_1.pth"]
        assert (done.stdout + done.stderr).count("saved     ") == 1  # the main process speaks for both
        saved.append((tmp_path / out / "model.safetensors").read_bytes())
    assert len(commands) == 2
    assert saved[0] == saved[1] != (tiny_models["llama"] / "model.safetensors").read_bytes()
