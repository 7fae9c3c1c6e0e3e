"""dataset_info.json of LLaMA-Factory: the files it declares are read under the names it gives their columns.

The entries follow data/README.md of github.com/hiyouga/LLaMA-Factory, sections "Preference Dataset" and "KTO Dataset".
"""

import json
import shutil

import pytest

from rpo_data.errors import LogError
from rpo_data.read import read_records
from rpo_data.shapes import Pair, Response, get_shape, map_columns, read_rows
from rpo_data.sources import find_sources

ALPACA = {
    "file_name": "dpo.json",
    "ranking": True,
    "columns": {"prompt": "question", "query": "input", "chosen": "best", "rejected": "worst"},
}
SHAREGPT = {
    "file_name": "chat.jsonl",
    "formatting": "sharegpt",
    "ranking": True,
    "columns": {"messages": "turns", "chosen": "chosen", "rejected": "rejected"},
    "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
}
KTO = {
    "file_name": "kto.json",
    "columns": {"prompt": "instruction", "query": "input", "response": "output", "kto_tag": "liked"},
}


@pytest.fixture
def folder(tmp_path):
    base = tmp_path / "data"
    base.mkdir()

    def write(**info):
        (base / "dataset_info.json").write_text(json.dumps(info))
        for name in ("dpo.json", "chat.jsonl", "kto.json", "sft.json", "other.jsonl"):
            (base / name).write_text('{"a": 1}\n')
        return base

    return write


def found(*logs, ignored=None):
    return {source.name: source for source in find_sources(logs, ignored)}


def test_preference_files_carry_shape_and_columns(folder):
    sources = found(folder(alpaca=ALPACA, chat=SHAREGPT, kto=KTO))
    assert list(sources) == ["chat.jsonl", "dpo.json", "kto.json", "other.jsonl", "sft.json"]
    dpo, chat, kto, other = (sources[name] for name in ("dpo.json", "chat.jsonl", "kto.json", "other.jsonl"))
    assert (dpo.shape, dpo.columns) == ("alpaca", {"instruction": "question", "chosen": "best", "rejected": "worst"})
    assert (chat.shape, chat.columns) == ("sharegpt", {"conversations": "turns"})
    assert (kto.shape, kto.columns) == ("kto", {"kto_tag": "liked"})
    assert (other.shape, other.columns, other.hidden, other.tags) == (None, {}, (), {})
    assert dpo.tags == {}
    assert chat.tags["role_tag"] == "role"


def test_the_file_itself_and_a_pattern_name_the_same(folder):
    base = folder(alpaca=ALPACA, kto=KTO)
    alone = found(base / "dataset_info.json")
    assert list(alone) == ["dpo.json", "kto.json"]
    everything = found(base / "*.json", base, base / "dpo.json")
    assert everything == found(base / "dpo.json", base)
    assert everything["dpo.json"] == alone["dpo.json"]


def test_other_entries_are_left_aside_and_told(folder):
    hub = {"hf_hub_url": "user/name", "ranking": True, "columns": {"chosen": "chosen", "rejected": "rejected"}}
    script = {"script_url": "loader", "file_name": "dpo.json"}
    ignored = []
    sources = found(folder(alpaca=ALPACA, hub=hub, script=script, sft={"file_name": "sft.json"}), ignored=ignored)
    assert list(sources) == ["chat.jsonl", "dpo.json", "kto.json", "other.jsonl"]
    assert ignored == ["dataset_info.json: hub", "dataset_info.json: script", "dataset_info.json: sft"]


def test_a_declared_folder_and_a_file_elsewhere(folder):
    base = folder(
        many={**ALPACA, "file_name": "many"}, far={**KTO, "file_name": "../far.jsonl"}, all={**KTO, "file_name": "."}
    )
    (base / "many").mkdir()
    (base / "many" / "1.jsonl").write_text("{}")
    (base / "many" / "notes.txt").write_text("")
    (base.parent / "far.jsonl").write_text("{}")
    sources = found(base)
    assert list(sources) == [
        "chat.jsonl",
        "dpo.json",
        "far.jsonl",
        "kto.json",
        "many/1.jsonl",
        "other.jsonl",
        "sft.json",
    ]
    assert sources["many/1.jsonl"].shape == "alpaca"
    assert sources["dpo.json"].columns == {"kto_tag": "liked"}


def test_one_file_declared_twice(folder):
    assert list(found(folder(one=ALPACA, two=ALPACA) / "dataset_info.json")) == ["dpo.json"]
    base = folder(one=ALPACA, two={**ALPACA, "columns": {"chosen": "worst", "rejected": "best"}})
    with pytest.raises(LogError, match=r"two entries of dataset_info\.json declare dpo\.json differently"):
        find_sources([base])


def data_of(source):
    return [map_columns(record.data, source.columns) for record in read_records(source)]


def test_columns_that_are_not_declared_are_not_used(folder):
    base = folder(alpaca=ALPACA)
    record = {
        "question": "q",
        "input": "i",
        "system": "not mine",
        "best": "a",
        "worst": "b",
        "chosen": "old",
        "score": 1,
    }
    (base / "dpo.json").write_text(json.dumps([record]))
    (row,) = data_of(found(base)["dpo.json"])
    assert row == {"instruction": "q", "input": "i", "chosen": "a", "rejected": "b", "score": 1}


def test_tags_become_the_usual_ones(folder):
    base = folder(chat=SHAREGPT)
    record = {
        "turns": [{"role": "system", "content": "s"}, {"role": "user", "content": "q", "id": 3}, 7, {"role": None}],
        "chosen": {"role": "assistant", "content": "a"},
        "rejected": {"role": "assistant", "content": "b"},
    }
    (base / "chat.jsonl").write_text(json.dumps(record))
    source = found(base)["chat.jsonl"]
    assert data_of(source) == [
        {
            "conversations": [
                {"from": "system", "value": "s"},
                {"from": "human", "value": "q", "id": 3},
                7,
                {"from": None},
            ],
            "chosen": {"from": "gpt", "value": "a"},
            "rejected": {"from": "gpt", "value": "b"},
        }
    ]
    (kept,) = read_records(source)
    assert kept.raw() == json.dumps(record)


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def turn(who, text):
    return {"who": who, "said": text}


CHAT_KTO = {
    "file_name": "chat.jsonl",
    "formatting": "sharegpt",
    "columns": {"messages": "turns", "kto_tag": "liked"},
    "tags": {"role_tag": "who", "content_tag": "said", "user_tag": "me", "assistant_tag": "bot"},
}
ROWS = {
    "alpaca": (
        ALPACA,
        {"question": "q", "input": "i", "output": "for training", "best": "a", "worst": "b"},
        [Pair(prompt=[user("q\ni")], chosen=[assistant("a")], rejected=[assistant("b")])],
    ),
    "alpaca without input": (
        {**ALPACA, "columns": {"prompt": "input", "chosen": "best", "rejected": "worst"}},
        {"instruction": "not asked", "input": "q", "best": "a", "worst": "b"},
        [Pair(prompt=[user("q")], chosen=[assistant("a")], rejected=[assistant("b")])],
    ),
    "ranked lists": (
        {"file_name": "dpo.json", "ranking": True},
        {"instruction": "q", "input": "", "output": ["a", "b"]},
        [Response(prompt=[user("q")], completion=[assistant(a)], rank=r) for a, r in (("a", 1), ("b", 2))],
    ),
    "kto": (
        KTO,
        {"instruction": "q", "input": "", "output": "a", "liked": False},
        [Response(prompt=[user("q")], completion=[assistant("a")], label=False)],
    ),
    "sharegpt": (
        SHAREGPT,
        {"turns": [{"role": "user", "content": "q"}], "chosen": {"role": "assistant", "content": "a"},
         "rejected": {"role": "assistant", "content": "b"}},
        [Pair(prompt=[user("q")], chosen=[assistant("a")], rejected=[assistant("b")])],
    ),
    "sharegpt kto": (
        CHAT_KTO,
        {"turns": [turn("me", "q"), turn("bot", "a"), turn("me", "r"), turn("bot", "b")], "liked": True},
        [Response(prompt=[user("q"), assistant("a"), user("r")], completion=[assistant("b")], label=True)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_rows_come_out_as_the_entry_declares(name, folder):
    entry, record, rows = ROWS[name]
    base = folder(mine=entry)
    (base / entry["file_name"]).write_text(json.dumps(record))
    (source,) = find_sources([base / "dataset_info.json"])
    (data,) = data_of(source)
    assert read_rows(data, get_shape(source.shape)) == rows


DEMOS = {
    "dpo_en_demo.json.gz": {**SHAREGPT, "columns": {**SHAREGPT["columns"], "messages": "conversations"}, "tags": {}},
    "kto_en_demo.json.gz": {**SHAREGPT, "ranking": False, "columns": {"messages": "messages", "kto_tag": "label"}},
    "oaast_rm_zh.json.gz": {
        "ranking": True,
        "columns": {"prompt": "instruction", "query": "input", "response": "output", "history": "history"},
    },
}


def test_real_files_as_their_publisher_declares_them(shared_data, tmp_path):
    """Entries dpo_en_demo and kto_en_demo as in data/dataset_info.json of LLaMA-Factory, oaast_rm_zh as before May 2024."""
    for name in DEMOS:
        shutil.copy(shared_data / "llama_factory" / name, tmp_path)
    info = {name.partition(".")[0]: {**entry, "file_name": name} for name, entry in DEMOS.items()}
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    rows = {
        source.name: [row for data in data_of(source) for row in read_rows(data, get_shape(source.shape))]
        for source in find_sources([tmp_path])
    }
    assert {name: len(found) for name, found in rows.items()} == dict(zip(DEMOS, (300, 300, 1993), strict=True))
    assert all(isinstance(row, Pair) for row in rows["dpo_en_demo.json.gz"])
    assert all(isinstance(row.label, bool) for row in rows["kto_en_demo.json.gz"])
    assert all(row.rank >= 1 for row in rows["oaast_rm_zh.json.gz"])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"file_name": "none.json", "ranking": True},
            "'mine' of dataset_info.json names none.json, which is not there",
        ),
        ({**ALPACA, "columns": {"rejected": "b"}}, "'mine' of dataset_info.json names no column for chosen"),
        ({**SHAREGPT, "columns": {}}, "'mine' of dataset_info.json names no column for chosen"),
        ({**ALPACA, "formatting": "raw"}, "'mine' of dataset_info.json has the formatting raw"),
        ({**ALPACA, "columns": ["a"]}, "'mine' of dataset_info.json has columns that are no object"),
        ({**SHAREGPT, "tags": {"role_tag": 1}}, "'mine' of dataset_info.json has tags that are no object"),
        ({"ranking": True}, "'mine' of dataset_info.json names no file"),
        ("dpo.json", "'mine' of dataset_info.json names no file"),
    ],
)
def test_errors_name_the_entry(entry, message, folder):
    with pytest.raises(LogError, match=message):
        find_sources([folder(mine=entry, good=KTO)])


def test_an_ending_that_is_not_known_is_an_error(folder):
    base = folder(mine={**KTO, "file_name": "kto.arrow"})
    (base / "kto.arrow").write_text("")
    with pytest.raises(LogError, match=r"'mine' of dataset_info\.json names kto\.arrow, which has an ending"):
        find_sources([base])


@pytest.mark.parametrize("text", ["{", "\xff", "[" * 100_000])
def test_a_file_that_is_no_json_is_an_error(text, tmp_path):
    (tmp_path / "dataset_info.json").write_text(text, encoding="latin-1")
    with pytest.raises(LogError, match=r"dataset_info\.json cannot be read"):
        find_sources([tmp_path])


@pytest.mark.parametrize("info", [{"features": {"chosen": {"dtype": "string"}}, "splits": {}}, {}, []])
def test_the_hubs_own_file_of_that_name_declares_nothing(info, tmp_path):
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    (tmp_path / "a.jsonl").write_text("{}")
    assert list(found(tmp_path)) == ["a.jsonl", "dataset_info.json"]
