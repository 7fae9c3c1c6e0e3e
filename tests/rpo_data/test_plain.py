"""The compiled grammar of plain lines: what it decodes is what json decodes, and what it leaves out it leaves out whole."""

import json
import re

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rpo_data.plain import SIDES, read_plain

ODD = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]")
RARE = re.compile("[\ufff0-\uffff]")  # escapes of these are left to the exact reader
TEXT = st.text(
    st.sampled_from('ab \t\n\r"\\/:é\u00a0\u3000\u2028你😀\u00ad\ufeff\ufffd\x0b\x7f\x85\uffff'), max_size=12
)


def line(**texts):
    return json.dumps(texts).encode()


def read(*lines, columns=SIDES, end=b"\n"):
    return read_plain(end.join(lines) + end, columns)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=8), st.booleans(), st.permutations(SIDES))
def test_texts_are_those_that_json_reads(rows, ascii_only, order):
    lines, expected = [], []
    for number, texts in enumerate(rows, start=1):
        record = dict(zip(SIDES, texts, strict=True))
        lines.append(json.dumps({name: record[name] for name in order}, ensure_ascii=ascii_only).encode())
        prompt, chosen, rejected = pl.Series(texts).str.strip_chars().to_list()
        sound = prompt and chosen and rejected and chosen != rejected and not ODD.search("".join(texts))
        if sound and not (ascii_only and RARE.search("".join(texts))):
            expected.append((number, f"\n\nHuman: {prompt}", chosen, rejected))
    block = b"\n".join(lines)
    found = read_plain(block, SIDES)
    assert found.texts.rows() == expected
    assert found.lines == len(rows)
    plain = {number for number, *_ in expected}
    assert [(n, block[start:end].rstrip(b"\n")) for n, start, end in found.others] == [
        (n, text) for n, text in enumerate(lines, start=1) if n not in plain
    ]


@pytest.mark.parametrize(
    "escape", ['\\"', "\\\\", "\\/", "\\n", "\\r", "\\t", "\\u0020", "\\u00e9", "\\u4F60", "\\ud83d\\ude00"]
)
def test_escapes_that_are_plain(escape):
    texts = read(b'{"prompt": "p", "chosen": "a' + escape.encode() + b'b", "rejected": "c"}').texts
    assert texts["chosen"].to_list() == [json.loads(f'"a{escape}b"')]


@pytest.mark.parametrize(
    "escape",
    ["\\", "\\x", "\\b", "\\f", "\\u", "\\u12", "\\u12g4", "\\u0041", "\\u003a", "\\u0000", "\\u000a", "\\u0085",
     "\\ud83d", "\\ude00", "\\ud83d\\u0041", "\\ud83d\\n", "\\uffff"],
)  # fmt: skip
def test_escapes_that_are_not(escape):
    good = line(prompt="p", chosen="a", rejected="b")
    found = read(good, b'{"prompt": "p", "chosen": "a' + escape.encode() + b'", "rejected": "c"}', good)
    assert found.texts["line"].to_list() == [1, 3]
    assert found.others[:, 0].tolist() == [2]


@pytest.mark.parametrize(
    "text",
    [b"\x80", b"\xc0\xaf", b"\xc1\xbf", b"\xc2", b"\xc2\x41", b"\xe0\x9f\xbf", b"\xed\xa0\x80", b"\xe2\x82",
     b"\xf0\x8f\xbf\xbf", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xff",
     b"\xc2\x85", b"\xef\xbf\xbf", b"\x00", b"\t", b"\x7f"],
)  # fmt: skip
def test_bytes_that_are_no_plain_text(text):
    good = line(prompt="p", chosen="a", rejected="b")
    for behind in (b"", b"1234567", b"12345678901234567"):
        found = read(good, b'{"prompt": "p", "chosen": "a' + behind + text + behind + b'", "rejected": "c"}', good)
        assert found.texts["line"].to_list() == [1, 3]


@pytest.mark.parametrize(
    "text",
    [
        '{"prompt" : "p", "chosen": "a", "rejected": "b"}', '{"prompt":  "p", "chosen": "a", "rejected": "b"}',
        ' {"prompt": "p", "chosen": "a", "rejected": "b"}', '{"prompt": "p", "chosen": "a", "rejected": "b"} ',
        '{"prompt": "p", "chosen": "a"}', '{"prompt": "p", "chosen": "a", "rejected": "b", "chosen": "c"}',
        '{"prompt": "p", "chosen": "a", "chosen": "b"}', '{"prompt": "p", "chosen": "a", "rejected": null}',
        '{"prompt": "p", "chosen": "a", "rejected": "b"', '{"prompt": "p" "chosen": "a", "rejected": "b"}', "{", "", "[]",
    ],
)  # fmt: skip
def test_lines_of_another_form(text):
    for end in (b"\n", b"\r\n"):
        found = read(line(prompt="p", chosen="a", rejected="b"), text.encode(), end=end)
        assert found.texts["line"].to_list() == [1]
        assert found.lines == 2


def dialogue(*turns, answer):
    return "".join(f"\n\nHuman:{human}\n\nAssistant:{said}" for human, said in turns) + answer


@pytest.mark.parametrize(
    ("chosen", "rejected", "texts"),
    [
        (dialogue((" a", ""), answer=" b"), dialogue((" a", ""), answer="  c\n"), ("\n\nHuman: a", "b", "c")),
        (dialogue((" a", " b"), (" c", ""), answer="d"), dialogue((" a", " b"), (" c", ""), answer="e"),
         ("\n\nHuman: a\n\nAssistant: b\n\nHuman: c", "d", "e")),
        (dialogue((" a", ""), answer=" b"), dialogue((" z", ""), answer=" c"), None),  # other question
        (dialogue(("a", ""), answer=" b"), dialogue(("a", ""), answer=" c"), None),  # no blank
        (dialogue((" a ", ""), answer=" b"), dialogue((" a ", ""), answer=" c"), None),  # a blank too many
        (dialogue(("  a", ""), answer=" b"), dialogue(("  a", ""), answer=" c"), None),
        (dialogue((" \u00a0a", ""), answer=" b"), dialogue((" \u00a0a", ""), answer=" c"), None),
        (dialogue((" ", ""), answer=" b"), dialogue((" ", ""), answer=" c"), None),  # no words
        (dialogue((" a", ""), answer=" "), dialogue((" a", ""), answer=" c"), None),
        (dialogue((" a", ""), answer=" b"), dialogue((" a", ""), answer=" b "), None),  # the same
        (dialogue((" a", ""), answer=" b"), dialogue((" a", ""), answer=" b\n\nHuman: d"), None),
        ("x" + dialogue((" a", ""), answer=" b"), "x" + dialogue((" a", ""), answer=" c"), None),
        (dialogue((" a\n\nHuman: b", ""), answer=" b"), dialogue((" a\n\nHuman: b", ""), answer=" c"), None),
        (dialogue((" a", " b\n\nAssistant: c"), (" d", ""), answer=" b"), dialogue((" a", ""), answer=" c"), None),
        (" b", " c", None),
        ("\n\nHuman: a", "\n\nHuman: b", None),
    ],
)  # fmt: skip
def test_dialogues(chosen, rejected, texts):
    found = read(line(rejected=rejected, chosen=chosen), columns=("chosen", "rejected"))
    assert found.texts.rows() == ([] if texts is None else [(1, *texts)])


def test_texts_that_are_too_long():
    most = "x" * 1_000_000
    found = read(line(prompt="p", chosen=most, rejected="b"), line(prompt="p", chosen=most + "x", rejected="b"))
    assert found.texts["line"].to_list() == [1]


def test_nothing_to_read():
    assert read_plain(b"", SIDES).lines == 0
    assert read_plain(b"\n\n", SIDES).lines == 2
    assert read_plain(b"\n\n", SIDES).texts.is_empty()
