"""The interactive map: its view by hand, and the map itself in a real browser without any request to the outside."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from playwright.sync_api import sync_playwright
from tests_support import pair

from rpo_data import Recipe, build
from rpo_data.errors import MissingExtra, RpoDataError
from rpo_data.pipelines import explore as exploring

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
EVIL = "<img src=x onerror='window.hacked = 1'><script>window.hacked = 1</script>"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, cache_dir):
    folder = tmp_path_factory.mktemp("explored")
    topics = (
        "how do I bake bread with yeast",
        "which horse won the race",
        "is my car engine broken",
        "tax law of Spain",
    )
    records = [pair(n, prompt=f"{topics[n % 4]} {n * 37}? {EVIL}", chosen=f"{EVIL} {n}") for n in range(14)]
    logs = folder / "logs.jsonl"
    logs.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    recipe = Recipe(embedder="static", test_fraction=0.2, group_size=4, neighbors=3)
    return build(logs, folder / "out", recipe, cache_dir=cache_dir)


def test_the_view_holds_every_prompt_with_its_neighbours_group_and_weights(dataset, cache_dir):
    folder = exploring.write_view(dataset, cache_dir)
    view = pq.read_table(folder / "prompts.parquet").to_pylist()
    assert len(view) == 14
    row = 0
    for split in dataset.splits:
        start = row
        groups = {r: g for g in dataset.groups[split] for r in g["win_rows"]}
        pairs = {p["prompt_id"]: (place, p) for place, p in enumerate(dataset.pairs[split])}
        for near in dataset.neighbors[split]:
            told = view[row]
            place, logged = pairs[near["prompt_id"]]
            assert told["prompt"] == f"user: {logged['prompt'][-1]['content']}"
            assert told["chosen"] == logged["chosen"][-1]["content"]
            assert told["split"] == split
            assert told["neighbors"]["ids"] == [start + n for n in near["neighbors"]]
            np.testing.assert_allclose(told["neighbors"]["distances"], 1 - np.array(near["similarity"]), atol=1e-6)
            group = groups[place]
            assert told["group"] == group["group_id"]
            at = group["win_rows"].index(place)
            assert told["own_weight"] == pytest.approx(group["weight"][at][at] / sum(group["weight"][at]), abs=1e-4)
            row += 1
    labels = pq.read_table(folder / "labels.parquet").to_pylist()
    assert 1 <= len(labels) <= 8
    assert {told["topic"] for told in view} == {label["text"] for label in labels}


def test_refusals(dataset, cache_dir, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(exploring, "find_spec", lambda name: None)
        with pytest.raises(MissingExtra, match=r"pip install 'rpo-data\[explore\]'"):
            exploring.explore(dataset, cache_dir)
    monkeypatch.setattr(exploring, "find_spec", lambda name: True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(RpoDataError, match=r"port \d+ is taken: choose another with --port"):
            exploring.explore(dataset, cache_dir, port=taken.getsockname()[1])


def test_a_server_that_does_not_start_is_told(tmp_path):
    with socket.socket() as free, (tmp_path / "errors").open("w+b") as errors:
        free.bind(("127.0.0.1", 0))
        server = subprocess.Popen([sys.executable, "-c", "raise SystemExit('no room')"], stderr=errors)
        with pytest.raises(RpoDataError, match=r"embedding-atlas did not start \(no room\): install it again"):
            exploring._wait(server, free.getsockname()[1], errors)


@pytest.mark.slow
@pytest.mark.skipif(
    find_spec("embedding_atlas") is None, reason="the extra explore is not installed; .ci/run installs it"
)
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; .ci/run installs Debian's")
def test_the_map_opens_without_a_network_and_runs_nothing_of_the_data(dataset, cache_dir):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("rpo-data")), "explore", str(dataset.path), "--port", str(port)]
    command += ["--no-browse", "--cache-dir", str(cache_dir)]
    served = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    try:
        address = f"http://127.0.0.1:{port}"
        assert served.stdout.readline() == f"the map is at {address}; Ctrl-C stops it\n"
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1300, "height": 850})
            asked, errors = [], []
            page.on("request", lambda request: asked.append(request.url))
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.goto(address)
            page.get_by_text("14 points").first.wait_for(timeout=60_000)
            page.get_by_text("which horse won the race").first.wait_for(timeout=60_000)
            page.wait_for_timeout(500)
            assert page.evaluate("window.hacked") is None
            assert errors == []
            assert len(asked) > 10
            assert all(url.startswith((address, "blob:", "data:")) for url in asked), asked
            browser.close()
        served.send_signal(signal.SIGINT)
        assert served.wait(timeout=30) == 0
        assert served.stdout.read() == "stopped\n"
    finally:
        served.kill()
        served.wait()
