"""Pushing to a small Hub with the real client: what goes up, what stays, and which requests are made."""

import json
import re
import subprocess
import sys
import textwrap

import pyarrow.parquet as pq
import pytest
import yaml
from hub_clients import TOKEN
from small_hub import small_file

from rpo_data import Recipe, build
from rpo_data.errors import DatasetError, RecipeError
from rpo_data.hub import Target
from rpo_data.pipelines.push import ask_licenses, push, source_licenses

TABLES = ["pairs", "groups", "neighbors"]
PLOTS = {"plots/similarity.svg", "plots/losses.svg"}


def paths(*tables: str) -> set[str]:
    return {f"{table}/{split}-00000-of-00001.parquet" for table in tables for split in ("train", "test")}


def head(card: bytes) -> dict:
    return yaml.safe_load(card.decode().split("---\n")[1])


def test_a_push_is_one_commit_of_tables_card_manifest_and_report(hub, clients, pushed_dataset):
    done = clients.rpo_data("push", pushed_dataset.path, "me/data", "--tag", "v1")
    assert (done.status, done.stderr) == (0, "")
    assert hub.count("commit") == 1
    files = hub.state.files("me/data", "v1")
    assert files.keys() == paths(*TABLES) | {".gitattributes", "README.md", "manifest.json", "report.html"} | PLOTS
    for name in ("manifest.json", "report.html"):
        assert files[name] == (pushed_dataset.path / name).read_bytes()
    repository = hub.state.repositories["me/data"]
    assert repository.refs["refs/heads/main"] == repository.refs["refs/tags/v1"]
    assert not repository.private
    title = repository.titles[repository.resolve("main")]
    assert re.fullmatch(r"48 preference pairs in \d+ contrast groups, by rpo-data [\d.]+", title)
    assert re.search(r"pushed +me/data, commit [0-9a-f]{12}, tag v1: 11 files changed, all read back", done.stdout)


def test_requests_of_a_push(hub, clients, pushed_dataset):
    """The contract with huggingface_hub: these requests, in this order, and no other."""
    clients.rpo_data("push", pushed_dataset.path, "me/data", "--tag", "v1")
    large = ["preupload", "batch", "upload", "verify"]
    small = ["preupload"]
    assert [kind for kind, _ in hub.calls] == [
        "whoami", "create", "tree", "refs", "info", "tree",
        *large * 6, *small, *large, *small * 3,  # the tables, manifest.json, report.html, plots and the card
        "validate", "commit", "tree", "tag",
    ]  # fmt: skip
    sent = {
        kind: int(headers.get("content-length", 0)) for (kind, _), headers in zip(hub.calls, hub.headers, strict=True)
    }
    assert sent["commit"] < 60_000  # large files are named in it, not sent


@pytest.mark.parametrize(
    ("options", "before"),
    [(["--branch", "dev"], ["branch", "tree", "info", "tree"]), (["--create-pr"], ["info", "tree", "discussions"])],
)
def test_requests_of_a_branch_and_of_a_pull_request(hub, clients, pushed_dataset, other_dataset, options, before):
    clients.rpo_data("push", pushed_dataset.path, "me/data")
    hub.calls.clear()
    clients.rpo_data("push", other_dataset.path, "me/data", *options)
    large, small = ["preupload", "batch", "upload", "verify"], ["preupload"]
    assert [kind for kind, _ in hub.calls] == [
        "whoami", "create", "tree", *before, *large * 2, *small, *large, *small * 2, "validate", "commit", "tree",
    ]  # fmt: skip


def test_an_unchanged_dataset_uploads_nothing(hub, clients, pushed_dataset):
    clients.rpo_data("push", pushed_dataset.path, "me/data")
    before, calls = dict(hub.state.repositories["me/data"].refs), len(hub.calls)
    done = clients.rpo_data("push", pushed_dataset.path, "me/data", "--tag", "v1")
    assert "unchanged me/data holds all of it already" in done.stdout
    assert {kind for kind, _ in hub.calls[calls:]} == {"whoami", "create", "tree", "refs", "info", "tag"}
    assert hub.state.repositories["me/data"].refs == before | {"refs/tags/v1": before["refs/heads/main"]}
    again = clients.rpo_data("push", pushed_dataset.path, "me/data", "--tag", "v1")
    assert (again.status, hub.count("tag")) == (0, 1)


def test_another_version_replaces_what_changed_and_deletes_what_is_gone(hub, clients, pushed_dataset, other_dataset):
    clients.rpo_data("push", pushed_dataset.path, "me/data", "--unpaired")
    repository = hub.state.repositories["me/data"]
    kept = {"LICENSE": small_file(b"mine"), "notes/pairs/x.parquet": small_file(b"mine too")}
    stale = {"pairs/train-00000-of-00002.parquet": small_file(b"old shard")}
    repository.commits[repository.resolve("main")].update(kept | stale)
    first = hub.state.files("me/data")
    done = clients.rpo_data("push", other_dataset.path, "me/data")
    assert done.status == 0, done.stderr
    files = hub.state.files("me/data")
    assert files.keys() == first.keys() - stale.keys() - paths("unpaired")
    assert {path: files[path] for path in kept} == {path: first[path] for path in kept}
    unchanged = {path for path in files if files[path] == first[path]}
    assert unchanged == {*kept, ".gitattributes", "plots/similarity.svg", *paths("pairs", "neighbors")}


def test_parquet_is_chunked_by_content_and_has_a_page_index(hub, clients, pushed_dataset, tmp_path):
    clients.rpo_data("push", pushed_dataset.path, "me/data")
    for path in paths(*TABLES):
        file = tmp_path / "file.parquet"
        file.write_bytes(hub.state.files("me/data")[path])
        chunk = pq.read_metadata(file).row_group(0).column(0)
        assert chunk.has_offset_index
        assert chunk.has_column_index


def test_the_card_declares_each_split_of_each_table(hub, clients, pushed_dataset):
    clients.rpo_data("push", pushed_dataset.path, "me/data", "--llamafactory", "--unpaired")
    files = hub.state.files("me/data")
    declared = head(files["README.md"])
    assert declared["license"] == "mit"
    assert [config["config_name"] for config in declared["configs"]] == [*TABLES, "unpaired", "llamafactory"]
    assert [config.get("default", False) for config in declared["configs"]] == [True, False, False, False, False]
    for config in declared["configs"]:
        assert [(data["split"], data["path"]) for data in config["data_files"]] == [
            (split, f"{config['config_name']}/{split}-*.parquet") for split in ("train", "test")
        ]
    assert json.loads(files["dataset_info.json"])["data"]["hf_hub_url"] == "me/data"


def test_a_dry_run_sends_nothing(hub, clients, pushed_dataset):
    done = clients.rpo_data("push", pushed_dataset.path, "me/data", "--dry-run")
    assert done.status == 0
    assert hub.calls == []
    for path in paths(*TABLES) | {"README.md", "manifest.json", "report.html"}:
        assert re.search(rf"^ +[\d.]+ KiB  {re.escape(path)}$", done.stdout, re.MULTILINE)
    assert "dry run: nothing was sent" in done.stdout
    assert "config_name: neighbors" in done.stdout
    assert "# data" in done.stdout
    clients.rpo_data("push", pushed_dataset.path, "me/data")
    assert hub.state.files("me/data")["README.md"].decode() in done.stdout


def test_nothing_private_goes_up(hub, clients, pushed_dataset):
    clients.rpo_data("push", pushed_dataset.path, "me/data", "--unpaired", "--llamafactory")
    files = hub.state.files("me/data")
    assert not [path for path in files if path.startswith(("rejects", "vectors", "run", "cache"))]
    texts = [content for path, content in files.items() if not path.endswith(".parquet")]
    for path in (path for path in files if path.endswith(".parquet")):
        file = clients.folder / "file.parquet"
        file.write_bytes(files[path])
        table = pq.read_table(file)
        texts += [str(table.to_pylist()).encode(), str(table.schema.metadata).encode()]
    machine = [str(pushed_dataset.path.parent), str(clients.folder), "/tmp", "pytest", TOKEN]
    assert not [text for text in texts for name in machine if name.encode() in text]


def test_the_token_is_never_shown_stored_or_sent_to_the_storage(hub, clients, pushed_dataset):
    outputs = []
    for arguments in (["--tag", "v1"], ["--dry-run"], ["--create-pr", "--unpaired"]):
        done = clients.rpo_data("push", pushed_dataset.path, "me/data", *arguments)
        outputs += [done.stdout, done.stderr]
    assert not [text for text in outputs if TOKEN in text]
    assert hub.count("upload") == 9
    for (kind, _), headers in zip(hub.calls, hub.headers, strict=True):
        assert (TOKEN in headers.get("authorization", "")) == (kind not in ("upload", "complete", "download"))
    kept = [path for path in clients.folder.rglob("*") if path.is_file()]
    assert not [path for path in kept if TOKEN.encode() in path.read_bytes()]


def test_progress_counts_rows_and_bytes(hub, clients, pushed_dataset):
    code = f"""
        import json
        from rpo_data.hub import Target
        from rpo_data.pipelines.push import push
        told = []
        push({str(pushed_dataset.path)!r}, Target("me/data"), track=lambda *progress: told.append(progress))
        print(json.dumps(told))
    """
    told = json.loads(clients.python(textwrap.dedent(code)).stdout)
    tables = (pushed_dataset.pairs, pushed_dataset.groups, pushed_dataset.neighbors)
    rows = sum(len(table[split]) for table in tables for split in table)
    size = sum(map(len, hub.state.files("me/data").values())) - len(hub.state.files("me/data")[".gitattributes"])
    for stage, total in (("write", rows), ("upload", size)):
        counts = [done for name, done, of in told if name == stage and of == total]
        assert counts == sorted(counts)
        assert counts[-1] == total
    assert {stage for stage, _, _ in told} == {"write", "upload"}


def test_a_private_repository(hub, clients, pushed_dataset):
    assert clients.rpo_data("push", pushed_dataset.path, "me/secret", "--private").status == 0
    assert hub.state.repositories["me/secret"].private
    clients.rpo_data("push", pushed_dataset.path, "me/open")
    done = clients.rpo_data("push", pushed_dataset.path, "me/open", "--private", "--unpaired")
    assert done.status == 1
    assert "me/open is public on the Hub, and --private was asked" in done.stderr
    assert hub.count("commit") == 2


def test_a_branch_is_made_and_main_stays(hub, clients, pushed_dataset, other_dataset):
    clients.rpo_data("push", pushed_dataset.path, "me/data")
    main = hub.state.files("me/data")
    for _ in range(2):
        assert clients.rpo_data("push", other_dataset.path, "me/data", "--branch", "try/1").status == 0
    assert hub.count("commit") == 2
    assert hub.state.files("me/data") == main
    manifest = (other_dataset.path / "manifest.json").read_bytes()
    assert hub.state.files("me/data", "try/1")["manifest.json"] == manifest


def test_a_pull_request_is_opened_once(hub, clients, pushed_dataset, other_dataset):
    clients.rpo_data("push", pushed_dataset.path, "me/data")
    main = hub.state.files("me/data")
    done = clients.rpo_data("push", other_dataset.path, "me/data", "--create-pr")
    assert re.search(rf"opened +{hub.endpoint}/datasets/me/data/discussions/1 with commit [0-9a-f]{{12}}", done.stdout)
    again = clients.rpo_data("push", other_dataset.path, "me/data", "--create-pr")
    assert f"open already {hub.endpoint}/datasets/me/data/discussions/1" in again.stdout
    assert len(hub.state.repositories["me/data"].pulls) == 1
    assert hub.state.files("me/data") == main
    proposed = hub.state.files("me/data", "refs/pr/1")
    assert proposed["manifest.json"] == (other_dataset.path / "manifest.json").read_bytes()


def test_a_tag_is_never_moved(hub, clients, pushed_dataset, other_dataset):
    clients.rpo_data("push", pushed_dataset.path, "me/data", "--tag", "v1")
    before = dict(hub.state.repositories["me/data"].refs)
    done = clients.rpo_data("push", other_dataset.path, "me/data", "--tag", "v1")
    assert done.status == 1
    assert "tag 'v1' of me/data stands on another version already: choose another --tag" in done.stderr
    assert hub.state.repositories["me/data"].refs == before
    assert hub.count("upload") == 7


def test_what_rpo_data_did_not_make_is_left_alone(hub, clients, pushed_dataset):
    clients.python("from huggingface_hub import HfApi; HfApi().create_repo('me/theirs', repo_type='dataset')")
    tree = hub.state.repositories["me/theirs"].tree()
    tree["README.md"] = small_file(b"# soon")
    assert clients.rpo_data("push", pushed_dataset.path, "me/theirs").status == 0
    tree = hub.state.repositories["me/theirs"].tree()
    for path in [path for path in tree if path.startswith("groups/")]:
        del tree[path]  # a manifest.json alone may be anybody's
    tree["data/train.jsonl"] = small_file(b"{}")
    before = hub.state.files("me/theirs")
    done = clients.rpo_data("push", pushed_dataset.path, "me/theirs")
    assert done.status == 1
    assert re.search(r"me/theirs holds '.*' and no dataset of rpo-data: choose another name", done.stderr)
    assert hub.state.files("me/theirs") == before


def test_a_branch_of_others_is_left_alone(hub, clients, pushed_dataset):
    clients.rpo_data("push", pushed_dataset.path, "me/data")
    repository = hub.state.repositories["me/data"]
    theirs = {"pairs/train.parquet": small_file(b"PAR1"), ".gitattributes": small_file(b"")}
    repository.add("refs/heads/raw", "", theirs, "raw logs")
    done = clients.rpo_data("push", pushed_dataset.path, "me/data", "--branch", "raw")
    assert done.status == 1
    assert "me/data holds 'pairs/train.parquet' and no dataset of rpo-data" in done.stderr
    assert repository.tree("raw") == theirs


def test_large_files_go_up_in_parts(hub, clients, pushed_dataset):
    hub.part = 3000
    try:
        done = clients.rpo_data("push", pushed_dataset.path, "me/data")
    finally:
        hub.part = None
    assert done.status == 0, done.stderr
    assert hub.count("complete") == 7
    assert hub.count("upload") > 12
    assert hub.state.parts == {}


def test_wrong_usage_is_said_before_anything_is_sent(hub, clients, pushed_dataset):
    for arguments, said in [
        (["data"], "'data' is no name on the Hub: give USER/NAME"),
        (
            ["me/data", "--create-pr", "--branch", "b"],
            "--create-pr opens a pull request on main: leave --branch and --tag",
        ),
        (["me/data", "--license", "MIT License"], "'MIT License' is no licence id (logs.jsonl)"),
    ]:
        done = clients.rpo_data("push", pushed_dataset.path, *arguments)
        assert done.status == 2
        assert said in done.stderr
    assert clients.rpo_data("push", clients.folder, "me/data").status == 1
    assert hub.calls == []


def test_a_source_without_a_licence_is_refused(hub, clients, responses_dataset):
    done = clients.rpo_data("push", responses_dataset.path, "me/data")
    assert done.status == 2
    assert "no licence is given for a.jsonl: add --license ID" in done.stderr
    assert hub.calls == []
    assert clients.rpo_data("push", responses_dataset.path, "me/data", "--license", "a.jsonl=mit").status == 0
    card = hub.state.files("me/data")["README.md"]
    assert head(card)["license"] == ["cc-by-4.0", "mit"]
    assert b"| a.jsonl | mit |\n| b-1.jsonl | cc-by-4.0 |" in card


def test_a_licence_for_no_source_is_refused(responses_dataset):
    """A slip of the pen in a name would publish that file under the licence of the others."""
    with pytest.raises(
        RecipeError, match=r"given for 'a\.json', which is no log file of this dataset: name one of a\.jsonl"
    ):
        source_licenses(responses_dataset.manifest, {"a.json": "cc-by-nc-4.0", "*": "mit"})


def test_licences_by_name_by_pattern_and_by_asking(responses_dataset):
    manifest = responses_dataset.manifest
    assert source_licenses(manifest, {"*": "mit"}) == {"a.jsonl": "mit", "b-1.jsonl": "mit"}
    assert source_licenses(manifest, {"*": "mit", "b-1.jsonl": "other"})["b-1.jsonl"] == "other"
    asked = []
    answered = ask_licenses(responses_dataset.path, {}, lambda question: asked.append(question) or "mit")
    assert answered == {"a.jsonl": "mit"}
    assert len(asked) == 1
    assert "a.jsonl" in asked[0]


def test_tables_for_other_trainers_that_cannot_be_made(responses_dataset, pushed_dataset):
    target = Target("me/data")
    with pytest.raises(DatasetError, match="holds responses one by one already: push it without unpaired"):
        push(responses_dataset.path, target, licenses={"*": "mit"}, extras=["unpaired"], dry_run=True)
    with pytest.raises(RecipeError, match="no extra table 'csv': there are unpaired, llamafactory"):
        push(pushed_dataset.path, target, extras=["csv"], dry_run=True)


def test_rows_that_llamafactory_cannot_read_are_counted(pushed_dataset, tmp_path, cache_dir):
    lines = []
    push(pushed_dataset.path, Target("me/data"), extras=["llamafactory"], dry_run=True, say=lines.append)
    assert lines[0] == "left out  1 of 48 rows of llamafactory: it reads user and assistant in turn, no tools"
    turns = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    answers = {side: [{"role": "assistant", "content": side}] for side in ("chosen", "rejected")}
    (tmp_path / "logs.jsonl").write_text(json.dumps({"prompt": turns} | answers) + "\n")
    recipe = Recipe(embedder="static", test_fraction=0, license="mit")
    build(tmp_path / "logs.jsonl", tmp_path / "out", recipe, cache_dir=cache_dir)
    with pytest.raises(
        DatasetError, match="LLaMA-Factory can read no row of this dataset: push it without llamafactory"
    ):
        push(tmp_path / "out", Target("me/data"), extras=["llamafactory"], dry_run=True)


def test_commands_on_a_folder_ask_no_hub(hub, clients):
    """A mistyped folder is no name on the Hub."""
    for command in (["push", "no/folder", "me/data", "--license", "mit"], ["report", "no/folder"]):
        done = clients.rpo_data(*command)
        assert done.status == 1
        assert "no/folder is no mined contrast dataset: it is not there; make one with" in done.stderr
    assert hub.calls == []


def test_a_folder_is_compared_with_what_is_published(hub, clients, pushed_dataset, other_dataset):
    clients.rpo_data("push", pushed_dataset.path, "me/data")
    done = clients.rpo_data("diff", "me/data", other_dataset.path)
    assert done.status == 0, done.stderr
    assert "48 in both, 0 only before, 0 only after" in done.stdout


def test_pushing_and_streaming_need_nothing_that_builds():
    code = "import sys, rpo_data.stream, rpo_data.pipelines.push; print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for package in ("polars", "faiss", "pandera", "sentence_transformers", "torch", "numba", "jinja2"):
        assert f"'{package}'" not in loaded
    assert "'huggingface_hub'" in loaded


def test_equal_datasets_give_equal_bytes_wherever_they_lie(hub, clients, pushed_dataset, tmp_path):
    """A file of the Hub, loaded and written again, is the same file: no path, time or chunk of memory is in it."""
    from rpo_data.parquet import file_schema, read_parquet, write_parquet

    clients.rpo_data("push", pushed_dataset.path, "me/data")
    for path in paths(*TABLES):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(hub.state.files("me/data")[path])
    for name in TABLES:
        hashes = {split: pushed_dataset.manifest.tables[f"{name}/{split}"] for split in ("train", "test")}
        known = getattr(pushed_dataset, name)["train"].features
        for split, rows in read_parquet(tmp_path, name, hashes, known).items():
            schema = file_schema(known, calls=True)
            (made,) = write_parquet(rows, tmp_path / "again", name, split, schema=schema, digest=hashes[split]).items()
            assert made[1].read_bytes() == (tmp_path / made[0]).read_bytes()
