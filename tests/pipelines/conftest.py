"""A small Hub with real clients, and a small dataset to push."""

import json
import shutil

import pytest
from hub_clients import TOKEN, Clients
from small_hub_server import SmallHub
from tests_support import pair

from rpo_data import Recipe, build
from rpo_data.pipelines.regroup import regroup


@pytest.fixture(scope="session")
def hub_server():
    with SmallHub() as server:
        yield server


@pytest.fixture(scope="session")
def hub_clients(hub_server, tmp_path_factory):
    with Clients(hub_server.endpoint, tmp_path_factory.mktemp("clients")) as clients:
        yield clients


@pytest.fixture
def hub(hub_server):
    """An empty Hub that knows the clients' token as `me`; a request that it does not know fails the test."""
    hub_server.reset()
    hub_server.state.tokens[TOKEN] = "me"
    yield hub_server
    assert hub_server.unknown == []


@pytest.fixture
def clients(hub, hub_clients):
    """Clients with an empty home: nothing is cached of another test."""
    hub_clients.started = lambda pid: None
    for path in hub_clients.folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return hub_clients


@pytest.fixture(scope="session")
def pushed_dataset(tmp_path_factory, cache_dir):
    """48 pairs in groups of four, two views, with a test split, a call of a tool, and licences in the recipe."""
    folder = tmp_path_factory.mktemp("pushed")
    logs = folder / "logs.jsonl"
    call = [{"type": "function", "function": {"name": "look_up", "arguments": {"word": "x"}}}]
    asked = [
        {"role": "user", "content": "look it up"},
        {"role": "assistant", "content": "wait", "tool_calls": call},
        {"role": "tool", "content": "found", "tool_call_id": "1", "name": "look_up"},
    ]
    answers = {side: [{"role": "assistant", "content": side}] for side in ("chosen", "rejected")}
    records = [pair(n, language="en") for n in range(47)] + [{"prompt": asked, "language": "en"} | answers]
    logs.write_text("".join(json.dumps(record) + "\n" for record in records) + "no json\n")
    recipe = Recipe(embedder="static", test_fraction=0.2, group_size=4, views=2, license={"*": "mit"})
    return build(logs, folder / "out", recipe, cache_dir=cache_dir)


@pytest.fixture(scope="session")
def other_dataset(pushed_dataset, tmp_path_factory, cache_dir):
    """The same rows and neighbours with other weights: another version of the same dataset."""
    folder = tmp_path_factory.mktemp("other") / "out"
    return regroup(pushed_dataset.path, folder, {"temperature": 0.7}, cache_dir=cache_dir)


@pytest.fixture(scope="session")
def responses_dataset(tmp_path_factory, cache_dir):
    """16 liked and disliked responses of two files, of which one has a licence in the recipe."""
    folder = tmp_path_factory.mktemp("responses")
    logs = [folder / name for name in ("a.jsonl", "b-1.jsonl")]
    for log in logs:
        rows = [{"prompt": f"{log.name} {n}", "completion": f"answer {n}", "label": n % 3 == 0} for n in range(8)]
        log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = Recipe(embedder="static", test_fraction=0, group_size=4, license="b-*=cc-by-4.0")
    return build(logs, folder / "out", recipe, cache_dir=cache_dir)


@pytest.fixture(scope="session")
def scored_dataset(tmp_path_factory, cache_dir):
    """24 scored responses: one may be a win of a group and a loss of it, too."""
    folder = tmp_path_factory.mktemp("scored")
    rows = [pair(n, score_chosen=5 + n % 3, score_rejected=n % 4) for n in range(12)]
    (folder / "logs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = Recipe(embedder="static", mode="scored", test_fraction=0, group_size=5, views=2, license="mit")
    return build(folder / "logs.jsonl", folder / "out", recipe, cache_dir=cache_dir)
