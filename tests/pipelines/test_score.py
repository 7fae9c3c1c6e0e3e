"""`rpo-data score`: what it says, keeps, refuses and checks."""

import json
import signal
import sys
from dataclasses import replace

import numpy as np
import pytest
from datasets import DatasetDict
from tests_support import pair

from rpo_data import Recipe, build, load
from rpo_data.errors import TrainingError
from rpo_data.pipelines import cli
from rpo_data.pipelines import score as pipeline
from rpo_data.pipelines.score import TOLERANCE, score
from rpo_data.pipelines.tiny_model import dataset_texts, make_tiny_model
from rpo_data.pipelines.train import train
from rpo_data.reference_store import ReferenceStore
from rpo_data.trainer.models import load_tokenizer
from rpo_data.trainer.tokenize import tokenize_pairs


@pytest.fixture(scope="module")
def folders(tmp_path_factory, cache_dir):
    """A dataset of 30 pairs, and two models with its tokenizer."""
    folder = tmp_path_factory.mktemp("score")
    (folder / "logs.jsonl").write_text("".join(json.dumps(pair(number)) + "\n" for number in range(30)))
    recipe = Recipe(embedder="static", group_size=4, test_fraction=0.2)
    dataset = build([str(folder / "logs.jsonl")], folder / "dataset", recipe, cache_dir=cache_dir)
    for seed, name in enumerate(("model", "other")):
        make_tiny_model(folder / name, dataset_texts(dataset), seed=seed)
    return folder


@pytest.fixture
def data(folders):
    return load(folders / "dataset")


@pytest.fixture
def run(folders, capsys, monkeypatch):
    """Run `rpo-data score` in this process: exit status, output, errors."""

    def run(*arguments, command="score", model="model"):
        given = [command, folders / "dataset", "--model", folders / model, "--use-cpu", *arguments]
        monkeypatch.setattr(sys, "argv", ["rpo-data", *map(str, given)])
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGPIPE)}
        with pytest.raises(SystemExit) as ended:
            cli.main()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


def test_scores_once_and_training_takes_it(data, folders, run, tmp_path):
    status, out, _ = run("--out", tmp_path / "store", "--verify", 10)
    assert status == 0
    lines = out.splitlines()
    assert lines[0].startswith("tokens    train ")
    assert lines[1].startswith("tokens    test ")
    assert lines[2] == "reference 60 of 60 sequences scored now, all others were stored"
    assert lines[3].startswith("verified  10 sequences: they differ by at most ")
    assert lines[3].endswith("(tolerance 0.001 + 0.001 % of the value)")
    assert lines[4:] == [f"store     {tmp_path / 'store'}"]
    assert "reference 0 of 60" in run("--out", tmp_path / "store", "--learning-rate", 1, "--beta", 0.5)[1]
    settings = {"cache_dir": str(tmp_path / "store"), "use_cpu": True, "max_steps": 1}
    said = []
    train(data, str(folders / "model"), tmp_path / "run", settings, say=said.append)
    assert "reference 0 sequences scored now, all others were stored" in said


def test_a_cut_is_scored_where_it_shows(data, folders, tmp_path):
    model, settings = str(folders / "model"), {"cache_dir": str(tmp_path), "use_cpu": True}
    whole = score(data, model, settings | {"max_length": None})
    assert (whole["computed"], whole["sequences"], whole["largest"]) == (60, 60, None)
    assert whole["store"] == tmp_path / "reference" / whole["model"]
    same = score(data, model, settings | {"max_length": 2000})
    assert same["computed"] == 0
    cut = score(data, model, settings | {"max_length": 20})
    assert cut["computed"] > 0
    assert score(data, model, settings | {"max_length": 20})["computed"] == 0


def test_another_model_is_refused_by_its_store(run, tmp_path):
    assert run("--out", tmp_path / "store")[0] == 0
    before = sorted((tmp_path / "store").iterdir())
    status, out, errors = run("--out", tmp_path / "store", model="other")
    assert (status, out) == (1, "")
    assert errors.count("\n") == 1
    assert "store holds the log-probs of another model or number type (Qwen2ForCausalLM-" in errors
    assert sorted((tmp_path / "store").iterdir()) == before


@pytest.fixture
def change_stored(data, folders, tmp_path):
    """Add to one stored log-prob, in a file that is signed rightly: nothing but computing again can tell."""
    store = ReferenceStore(tmp_path, score(data, str(folders / "model"), {"use_cpu": True}, out=tmp_path)["model"])
    pairs = tokenize_pairs(data.pairs["train"], load_tokenizer(folders / "model"), 1024)
    right, files = store.read(pairs.sequences.keys), sorted(tmp_path.glob("*.arrow"))
    assert np.isfinite(right).all()

    def change(number: int, nats: float) -> None:
        for file in tmp_path.glob("*.arrow"):
            file.unlink()
        wrong = right.copy()
        wrong[number] += nats
        store.write(pairs.sequences.keys, wrong)

    assert len(files) == 2  # one a split
    return pairs, change


def test_a_wrong_value_is_found_and_named(data, folders, change_stored, tmp_path):
    pairs, change = change_stored
    verify = {"out": tmp_path, "verify": 1000}
    change(int(pairs.rejected[5]), 0.0005)
    assert 0.0004 < score(data, str(folders / "model"), {"use_cpu": True}, **verify)["largest"] < 0.0006
    change(int(pairs.rejected[5]), 0.1)
    with pytest.raises(
        TrainingError, match=r"of row 5 of split 'train' \(rejected\) is -.*, computed again it is -"
    ) as found:
        score(data, str(folders / "model"), {"use_cpu": True}, **verify)
    assert "\n" not in str(found.value)
    assert str(found.value).endswith(f"may differ by 0.001 + 0.001 % of the value: delete {tmp_path} and score again")


def test_a_sample_is_drawn_by_the_seed(data, folders, tmp_path, monkeypatch):
    drawn, computed = [], pipeline.score_sequences
    monkeypatch.setattr(
        pipeline, "score_sequences", lambda model, sequences, rows, *rest: (
            drawn.append(rows.tolist()), computed(model, sequences, rows, *rest)
        )[1]
    )  # fmt: skip
    samples = []
    for seed in (1, 1, 2):
        score(data, str(folders / "model"), {"use_cpu": True, "seed": seed}, out=tmp_path, verify=12)
        samples.append(drawn.copy())
        drawn.clear()
    assert samples[0] == samples[1] != samples[2]
    assert [sum(map(len, sample)) for sample in samples] == [12, 12, 12]


@pytest.mark.parametrize(
    ("options", "status", "sentence"),
    [
        (["--out", "store", "--cache-dir", "cache"], 2, "give one of --out and --cache-dir"),
        (["--out", "file"], 1, "file cannot be written (File exists): choose another folder"),
        (["--out", "full"], 1, "full exists and is no store of reference log-probs: choose another folder"),
        (["--max-lenght", "5"], 1, "'max_lenght' is no setting of a training run: did you mean 'max_length'?"),
        (["--verify", "-1"], 2, "--verify"),
    ],
)
def test_wrong_use_is_said_before_any_work(options, status, sentence, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "work.txt").touch()
    before = sorted(tmp_path.rglob("*"))
    ended, out, errors = run(*options)
    assert (ended, out) == (status, "")
    assert sentence in errors
    assert sorted(tmp_path.rglob("*")) == before


def test_mixed_precision_is_verified_too(data, folders, tmp_path):
    made = score(data, str(folders / "model"), {"use_cpu": True, "bf16": True}, out=tmp_path, verify=1000)
    assert made["model"].endswith("-float32-bf16")
    assert 0 <= made["largest"] <= TOLERANCE["bf16"][0]


def test_settings_of_a_training_run_have_no_effect(data, folders, tmp_path):
    """No repository is made, no reporter is looked for, and no test split is asked for."""
    settings = {"use_cpu": True, "push_to_hub": True, "report_to": "wandb", "eval_strategy": "steps"}
    only_train = replace(data, **{name: DatasetDict(train=getattr(data, name)["train"]) for name in ("rows", "groups")})
    made = score(only_train, str(folders / "model"), settings, out=tmp_path)
    assert made["computed"] == made["sequences"] > 0


def test_joint_log_probs_are_verified_as_they_were_scored(run, tmp_path):
    status, out, errors = run("--out", tmp_path / "store", "--verify", 10, "--loss-type", "joint")
    assert (status, errors) == (0, "")
    assert "verified  10 sequences" in out
