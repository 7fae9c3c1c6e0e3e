"""The trainer benchmark on a few pairs: what it compares is comparable."""

import argparse
import importlib.util
import math
import os
from pathlib import Path

import pytest
import torch

FILE = Path(__file__).parents[2] / "benchmarks" / "trainer.py"


@pytest.mark.slow
def test_all_train_on_the_same_pairs_from_log_2(sample, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", os.environ.copy())  # the benchmark keeps the libraries quiet by it
    spec = importlib.util.spec_from_file_location("benchmarks_trainer", FILE)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    options = argparse.Namespace(
        cache=tmp_path,
        data=sample,
        pairs=8,
        tiny=True,
        model=None,
        device="cpu",
        dtype="float32",
        built=False,
        groups=1,
        encoder=None,
    )
    options.model = benchmark.prepare_model(options)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        data = benchmark.prepare("short", options)
        assert "TRL [" in benchmark.check_losses(data, options)  # else it exits
        contestants = {name: benchmark.make_contestant(name, data, options) for name in benchmark.CONTESTANTS}
        found = benchmark.race(contestants)
    finally:
        torch.set_num_threads(threads)
    for name, figures in found.items():
        assert figures["loss"] == pytest.approx(math.log(2), abs=1e-4), name
        assert all(parameter.grad is None for parameter in contestants[name].models[0].parameters())
    tokens = {name: figures["tokens"] for name, figures in found.items()}
    assert tokens["paper"] == 2 * tokens["TRL"]  # the reference reads the batch, too
    assert tokens["ours"] < tokens["ours, not shared"] < tokens["TRL"]  # no prompt twice; no padding; both
    for figures in found.values():
        figures["groups"] = 1
    rows = [benchmark.row_of("short", name, found) for name in found]
    assert len({row.count("|") for row in rows}) == 1
