"""What lint keeps of the logs: by both lanes the same rows in the same order, with the same counts and examples."""

import json
import random
from functools import partial

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from tests_support import pair

from rpo_data import gather as gathering
from rpo_data import pairs, read_json, scan
from rpo_data.contamination import index_ngrams
from rpo_data.errors import LogError
from rpo_data.gather import Looking, gather, printable
from rpo_data.pairs import Reading
from rpo_data.sources import find_sources

QUIET = frozenset({"mixed_languages", "personal_data"})
MAIL = "write to anna.berg@mailhost.net"
EXTRA = {"note": "one more column is enough for the exact reader"}


def both(*paths, reading=None, off=QUIET, examples=3, evaluation=None):
    """What the two lanes gather, which must be the same; that of the fast one."""
    looking = Looking(frozenset(off), evaluation, examples)
    sources = find_sources(paths)
    assert any(scan.plain_shape(source, (reading or Reading()).shape) for source in sources)
    fast, exact = (gather(sources, reading or Reading(), looking, exact=lane) for lane in (False, True))
    assert_frame_equal(fast.rows, exact.rows)
    assert fast.tallies == exact.tallies
    assert fast.counts == exact.counts
    return fast


def hh(number, **more):
    start = f"\n\nHuman: question {number}\n\nAssistant:"
    return {"chosen": f"{start} good {number}", "rejected": f"{start} bad {number}"} | more


def places(tally):
    return [(example.file, example.line) for example in tally.examples]


@pytest.mark.parametrize("chunk_bytes", [50, 700, 1 << 24])
def test_several_files_of_both_kinds(chunk_bytes, write_lines, monkeypatch):
    whole = scan.scan
    monkeypatch.setattr(gathering, "scan", partial(whole, chunk_bytes=chunk_bytes))
    mixed = [pair(n) if n % 3 else pair(n) | EXTRA for n in range(40)]
    mixed[4:4] = [pair(0, chosen=""), {"prompt": "no answers"}, pair(7), hh(8)]
    dialogues = [hh(n) if n % 4 else hh(n, **EXTRA) for n in range(30)]
    first, second = write_lines("a.jsonl", mixed), write_lines("b.jsonl", dialogues)
    array = write_lines("c.jsonl", [])
    array.write_text("[" + ",".join(map(json.dumps, mixed[10:14])) + "]")
    found = both(first, second, array)
    assert found.rows["source"].to_list() == ["a.jsonl"] * 42 + ["b.jsonl"] * 30 + ["c.jsonl"] * 4
    lines = [n for n in range(1, 45) if n not in (5, 6)] + [*range(1, 31), *range(1, 5)]
    assert found.rows["line"].to_list() == lines
    assert [(count.read, count.used, count.rejected) for count in found.counts] == [(44, 42, 2), (30, 30, 0), (4, 4, 0)]
    assert found.counts[0].shapes == {"preference": 42, "hh": 1}  # the empty one has a shape, too
    assert found.counts[0].types["note"] == {"text": 14}
    assert {code: places(tally) for code, tally in found.tallies.items()} == {
        "empty_response": [("a.jsonl", 5)],
        "missing_column": [("a.jsonl", 6)],
    }


def test_a_row_by_hand(write_lines):
    found = both(write_lines("a.jsonl", [pair(n, prompt="x" * 200) for n in range(3)]))
    row = found.rows.row(1, named=True)
    hashes = {name: row.pop(name) for name in ("prompt_hash", "chosen_hash", "rejected_hash")}
    assert len(set(hashes.values())) == 3
    assert row == {
        "line": 2, "kind": "pair", "label": None, "annotator": None, "source": "a.jsonl", "scored": False,
        "first_wins": None, "disagrees": False, "language": None, "snippet": ("Human: " + "x" * 200)[:160],
        "chosen_characters": 13, "rejected_characters": 5, "chosen_markdown": False, "rejected_markdown": False,
        "chosen_refusal": False, "rejected_refusal": False, "chosen_echo": False, "rejected_echo": False,
    }  # fmt: skip


def test_examples_are_the_first_lines_whichever_lane_read_them(write_lines):
    records = [pair(n) for n in range(30)]
    for place in (25, 3, 12, 8):
        records[place] = pair(place, chosen=MAIL)
    records[3] |= EXTRA
    records[12] |= EXTRA
    more = write_lines("b.jsonl", [pair(1, chosen=MAIL), pair(2)])
    found = both(write_lines("a.jsonl", records), more, off={"mixed_languages"})
    personal = found.tallies["personal_data"]
    assert (personal.count, dict(personal.details)) == (5, {"email": 5})
    assert places(personal) == [("a.jsonl", 4), ("a.jsonl", 9), ("a.jsonl", 13)]
    assert places(both(more, off={"mixed_languages"}, examples=0).tallies["personal_data"]) == []


def test_examples_go_on_in_the_next_file_where_the_first_has_few(write_lines):
    first = write_lines("a.jsonl", [pair(1), pair(2, chosen=MAIL), pair(3)])
    second = write_lines("b.jsonl", [pair(n, chosen=MAIL) | (EXTRA if n == 1 else {}) for n in range(4)])
    found = both(first, second, off={"mixed_languages"})
    assert places(found.tallies["personal_data"]) == [("a.jsonl", 2), ("b.jsonl", 1), ("b.jsonl", 2)]


def test_a_rule_that_is_off_is_not_counted_and_has_no_column(write_lines):
    path = write_lines("a.jsonl", [pair(n, chosen=MAIL) for n in range(5)])
    found = both(path, off={*QUIET, "markdown", "prompt_echo"})
    assert found.tallies == {}
    flags = {column for column in found.rows.columns if column.endswith(("markdown", "refusal", "echo"))}
    assert flags == {"chosen_refusal", "rejected_refusal"}
    assert found.rows["language"].null_count() == 5


def test_languages_and_overlaps(write_lines):
    question = "Please explain to me how to bake a good loaf of bread and which flour I need for it today"
    records = [pair(n) for n in range(6)]
    records[2] = pair(2, prompt=question)
    records[4] = pair(4, prompt=question) | EXTRA
    found = both(write_lines("a.jsonl", records), off={"personal_data"}, evaluation=index_ngrams(pl.Series([question])))
    assert found.rows["language"].to_list()[2::2] == ["en", "en"]
    assert places(found.tallies["contamination"]) == [("a.jsonl", 3), ("a.jsonl", 5)]


def test_a_limit_counts_records_over_all_files(write_lines):
    first, second = (write_lines(name, [pair(n) for n in range(5)]) for name in ("a.jsonl", "b.jsonl"))
    sources, looking = find_sources([first, second]), Looking(QUIET)
    for limit, lines in ((0, []), (3, [1, 2, 3]), (7, [1, 2, 3, 4, 5, 1, 2]), (99, [*range(1, 6)] * 2)):
        found = gather(sources, Reading(), looking, limit=limit)
        assert found.rows["line"].to_list() == lines
        assert sum(count.read for count in found.counts) == len(lines)


@pytest.mark.parametrize("label", [1, 2])
def test_first_wins_where_a_shape_has_an_a_and_a_b(label, write_lines):
    odd = {"input": "q", "output_1": "one", "output_2": "two", "label": label}
    found = both(write_lines("a.jsonl", [pair(1), odd, pair(2), pair(3)]))
    assert found.rows["first_wins"].to_list() == [None, label == 1, None, None]


def test_labels_scores_and_annotators(write_lines):
    liked = {"prompt": "p", "completion": "c", "label": True, "annotator": "ann"}
    found = both(write_lines("a.jsonl", [pair(1), liked, pair(2), pair(3), pair(4, annotator="ben")]))
    assert found.rows["kind"].to_list() == ["pair", "response", "pair", "pair", "pair"]
    assert found.rows["label"].to_list() == [None, True, None, None, None]
    assert found.rows["annotator"].to_list() == [None, "ann", None, None, "ben"]
    assert found.rows["rejected_characters"].to_list()[1] is None


# -- what the two lanes could see otherwise ------------------------------------------------------------------------------


def test_a_record_of_no_shape_is_read_as_what_the_first_records_are(write_lines):
    found = both(write_lines("a.jsonl", [*(hh(n) for n in range(5)), {"chosen": "x"}, {"other": 1}]))
    assert {code: tally.count for code, tally in found.tallies.items()} == {"no_turn_marker": 1, "missing_column": 1}


def test_only_the_first_records_can_stop_a_file_that_two_shapes_claim(write_lines, monkeypatch):
    monkeypatch.setattr(pairs, "_PEEK", 10)
    real = pairs.claiming_shapes
    monkeypatch.setattr(pairs, "claiming_shapes", lambda data: ["one", "other"] if "note" in data else real(data))
    records = [pair(n) for n in range(20)]
    found = both(write_lines("a.jsonl", [*records, pair(20) | EXTRA]))
    assert places(found.tallies["ambiguous_shape"]) == [("a.jsonl", 21)]
    (source,) = find_sources([write_lines("b.jsonl", [*records[:9], pair(9) | EXTRA, *records])])
    for exact in (False, True):
        with pytest.raises(LogError, match=r"b.jsonl:10 could be read as one or as other"):
            gather([source], Reading(), Looking(QUIET), exact=exact)


def test_a_shape_that_was_named(write_lines):
    path = write_lines("a.jsonl", [*(pair(n) for n in range(5)), {"other": 1}])
    assert both(path, reading=Reading(shape="preference")).tallies["missing_column"].count == 1


@pytest.mark.parametrize("size", [0, -1, 1, 50])
@pytest.mark.parametrize("filling", ["x", " "])
@pytest.mark.parametrize("last", [True, False])
def test_a_line_that_is_too_long(size, filling, last, write_lines, monkeypatch):
    for module in (read_json, scan):
        monkeypatch.setattr(module, "MAX_RECORD_BYTES", 100)
    whole = scan.scan
    monkeypatch.setattr(gathering, "scan", partial(whole, chunk_bytes=60))
    path = write_lines("a.jsonl", [pair(n) for n in range(4)])
    plain = path.read_text()
    path.write_text(plain + filling * (100 + size) + ("" if last else "\n" + plain))
    found = both(path)
    bad = {"x": "broken_json" if size < 0 else "line_too_long", " ": "" if size < 0 else "line_too_long"}[filling]
    assert {code: places(tally) for code, tally in found.tallies.items()} == ({bad: [("a.jsonl", 5)]} if bad else {})
    assert found.rows["line"].to_list() == [1, 2, 3, 4, *([] if last else [6, 7, 8, 9])]


def test_how_deep_a_record_may_nest_is_the_same_in_both_lanes(write_lines):
    depths = [400, 499, 500, *range(960, 1000), 100_000]
    path = write_lines("a.jsonl", [pair(n) for n in range(50)])
    with path.open("a") as file:
        for depth in depths:
            file.write(f'{{"prompt": "p", "chosen": "a", "rejected": "b", "note": {"[" * depth}{"]" * depth}}}\n')
    found = both(path)
    assert found.rows["line"].to_list() == [*range(1, 53)]
    assert {code: tally.count for code, tally in found.tallies.items()} == {"broken_json": len(depths) - 2}
    assert found.tallies["broken_json"].examples[0].message == (
        "a.jsonl:53: nested more than 500 deep: flatten or drop the record"
    )


def test_the_rows_do_not_keep_the_texts_in_memory(write_lines):
    found = both(write_lines("a.jsonl", [pair(n, prompt=f"{n} " + "x" * 20_000) for n in range(50)]))
    buffers = found.rows["snippet"].to_arrow(compat_level=pl.CompatLevel.newest()).buffers()
    assert sum(buffer.size for buffer in buffers if buffer) < 50 * 1000


def test_random_damage_gives_the_same(write_lines, tmp_path):
    """A little of tests/rpo_data/test_scan.py's, through everything that gather keeps."""
    odd = [b"{", b"", b" ", b"null", b'{"chosen": "x\xff", "rejected": "b"}', b'{"chosen": "x"}', b"\xef\xbb\xbf{}"]
    for seed in range(10):
        chance = random.Random(seed)
        lines = [json.dumps(pair(n % 5, chosen=MAIL) | (EXTRA if n % 7 == 0 else {})).encode() for n in range(25)]
        lines += chance.choices(odd, k=6)
        chance.shuffle(lines)
        path = tmp_path / f"{seed}.jsonl"
        path.write_bytes(chance.choice([b"\n", b"\r\n"]).join(lines))
        both(path, off={"mixed_languages"})


def test_printable_texts_hold_nothing_that_moves_a_terminal():
    assert printable("a\x1b[31m\ud800 é\n\u202e") == "a\\x1b[31m\\ud800 é\\n\\u202e"


def test_progress_is_told_batch_by_batch_in_both_lanes(write_lines, monkeypatch):
    monkeypatch.setattr(gathering, "scan", partial(scan.scan, chunk_bytes=1000))
    path, told = write_lines("a.jsonl", [pair(n) for n in range(200)]), []
    gather(find_sources([path], []), Reading(), Looking(), progress=lambda done, total: told.append(done))
    assert told[-1] == 200
    assert len(set(told)) > 5
