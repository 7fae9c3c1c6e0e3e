"""Lengths, counts, places in the logs and texts, by hand."""

import polars as pl
import pyarrow as pa
from tests_support import pair

from rpo_data import Recipe, build
from rpo_data.page.rows import (
    PLACES,
    SHOWN,
    characters,
    contradictions,
    dialogue,
    excerpt,
    flag_counts,
    left_out_places,
    one_line,
    opening,
    side_lengths,
    value_counts,
)


def say(*texts):
    return [{"role": "user", "content": text} for text in texts]


def test_characters_count_every_message_whatever_the_batches():
    table = pa.table({"chosen": [say("abc"), [], say("äö", None, "1"), None, say("x" * 10)]})
    assert characters(table, "chosen").tolist() == [3, 0, 3, 0, 10]
    assert characters(table.slice(1, 3), "chosen").tolist() == [0, 3, 0]
    assert characters(pa.concat_tables([table.slice(2), table]), "chosen").tolist() == [3, 0, 10, 3, 0, 3, 0, 10]


def test_texts_are_cut():
    assert excerpt(say("a", "12345"), 5) == "12345"
    assert excerpt(say("123 456"), 5) == "123…"
    assert excerpt(say(None), 20) == excerpt([], 20) == "(tool call)"
    assert one_line(say("a\n\n b   c"), 10) == "a b c"
    assert one_line(say("word " * 50), 9) == "word wor…"
    assert opening(say("a  b", "c"), 10) == "a b"
    assert opening(say("word " * 9, "c"), 9) == "word wor…"
    assert opening(say("only"), 10) == opening([], 10) == ""
    assert opening([{"role": "system", "content": "s"}, *say("u")], 10) == ""
    assert dialogue(say("one", "two"), 100) == "user: one\n\nuser: two"
    assert dialogue(say("one", "two"), 5) == "…two"


def test_counts_of_a_build(write_lines, tmp_path, cache_dir):
    records = [pair(n, annotator=f"a{n % (SHOWN + 3):02}") for n in range(30)]
    twice = [{"role": "user", "content": "first"}, {"role": "user", "content": "second"}]
    said = [[*twice, {"role": "assistant", "content": answer}] for answer in ("yes", "no")]
    records[3] = pair(3, chosen=said[0], rejected=said[1], annotator="a03") | {"prompt": twice}
    records += [pair(n, chosen="") for n in range(PLACES + 2)]
    records += [pair(0, prompt="x?", chosen="a", rejected="b"), pair(0, prompt="x?", chosen="b", rejected="a")]
    recipe = Recipe(embedder="static", test_fraction=0, group_size=4, duplicate_score=1.001)
    data = build(write_lines("logs.jsonl", records), tmp_path / "out", recipe, cache_dir=cache_dir)
    counted = value_counts(data, "annotator")
    assert counted[0] == {"value": "a00", "rows": 2}
    assert len(counted) == SHOWN + 1
    assert counted[-1] == {"value": "3 others", "rows": 6}
    assert value_counts(data, "language") == []
    assert flag_counts(data) == [{"flag": "repeated_role", "rows": 1, "places": ["logs.jsonl:4"]}]
    places = left_out_places(data.path / "rejects.parquet")
    assert places["empty_response"]["places"] == [f"logs.jsonl:{31 + n}" for n in range(PLACES)]
    assert places["empty_response"]["files"] == 1
    assert places["empty_response"]["first"] == "logs.jsonl:31: chosen is empty: drop the record"
    told = contradictions(data.path / "rejects.parquet")
    assert [line.partition(" ")[0] for line in told] == [f"logs.jsonl:{31 + PLACES + n}:" for n in (2, 3)]
    assert left_out_places(None) == {}
    assert contradictions(None) == []
    rows = pl.DataFrame(pl.from_arrow(data.pairs["train"].data.table.select(["pair_id"])))
    lengths = side_lengths(data, [3, 0], [1])
    wanted = [data.pairs["train"][n] for n in (3, 0, 1)]
    assert [side.tolist() for side in lengths] == [
        [len(row["chosen"][0]["content"]) for row in wanted[:2]],
        [len(wanted[2]["rejected"][0]["content"])],
    ]
    assert len(rows) == 30
