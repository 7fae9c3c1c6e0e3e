"""Shapes are found by what their records hold; installed packages add theirs; columns are renamed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from comparison_records import COMPARISON_RECORDS
from shape_oracles import JUDGED, RATED, agrees
from shape_records import RECORDS

from rpo_data.errors import RecipeError
from rpo_data.shapes import Pair, ShapeError, claiming_shapes, get_shape, map_columns, read_rows, shapes
from rpo_data.shapes.base import Shape, is_judged

ALL = RECORDS | COMPARISON_RECORDS


def test_every_shape_has_records_and_an_oracle():
    assert set(ALL) == set(shapes())
    assert set(JUDGED) ^ set(RATED) == set(shapes())


@pytest.mark.parametrize(
    ("name", "number"), [(name, number) for name in sorted(ALL) for number in range(len(ALL[name]))]
)
def test_each_record_is_claimed_by_its_shape_alone_and_read_as_it_says(name, number):
    record = ALL[name][number]
    assert claiming_shapes(record) == [name]
    rows = read_rows(record, get_shape(name))
    assert rows
    for row in rows:
        assert agrees(name, record, row)


@pytest.mark.parametrize("name", sorted(ALL))
def test_a_shape_gives_what_it_says(name):
    kinds = {"pairs": Pair} if get_shape(name).gives == "pairs" else {}
    rows = [row for record in ALL[name] for row in read_rows(record, get_shape(name))]
    if kinds:
        assert {type(row) for row in rows} == {Pair}
    elif get_shape(name).gives == "labelled":
        assert {row.label for row in rows} <= {True, False}
    else:
        assert all(row.label is None for row in rows)
        assert any(is_judged(row) for row in rows)


@pytest.mark.parametrize("name", sorted(shapes()))
def test_a_shape_names_its_source(name):
    shape = get_shape(name)
    assert shape.name == name
    assert shape.source.startswith("https://")
    module = sys.modules[shape.read.__module__]
    assert module.__doc__ is not None
    assert "Rules: " in module.__doc__ or name == "thumbs"


@pytest.mark.parametrize("record", [{}, {"text": "a"}, {"messages": [{"role": "user", "content": "a"}]}], ids=str)
def test_what_is_no_preference_is_claimed_by_none(record):
    assert claiming_shapes(record) == []


def test_a_name_that_is_not_known():
    with pytest.raises(RecipeError, match=r"no format 'sharegtp'; did you mean 'sharegpt'\?"):
        get_shape("sharegtp")
    with pytest.raises(RecipeError, match="there are: auto, hh, preference, unpaired"):
        get_shape("???")


def test_a_record_without_rows_holds_no_judgement():
    shape = Shape("x", "X", "pairs", "https://x", (("a",),), lambda data: True, lambda data: [])
    with pytest.raises(ShapeError, match="holds no judgement") as error:
        read_rows({"a": 1}, shape)
    assert error.value.code == "no_judgement"


def test_values_of_the_shape_win_over_columns():
    pair = Pair(prompt=[], chosen=[], rejected=[], annotator="own", score_chosen=1.0)
    shape = Shape("x", "X", "pairs", "https://x", (("a",),), lambda data: True, lambda data: [pair])
    (row,) = read_rows({"a": 1, "annotator": "other", "score_chosen": 5, "score_rejected": 2, "language": "de"}, shape)
    assert (row.annotator, row.score_chosen, row.score_rejected, row.language) == ("own", 1.0, 2.0, "de")


@pytest.mark.parametrize(
    ("data", "columns", "expected"),
    [
        ({"q": "a", "n": 1}, {"prompt": "q"}, {"n": 1, "prompt": "a"}),
        ({"m": {"s": 3}}, {"score": "m.s"}, {"m": {"s": 3}, "score": 3}),
        ({"m.s": 1, "m": {"s": 3}}, {"score": "m.s"}, {"m": {"s": 3}, "score": 1}),
        ({"m": {"s": None}}, {"score": "m.s"}, {"m": {"s": None}, "score": None}),
        ({"m": 1}, {"score": "m.s"}, {"m": 1}),
        ({"m": {"t": 1}}, {"score": "m.s"}, {"m": {"t": 1}}),
        (
            {"chosen": "a", "rejected": "b"},
            {"chosen": "rejected", "rejected": "chosen"},
            {"chosen": "b", "rejected": "a"},
        ),
        ({"prompt": "old", "q": "new"}, {"prompt": "q"}, {"prompt": "new"}),
        ({"a": 1}, {}, {"a": 1}),
    ],
    ids=range(9),
)
def test_columns_are_renamed(data, columns, expected):
    assert map_columns(data, columns) == expected


def test_another_judgement_is_chosen_by_mapping():
    record = COMPARISON_RECORDS["safe_rlhf"][0] | {"better_response_id": 0, "safer_response_id": 1}
    better = read_rows(record, get_shape("safe_rlhf"))[0]
    safer = read_rows(map_columns(record, {"better_response_id": "safer_response_id"}), get_shape("safe_rlhf"))[0]
    assert (better.chosen, better.rejected) == (safer.rejected, safer.chosen)


# -- shapes of other packages: each case in an interpreter of its own, because shapes are found once ----------------------

GOOD = """
from rpo_data.shapes import Pair, Shape
from rpo_data.shapes.base import assistant, text, user

def read(data):
    return [Pair(prompt=[user(text(data, "ask"))], chosen=[assistant(text(data, "up"))],
                 rejected=[assistant(text(data, "down"))])]

SHAPE = Shape(name="acme", title="Acme", gives="pairs", source="https://acme.example/logs", needs=(("ask", "up", "down"),),
              claims=lambda data: isinstance(data["up"], str), read=read)
"""


def run_with_package(folder: Path, module: str, code: str) -> subprocess.CompletedProcess[str]:
    """Run code where a package with this module and an entry point to its SHAPE is installed."""
    (folder / "acme_logs.py").write_text(module, encoding="utf-8")
    info = folder / "acme_logs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-logs\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[rpo_data.shapes]\nacme = acme_logs:SHAPE\n", encoding="utf-8")
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}, cwd=folder, check=False
    )


def test_a_package_adds_a_shape(tmp_path):
    code = """
from rpo_data.shapes import claiming_shapes, get_shape, read_rows, shapes
record = {"ask": "2+2?", "up": "4", "down": "5", "annotator": "ann"}
print(list(shapes())[-1], claiming_shapes(record))
row = read_rows(record, get_shape("acme"))[0]
print(row.prompt[0]["content"], row.chosen[0]["content"], row.rejected[0]["content"], row.annotator)
"""
    done = run_with_package(tmp_path, GOOD, code)
    assert done.stderr == ""
    assert done.stdout == "acme ['acme']\n2+2? 4 5 ann\n"


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        ("import nothing_of_this_name", "the shape 'acme' of acme_logs:SHAPE cannot be loaded (No module named"),
        ("SHAPE = 1", "cannot be used (it is no rpo_data.shapes.Shape): mend or remove it"),
        (GOOD.replace('name="acme"', 'name="hh"'), "cannot be used (name 'hh' is taken): mend or remove it"),
    ],
    ids=["broken", "no shape", "taken"],
)
def test_a_package_that_cannot_be_used_is_named(tmp_path, module, sentence):
    code = """
from rpo_data.errors import RecipeError
from rpo_data.shapes import shapes
try:
    shapes()
except RecipeError as error:
    print(error)
"""
    done = run_with_package(tmp_path, module, code)
    assert sentence in done.stdout


def test_the_page_lists_every_shape():
    from pathlib import Path

    from rpo_data.shapes import shapes

    page = (Path(__file__).parents[3] / "docs" / "shapes.md").read_text()
    for shape in shapes().values():
        assert f"| `{shape.name}` | {shape.title} | {shape.gives} |" in page
