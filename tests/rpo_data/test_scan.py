"""The fast lane of lint: what it calls plain the exact reader accepts, with the same texts, and no line is lost."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from rpo_data.check import sides
from rpo_data.pairs import Reading, RecordCounts, judged_rows
from rpo_data.scan import prompt_text, response_text, scan
from rpo_data.sources import find_sources

HH = [
    '{"chosen": "\\n\\nHuman: a\\n\\nAssistant: b", "rejected": "\\n\\nHuman: a\\n\\nAssistant: c"}',
    '{"chosen": "\\n\\nHuman: é 你\\n\\nAssistant: b\\n\\nHuman: d\\n\\nAssistant: e", '
    '"rejected": "\\n\\nHuman: é 你\\n\\nAssistant: b\\n\\nHuman: d\\n\\nAssistant: f "}',
]
PREFERENCE = ['{"prompt": "why?", "chosen": "so", "rejected": "no"}', '{"prompt":"q","rejected":"r","chosen":"c"}']
ODD = [
    "", "   ", "{", "null", '{"chosen": "x"}', '{"chosen": 1, "rejected": "\\n\\nHuman: a\\n\\nAssistant: b"}',
    '{"prompt": "p", "chosen": "", "rejected": "r"}', '{"prompt": " ", "chosen": "c", "rejected": "r"}',
    '{"prompt": "p", "chosen": "same", "rejected": " same "}', '{"prompt": "p", "chosen": "a\\u0000", "rejected": "b"}',
    '{"prompt": "p", "chosen": "\\ud800", "rejected": "b"}', '{"prompt": "p", "prompt": "q", "chosen": "a", "rejected": "b"}',
    '{"prompt": "p", "chosen": "a", "rejected": "b", "weight": 2}',
    '{"chosen": "\\n\\nHuman: a\\n\\nAssistant: b", "rejected": "\\n\\nHuman: z\\n\\nAssistant: c"}',
    '{"chosen": "\\n\\nHuman:  a \\n\\nAssistant: b", "rejected": "\\n\\nHuman:  a \\n\\nAssistant: c"}',
    '{"chosen": "\\n\\nHuman: a\\n\\nHuman: b\\n\\nAssistant: c", '
    '"rejected": "\\n\\nHuman: a\\n\\nHuman: b\\n\\nAssistant: d"}',
]  # fmt: skip


def by_both_lanes(path, chunk_bytes):
    (source,) = find_sources([path])
    exact = {
        item.record.line: (prompt_text(item.row.prompt), *map(response_text, sides(item.row)[1:]))
        for kept, _ in judged_rows(source, Reading(), RecordCounts("x"))
        for item in kept
    }
    batches = scan(source, "auto", chunk_bytes)
    if batches is None:
        return exact, None, []
    plain, suspects = {}, []
    for texts, _, rest in batches:
        plain.update({line: row for line, *row in texts.select("line", "prompt", "chosen", "rejected").rows()})
        suspects += [item.line for item in rest]
    return exact, plain, suspects


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from(ODD), max_size=6),
    st.sampled_from([HH, PREFERENCE]),
    st.integers(8, 20),
    st.randoms(),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.integers(20, 400),
)
def test_plain_records_are_those_of_the_exact_reader(
    tmp_path_factory, odd, good, copies, random, end, closed, chunk_bytes
):
    lines = [*odd, *(random.choice(good) for _ in range(copies))]
    random.shuffle(lines)
    path = tmp_path_factory.mktemp("scan") / "logs.jsonl"
    path.write_bytes((end.join(lines) + (end if closed else "")).encode())
    exact, plain, suspects = by_both_lanes(path, chunk_bytes)
    assert plain is not None
    assert plain
    for line, texts in plain.items():
        assert tuple(texts) == exact[line]
    full = [number for number, line in enumerate(lines, start=1) if line.strip()]
    assert sorted([*plain, *suspects]) == full


def test_real_dialogues_are_nearly_all_plain(shared_data):
    for name in ("harmless-base", "helpful"):
        exact, plain, suspects = by_both_lanes(shared_data / "hh_rlhf" / f"{name}.test.jsonl.gz", 1 << 20)
        assert all(tuple(texts) == exact[line] for line, texts in plain.items())
        assert len(suspects) < 0.1 * (len(plain) + len(suspects))


def test_other_files_are_left_to_the_exact_reader(tmp_path, write_lines):
    array = tmp_path / "a.json"
    array.write_text(json.dumps([json.loads(line) for line in HH]))
    odd = write_lines("odd.jsonl", [{"instruction": "a", "chosen": "b", "rejected": "c"}] * 5)
    for path in (array, odd):
        assert scan(find_sources([path])[0]) is None
