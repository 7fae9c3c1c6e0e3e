import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


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

    On two once more in pieces of 3 sequences: the groups have 8, 4, 6 and 6, so the ranks take turns unevenly.
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
    # evaluate() before train() would leave every process with gradients of its own
    assert one["refused"] is None
    for two in more:
        assert "set eval_on_start=True" in two["refused"]
