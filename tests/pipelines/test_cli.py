"""The command line as a person meets it: help, one-sentence errors, exit statuses, no traceback."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests_support import pair

from rpo_data import load
from rpo_data.pipelines import cli


@dataclass
class Run:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def rpo_data(capsys, monkeypatch):
    """Run the command line in this process, as `rpo-data` would."""

    def run(*arguments, cwd=None):
        if cwd:
            monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["rpo-data", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "100")
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGPIPE)}
        with pytest.raises(SystemExit) as ended:
            cli.main()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        captured = capsys.readouterr()
        return Run(int(ended.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def logs(write_lines):
    return write_lines("logs.jsonl", [*(pair(n) for n in range(30)), pair(30, chosen=""), pair(1)])


def test_help_names_every_command_and_key(rpo_data):
    assert all(command in rpo_data("--help").stdout for command in ("build", "show", "train", "cache"))
    text = rpo_data("build", "--help").stdout
    for option in ("--out", "--recipe", "--limit", "--dry-run", "--group-size", "--temperature", "--embed-text"):
        assert option in text


def test_build_and_show(rpo_data, logs, tmp_path):
    out = tmp_path / "out"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("embedder: static\ngroup_size: 8\ntest_fraction: 0\n")
    built = rpo_data(
        "build", logs, "--out", out, "--recipe", recipe, "--group-size", 4, "--cache-dir", tmp_path / "cache"
    )
    assert built.returncode == 0, built.stderr
    assert "32 records of 1 source, 30 pairs kept" in built.stdout
    assert "1 left out: empty_response" in built.stdout
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["recipe"]["group_size"] == 4
    assert manifest["recipe"]["embedder"] == "static"

    shown = rpo_data("show", out, "--group", "train-0-1")
    assert shown.returncode == 0, shown.stderr
    assert "group train-0-1: 4 wins x 4 losses" in shown.stdout
    assert "weight of win (row) against loss (column)" in shown.stdout
    assert "0 of 16 cells masked, the heaviest column is loss " in shown.stdout
    nothing = rpo_data("show", out, "--masked")
    assert (nothing.returncode, nothing.stdout, nothing.stderr) == (0, "", "no cell of the train split is masked\n")
    as_json = json.loads(rpo_data("show", out, "--json").stdout)
    assert as_json["group_id"].startswith("train-0-")
    assert len(as_json["wins"]) == 4


def test_dry_run_writes_nothing(rpo_data, logs, tmp_path):
    run = rpo_data("build", logs, "--out", tmp_path / "out", "--dry-run", "--cache-dir", tmp_path / "cache")
    assert run.returncode == 0, run.stderr
    assert "30 pairs kept" in run.stdout
    assert not (tmp_path / "out").exists()


def test_cache_is_shown_and_cleared(rpo_data, logs, tmp_path):
    cache = tmp_path / "cache"
    rpo_data("build", logs, "--out", tmp_path / "out", "--dry-run", "--cache-dir", cache)
    (cache / "not ours").write_text("stays")
    assert "stages" in rpo_data("cache", "--cache-dir", cache).stdout
    assert (cache / "stages").exists()
    rpo_data("cache", "--clear", "--cache-dir", cache)
    assert [path.name for path in cache.iterdir()] == ["not ours"]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["build", "nowhere.jsonl", "--out", "x"], 1, "nowhere.jsonl does not exist: give a file"),
        (["build", "LOGS", "--out", "x", "--group-size", "0"], 2, "--group-size is '0': input should be greater than"),
        (["build", "LOGS", "--out", "x", "--temperature", "-1"], 2, "--temperature is '-1': must be greater than 0"),
        (["build", "LOGS", "--out", "x", "--temperature", "warm"], 2, "--temperature is 'warm'"),
        (["build", "LOGS", "--out", "x", "--strategy", "best"], 2, "'nearest', 'random', 'cluster' or 'curriculum'"),
        (["build", "LOGS", "--out", "x", "--embedder", "nobody/nothing"], 1, "embedder 'nobody/nothing' is neither"),
        (["build", "LOGS", "--out", "x", "--recipe", "nowhere.yaml"], 2, "nowhere.yaml cannot be read"),
        (["build", "LOGS"], 2, "Missing option '--out'"),
        (["build", "LOGS", "--out", "x", "--groupsize", "3"], 2, "No such option"),
        (["show", "nowhere"], 1, "nowhere is no mined contrast dataset"),
        (["frobnicate"], 2, "No such command"),
    ],
)
def test_mistakes_are_one_sentence_and_never_a_traceback(rpo_data, arguments, status, words, logs, tmp_path):
    run = rpo_data(*(str(logs) if a == "LOGS" else a for a in arguments), cwd=tmp_path)
    assert run.returncode == status
    assert "Traceback" not in run.stderr
    assert words in " ".join(run.stderr.replace("│", " ").split())
    if run.stderr.startswith("error "):
        assert len(run.stderr.strip().splitlines()) == 1, run.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("groupsize: 4", "there is no recipe key 'groupsize'; did you mean 'group_size'?"),
        ("views: many", "views is 'many'"),
        ("- a\n- b", "must hold 'key: value' lines"),
        ("a: [", "recipe.yaml:1:5 is not valid YAML"),
    ],
)
def test_mistakes_in_a_recipe(rpo_data, text, words, logs, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text)
    run = rpo_data("build", logs, "--out", tmp_path / "x", "--recipe", recipe)
    assert run.returncode == 2
    assert words in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1


def test_the_installed_command_is_this_one(tmp_path):
    run = subprocess.run(
        [Path(sys.executable).with_name("rpo-data"), "show", "nowhere"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith("error nowhere is no mined contrast dataset")


def test_ctrl_c_says_what_is_kept(sample, tmp_path):
    command = [sys.executable, "-m", "rpo_data.pipelines.cli", "build", str(sample), "--out", str(tmp_path / "out")]
    command += ["--batch-size", "8", "--cache-dir", str(tmp_path / "cache")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.time() + 120
    while not list((tmp_path / "cache").rglob("vectors/*/*.arrow")) and time.time() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "what is finished is kept" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "out").exists()


def test_a_group_is_shown_whole_where_the_output_is_no_terminal(rpo_data, logs, tmp_path):
    recipe = Path(__file__).parents[2] / "pipelines" / "recipes" / "build-fast.yaml"
    rpo_data("build", logs, "--out", tmp_path / "out", "--recipe", recipe, "--cache-dir", tmp_path / "cache")
    shown = rpo_data("show", tmp_path / "out", "--group", "train-0-0", "--characters", 120).stdout
    data, lines = load(tmp_path / "out").group("train-0-0"), shown.splitlines()
    for number, (win, weights, cosines) in enumerate(
        zip(data["wins"], data["weight"], data["similarity"], strict=True)
    ):
        (place,) = [place for place, line in enumerate(lines) if line.startswith(f"{number} ")]
        assert win["prompt"][-1]["content"][:40] in lines[place]
        assert lines[place].split()[-len(weights) :] == [f"{weight:.2f}" for weight in weights]
        assert lines[place + 1].split()[-len(cosines) :] == [f"{cosine:.2f}" for cosine in cosines]
