"""Streaming groups from tables that do not fit: `datasets` and the Hub are stood in for by lists."""

from types import SimpleNamespace

import pytest

from rpo_data import stream
from rpo_data.errors import DatasetError

ROWS = [{"pair_id": str(number)} for number in range(5)]


def group(name, wins, losses):
    return {"group_id": name, "win_rows": wins, "loss_rows": losses}


@pytest.fixture
def streamed(monkeypatch):
    """The groups that a stream gives of these tables."""

    def run(groups, rows=ROWS, split="train"):
        tables = {"groups": groups, "pairs": rows}
        manifest = SimpleNamespace(paired=True, splits={"train": SimpleNamespace(groups=2)})
        monkeypatch.setattr(stream, "commit_of", lambda *name: "c0ffee")
        monkeypatch.setattr(stream, "download", lambda *files: None)
        monkeypatch.setattr(stream, "read_manifest", lambda folder: manifest)
        monkeypatch.setattr(stream, "load_dataset", lambda repository, name, **more: tables[name])
        return list(stream.stream_groups("me/data", split))

    return run


def test_each_row_is_given_to_the_sides_that_name_it(streamed):
    first, second = streamed([group("a", [0, 1], [1, 2]), group("b", [4], [3]), group("of view 1", [0], [4])])
    assert [row["pair_id"] for row in first["wins"] + first["losses"]] == ["0", "1", "1", "2"]
    assert [row["pair_id"] for row in second["wins"] + second["losses"]] == ["4", "3"]


@pytest.mark.parametrize("rows", [[3, 4], [1, 2], [3]])
def test_rows_in_another_order_are_refused(streamed, rows):
    wrong = "group b of me/data does not follow the one before: load it whole"
    with pytest.raises(DatasetError, match=wrong):
        streamed([group("a", [0, 1], [0, 1]), group("b", rows, rows)])


def test_rows_that_are_missing_are_refused(streamed):
    with pytest.raises(DatasetError, match="group b of me/data does not follow"):
        streamed([group("a", [0, 1], [0, 1]), group("b", [2, 3], [2, 3])], rows=ROWS[:3])


def test_an_unknown_split_names_those_there_are(streamed):
    with pytest.raises(DatasetError, match="there is no split 'test' in me/data; it has train"):
        streamed([], split="test")
