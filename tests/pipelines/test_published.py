"""A published dataset read back by the real clients: ours, `datasets`, TRL; and every snippet of its card runs."""

import json
import re
import shutil
import subprocess
import sys
import textwrap

import hub_faults as faults
import pytest
import yaml

from rpo_data import Recipe, build
from rpo_data.pipelines.tiny_model import dataset_texts, make_tiny_model


@pytest.fixture
def published(hub, clients, pushed_dataset):
    """The dataset on the Hub, with all its tables; gives its card."""
    done = clients.rpo_data("push", pushed_dataset.path, "me/data", "--tag", "v1", "--unpaired", "--llamafactory")
    assert done.status == 0, done.stderr
    hub.calls.clear()
    return hub.state.files("me/data")["README.md"].decode()


@pytest.fixture(scope="session")
def model(tmp_path_factory, pushed_dataset):
    folder = tmp_path_factory.mktemp("model")
    make_tiny_model(folder, dataset_texts(pushed_dataset))
    return folder


def dump(code: str) -> str:
    """Code that prints as JSON what `result` is."""
    return textwrap.dedent(code) + "\nimport json; print(json.dumps(result))"


def test_rows_are_equal_one_by_one(hub, clients, published, pushed_dataset):
    code = f"""
        from rpo_data import load
        here, there = load({str(pushed_dataset.path)!r}), load("me/data")
        assert here.manifest == there.manifest
        assert here.splits == there.splits == ["train", "test"]
        result = {{}}
        for name in ("rows", "groups", "neighbors"):
            for split in here.splits:
                ours, theirs = getattr(here, name)[split], getattr(there, name)[split]
                assert ours.features == theirs.features
                assert ours[:] == theirs[:]
                assert theirs._fingerprint == here.manifest.tables[f"{{'pairs' if name == 'rows' else name}}/{{split}}"]
                result[f"{{name}}/{{split}}"] = len(theirs)
        assert here.group("train-0-1") == there.group("train-0-1")
    """
    counts = json.loads(clients.python(dump(code)).stdout)
    assert counts["rows/train"] + counts["rows/test"] == 48
    assert min(counts.values()) > 0


def test_files_name_features_only_where_messages_call_tools(hub, clients, published, responses_dataset):
    """Old versions of `datasets` refuse features that they do not know."""
    clients.rpo_data("push", responses_dataset.path, "me/liked", "--license", "mit", "--llamafactory")
    named = {}
    for name in ("me/data", "me/liked"):
        files = {path: content for path, content in hub.state.files(name).items() if path.endswith("parquet")}
        named[name] = {path.split("/")[0] for path, content in files.items() if b'"_type"' in content}
    assert named == {"me/data": {"pairs", "unpaired"}, "me/liked": set()}
    assert "`datasets` 4.7 or newer is needed" in published
    assert "is needed" not in hub.state.files("me/liked")["README.md"].decode()


def test_requests_of_load(hub, clients, published):
    """The contract with `snapshot_download`: one commit is asked for, and only our tables and the manifest are read."""
    clients.python("from rpo_data import load; load('me/data', revision='v1')")
    kinds = [kind for kind, _ in hub.calls]
    assert kinds[:2] == ["info", "tree"]
    assert set(kinds[2:]) == {"head", "resolve", "download"}
    asked = {path.partition("/resolve/")[2].partition("/")[2] for kind, path in hub.calls if kind == "head"}
    tables = {
        f"{name}/{split}-00000-of-00001.parquet"
        for name in ("pairs", "groups", "neighbors")
        for split in ("train", "test")
    }
    assert asked == {"manifest.json", *tables}


def test_requests_of_load_dataset(hub, clients, published):
    """The contract with `datasets`: what `load_dataset` asks for."""
    clients.python("from datasets import load_dataset; load_dataset('me/data', 'neighbors', split='test')")
    assert {kind for kind, _ in hub.calls} == {"info", "tree", "head", "resolve", "download"}


def test_a_second_load_downloads_nothing_and_works_offline(hub, clients, published):
    clients.python("from rpo_data import load; load('me/data')")
    hub.calls.clear()
    clients.python("from rpo_data import load; load('me/data')")
    assert {kind for kind, _ in hub.calls} == {"info"}
    hub.calls.clear()
    code = """
        import huggingface_hub.constants
        huggingface_hub.constants.HF_HUB_OFFLINE = True
        from rpo_data import load
        result = len(load("me/data").pairs["train"])
    """
    assert json.loads(clients.python(dump(code)).stdout) > 0
    assert hub.calls == []


def test_two_processes_may_load_at_once(hub, clients, published):
    """As the processes of one training run do."""
    code = """
        import os
        from rpo_data import load
        children = [os.fork() for _ in range(1)]
        rows = len(load("me/data").pairs["train"])
        if children[0] == 0:
            os._exit(rows)
        result = [rows, os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1])]
    """
    ours, theirs = json.loads(clients.python(dump(code)).stdout)
    assert ours == theirs > 0


def test_an_earlier_version_by_tag(hub, clients, published, pushed_dataset, other_dataset):
    clients.rpo_data("push", other_dataset.path, "me/data")
    code = """
        from rpo_data import load
        result = [load("me/data", revision=revision).manifest.temperature for revision in ("v1", None)]
    """
    temperatures = json.loads(clients.python(dump(code)).stdout)
    assert temperatures == [pushed_dataset.manifest.temperature, 0.7]


def test_streams_and_rows_of_each_mode(hub, clients, published, pushed_dataset, responses_dataset, scored_dataset):
    """A stream gives the groups of view 0 in order, with texts, and `datasets` asks for parts of the files alone."""
    clients.rpo_data("push", responses_dataset.path, "me/liked", "--license", "mit")
    clients.rpo_data("push", scored_dataset.path, "me/scored")
    hub.calls.clear()
    code = """
        from rpo_data import load
        from rpo_data.stream import stream_groups
        wanted = [("me/data", "train"), ("me/data", "test"), ("me/liked", "train"), ("me/scored", "train")]
        result = [list(stream_groups(*name)) for name in wanted]
    """
    streams = json.loads(clients.python(dump(code)).stdout)
    assert {kind for kind, _ in hub.calls} == {"info", "tree", "head", "resolve", "download"}
    expected = [
        (pushed_dataset, "train"),
        (pushed_dataset, "test"),
        (responses_dataset, "train"),
        (scored_dataset, "train"),
    ]
    for groups, (data, split) in zip(streams, expected, strict=True):
        assert groups == [data.group(name) for name in data.view(split, 0)["group_id"]]
        assert len(groups) > 1
    assert any(set(group["win_rows"]) & set(group["loss_rows"]) for group in streams[-1])
    code = """
        from rpo_data import load
        result = [load(name).responses["train"][:] for name in ("me/liked", "me/scored")]
    """
    rows = json.loads(clients.python(dump(code)).stdout)
    assert rows == [data.responses["train"][:] for data in (responses_dataset, scored_dataset)]


def test_a_folder_goes_before_the_hub(hub, clients, published, pushed_dataset, other_dataset):
    code = """
        from rpo_data import load
        result = load("me/data").manifest.temperature
    """
    assert json.loads(clients.python(dump(code)).stdout) == pushed_dataset.manifest.temperature
    hub.calls.clear()
    shutil.copytree(other_dataset.path, clients.folder / "me" / "data")
    assert json.loads(clients.python(dump(code)).stdout) == other_dataset.manifest.temperature
    assert hub.calls == []
    done = clients.rpo_data("show", "me/data", "--revision", "v1")
    assert "me/data is a folder and has no revision 'v1': revisions are of datasets on the Hub" in done.stderr


def test_what_is_not_there(hub, clients, published):
    hub.state.repositories["me/data"].refs["refs/heads/other"] = next(iter(hub.state.repositories["me/data"].commits))
    for name, revision, sentence in [
        ("me/nothing", None, "there is no dataset me/nothing on the Hub, or you may not read it"),
        ("me/data", "v9", "me/data has no such branch, tag or commit"),
        ("me/data", "other", "me/data on the Hub is no mined contrast dataset: it holds no manifest.json"),
    ]:
        done = clients.rpo_data("show", name, *(["--revision", revision] if revision else []))
        assert done.status == 1
        assert sentence in done.stderr


def test_a_download_that_is_cut_or_slow_is_finished(hub, clients, published):
    for fault, when in ((faults.cut_in_answer, "before"), (faults.status(503), "before"), (faults.slow, "start")):
        hub.fail("download", fault, when=when)
    hub.fail("info", faults.status(500))
    hub.fail("tree", faults.cut)
    done = clients.rpo_data("show", "me/data", "--group", "train-0-0")
    assert done.status == 0, done.stderr
    assert "group train-0-0: 4 wins x 4 losses" in done.stdout


def test_files_that_were_mixed_up_by_hand_are_noticed(hub, clients, published, other_dataset):
    tree = hub.state.repositories["me/data"].tree()
    wrong = hub.state.repositories["me/data"].tree("v1")
    clients.rpo_data("push", other_dataset.path, "me/data", "--unpaired", "--llamafactory")
    tree = hub.state.repositories["me/data"].tree()
    path = "groups/train-00000-of-00001.parquet"
    assert tree[path] != wrong[path]
    tree[path] = wrong[path]
    done = clients.rpo_data("show", "me/data")
    assert done.status == 1
    assert f"{path} is not the table that the manifest names, it is from another build" in done.stderr
    del tree[path]
    # a commit never changes on the real Hub, so the client may keep its listing: name the new state anew
    repository = hub.state.repositories["me/data"]
    repository.add("refs/heads/main", "x", dict(tree), "by hand")
    done = clients.rpo_data("show", "me/data")
    assert "groups/ has 0 of 1 files of split 'train': push the dataset again" in done.stderr


def blocks(card: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", card, re.DOTALL | re.MULTILINE)


def test_the_card_has_code_for_each_tool(published):
    assert len(blocks(published, "python")) == 3
    assert len(blocks(published, "bash")) == 1
    assert len(blocks(published, "yaml")) == 2


def test_the_snippets_for_datasets_and_rpo_data_run(hub, clients, published, pushed_dataset):
    first, second, _ = blocks(published, "python")
    code = first + "result = [wins['pair_id'][:], losses['pair_id'][:], groups.num_rows]"
    wins, losses, groups = json.loads(clients.python(dump(code)).stdout)
    group = pushed_dataset.group("train-0-0")
    assert wins == [row["pair_id"] for row in group["wins"]]
    assert losses == [row["pair_id"] for row in group["losses"]]
    assert groups == len(pushed_dataset.groups["train"])
    assert json.loads(clients.python(dump(second + "result = group")).stdout) == group


@pytest.mark.slow
def test_the_snippets_for_trl_run(hub, clients, published, responses_dataset, model):
    clients.rpo_data("push", responses_dataset.path, "me/liked", "--license", "mit")
    liked = hub.state.files("me/liked")["README.md"].decode()
    parts = []
    for kind, code in (("DPO", blocks(published, "python")[2]), ("KTO", blocks(liked, "python")[2])):
        settings = f'"{clients.folder}/{kind}", max_steps=1, use_cpu=True, report_to="none", bf16=False'
        for old, new in [('"your/model"', repr(str(model))), (f'{kind}Config("run")', f"{kind}Config({settings})")]:
            assert old in code
            code = code.replace(old, new)
        parts.append(f"{code}\nsteps.append(trainer.state.global_step)\n")
    done = clients.python(dump("steps = []\n" + "".join(parts) + "result = steps"))
    assert json.loads(done.stdout.splitlines()[-1]) == [1, 1]


@pytest.mark.slow
def test_the_whole_way_of_real_dialogues(hub, clients, sample, cache_dir, model, tmp_path):
    """HH pairs: build, push, push again, load in a fresh process; train one step as the card says."""
    recipe = Recipe(embedder="static", test_fraction=0.1, views=2, license="mit")
    built = build(sample, tmp_path / "out", recipe, limit=200, cache_dir=cache_dir)

    def fresh(*arguments: object) -> str:
        command = [sys.executable, "-m", "rpo_data.pipelines.cli", *map(str, arguments)]
        done = subprocess.run(command, env=clients.environment(), cwd=clients.folder, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    assert "11 files changed, all read back" in fresh("push", built.path, "me/hh", "--tag", "v1")
    uploads = hub.count("upload")
    assert "unchanged me/hh holds all of it already" in fresh("push", built.path, "me/hh")
    assert (hub.count("upload"), hub.count("commit")) == (uploads, 1)
    (snippet,) = blocks(hub.state.files("me/hh")["README.md"].decode(), "bash")
    program, *words = snippet.replace("your/model", str(model)).split()
    assert (program, words[:2]) == ("rpo-data", ["train", "me/hh"])
    short = ["--revision", "v1", "--max-steps", 1, "--use-cpu", "--max-length", 48, "--save-strategy", "no"]
    assert "loss 0.6931" in fresh(*words, *short)  # log 2: the policy is the reference
    assert (clients.folder / "run" / "model.safetensors").is_file()
    code = f"""
        from rpo_data import load
        here, there = load({str(built.path)!r}), load("me/hh")
        for split in here.splits:
            for name in ("rows", "groups", "neighbors"):
                assert getattr(here, name)[split][:] == getattr(there, name)[split][:]
        result = len(there.pairs["train"])
    """
    assert json.loads(clients.python(dump(code)).stdout) == len(built.pairs["train"]) > 100


def test_the_snippet_for_axolotl_names_rows_that_it_reads(hub, clients, published):
    """By Axolotl's documented rules of `chat_template.default`: known roles, the last message of each side, texts."""
    settings = yaml.safe_load(blocks(published, "yaml")[0])
    (dataset,) = settings["datasets"]
    assert (settings["rl"], dataset["type"]) == ("dpo", "chat_template.default")
    code = f"""
        from datasets import load_dataset
        rows = load_dataset({dataset["path"]!r}, name={dataset["name"]!r}, split={dataset["split"]!r})
        result = [[row[{dataset["field_messages"]!r}], row["chosen"][-1], row["rejected"][-1]] for row in rows]
    """
    rows = json.loads(clients.python(dump(code)).stdout)
    assert len(rows) > 10
    for messages, *answers in rows:
        for message in [*messages, *answers]:
            assert message["role"] in ("user", "assistant", "system", "tool")
            assert isinstance(message["content"], str)
        assert [answer["role"] for answer in answers] == ["assistant"] * 2


def test_the_snippet_for_llamafactory_names_rows_that_it_reads(hub, clients, published):
    """By LLaMA-Factory's rules of the sharegpt format with ranking: user and assistant in turn, each side one dict."""
    settings = yaml.safe_load(blocks(published, "yaml")[1])
    assert settings == {"stage": "dpo", "dataset_dir": "REMOTE:me/data", "dataset": "data"}
    entry = json.loads(hub.state.files("me/data")["dataset_info.json"])[settings["dataset"]]
    assert (entry["formatting"], entry["ranking"]) == ("sharegpt", True)
    columns, tags = entry["columns"], entry["tags"]
    code = f"""
        from datasets import load_dataset
        rows = load_dataset({entry["hf_hub_url"]!r}, name={entry["subset"]!r}, split={entry["split"]!r})
        result = list(rows)
    """
    rows = json.loads(clients.python(dump(code)).stdout)
    assert len(rows) > 10
    for row in rows:
        messages, sides = row[columns["messages"]], [row[columns[side]] for side in ("chosen", "rejected")]
        roles = [message[tags["role_tag"]] for message in messages]
        assert roles == [tags["user_tag"], tags["assistant_tag"]] * (len(roles) // 2) + [tags["user_tag"]]
        assert all(isinstance(message[tags["content_tag"]], str) for message in [*messages, *sides])
        assert [side[tags["role_tag"]] for side in sides] == [tags["assistant_tag"]] * 2
