import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_views_switch_in_two_processes_and_after_a_resume_as_in_one(echo, tiny_models, tmp_path, monkeypatch):
    """Four groups a view, two a step: steps 0 and 1 are epoch 0, and checkpoint 3 lies in the middle of epoch 1.

    Two processes add the same numbers in another order than one does, so there figures are only near; a run that was
    resumed equals an uninterrupted one of as many processes to the bit.
    """
    for name in ("pairs", "groups", "neighbors"):
        getattr(echo, name).save_to_disk(str(tmp_path / name))
    (tmp_path / "manifest.json").write_text(echo.manifest.to_json())
    script = Path(__file__).with_name("two_views.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def run(name: str, processes: int, checkpoint: str = "none") -> list[dict]:
        given = [str(tmp_path), str(tiny_models["qwen2"]), str(tmp_path / name), str(2 // processes), checkpoint]
        if processes == 1:
            monkeypatch.setattr(sys, "argv", [str(script), *given])
            runpy.run_path(str(script))
        else:
            launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
            done = subprocess.run([*launch, str(script), *given], env=environment, stderr=subprocess.PIPE, text=True)
            assert done.returncode == 0, done.stderr[-3000:]
        return [json.loads(file.read_text()) for file in sorted((tmp_path / name).glob("rank-*.json"))]

    (one,), two = run("one", 1), run("two", 2)
    assert [rank["processes"] for rank in two] == [2, 2]
    assert one["views"] == [0, 0, 1, 1, 0, 0]
    for rank in two:
        assert rank["views"] == one["views"]
        assert rank["losses"] == pytest.approx(one["losses"], abs=1e-5)
    for whole, processes in ((one, 1), (two[0], 2)):
        folder = "one" if processes == 1 else "two"
        again = run(f"{folder}-again", processes, str(tmp_path / folder / "checkpoint-3"))
        assert len(again) == processes
        for rank in again:
            assert rank["views"] == one["views"][3:]
            assert rank["losses"] == whole["losses"]
            assert rank["weights"] == whole["weights"]
    assert two[0]["weights"] == two[1]["weights"]
    assert sorted(one["losses"]) == list("123456")
    assert one["losses"]["6"] < one["losses"]["1"] - 0.01  # it moved, so equal losses say something
