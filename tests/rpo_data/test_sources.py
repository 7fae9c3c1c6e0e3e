import gzip
import json

import pytest
from datasets import Dataset, DatasetDict

from rpo_data.errors import LogError
from rpo_data.sources import find_sources


def names(*logs):
    return [source.name for source in find_sources(logs)]


@pytest.fixture
def folder(tmp_path):
    for name in (
        "logs/b.jsonl",
        "logs/a.json",
        "logs/deep/c.csv",
        "logs/notes.txt",
        "logs/.hidden.jsonl",
        "other/a.json",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    return tmp_path


def test_file_folder_and_glob_name_the_same_files(folder):
    assert names(folder / "logs" / "b.jsonl") == ["b.jsonl"]
    assert names(folder / "logs") == ["a.json", "b.jsonl", "deep/c.csv"]
    assert names(str(folder / "logs" / "*.json*")) == ["a.json", "b.jsonl"]
    assert names(str(folder / "logs" / "**" / "*.csv")) == ["c.csv"]


def test_a_file_named_twice_is_read_once(folder):
    assert names(folder / "logs", folder / "logs" / "b.jsonl") == ["a.json", "b.jsonl", "deep/c.csv"]


def test_the_order_of_the_arguments_does_not_matter(folder):
    one, two = folder / "logs" / "b.jsonl", folder / "logs" / "a.json"
    assert find_sources([one, two]) == find_sources([two, one])


def test_equal_names_get_more_of_their_path(folder):
    assert names(folder / "logs" / "a.json", folder / "other" / "a.json") == ["logs/a.json", "other/a.json"]


def test_folder_made_by_datasets(tmp_path):
    rows = Dataset.from_list([{"chosen": "x", "rejected": "y"}])
    DatasetDict({"train": rows, "test": rows}).save_to_disk(str(tmp_path / "saved"))
    rows.save_to_disk(str(tmp_path / "one"))
    assert [(s.name, s.kind) for s in find_sources([tmp_path / "saved", tmp_path / "one"])] == [
        ("one", "dataset"),
        ("saved/test", "dataset"),
        ("saved/train", "dataset"),
    ]


def test_saved_datasets_of_the_same_name_and_inside_folders(tmp_path):
    rows = Dataset.from_list([{"chosen": "x", "rejected": "y"}])
    for folder in ("a", "b"):
        rows.save_to_disk(str(tmp_path / folder / "train"))
    assert names(tmp_path / "a" / "train", tmp_path / "b" / "train") == ["a/train", "b/train"]
    assert names(tmp_path) == ["a/train", "b/train"]


def test_a_name_does_not_depend_on_the_order_of_the_arguments(folder):
    one, two = folder / "logs" / "deep" / "c.csv", folder / "logs"
    assert names(one, two) == names(two, one) == ["a.json", "b.jsonl", "c.csv"]


def test_datasets_of_ours_are_no_logs_and_other_files_are_told(folder):
    out = folder / "logs" / "out"
    (out / "groups").mkdir(parents=True)
    (out / "manifest.json").write_text("{}")
    ignored = []
    assert [source.name for source in find_sources([folder / "logs"], ignored)] == ["a.json", "b.jsonl", "deep/c.csv"]
    assert ignored == ["notes.txt"]


def test_a_hub_id_is_told_from_a_path():
    assert [(s.name, s.kind) for s in find_sources(["Anthropic/hh-rlhf"])] == [("Anthropic/hh-rlhf", "hub")]


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("nowhere.jsonl", "nowhere.jsonl does not exist"),
        ("data/nowhere.jsonl", "does not exist"),
        ("*.nothing", "no file matches"),
    ],
)
def test_what_is_not_there_is_named(log, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LogError, match=message):
        find_sources([log])


def test_unknown_endings_are_refused_with_the_known_ones(tmp_path):
    path = tmp_path / "logs.xlsx"
    path.write_text("x")
    with pytest.raises(LogError, match=r"\.jsonl"):
        find_sources([path])


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(LogError, match="no logs found"):
        find_sources([tmp_path])


def test_compressed_endings_are_known(tmp_path):
    with gzip.open(tmp_path / "x.jsonl.gz", "wt") as file:
        file.write(json.dumps({}))
    assert [s.kind for s in find_sources([tmp_path])] == ["json"]
