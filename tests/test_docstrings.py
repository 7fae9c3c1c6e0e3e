"""The examples in docstrings hold."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOMES = {"rpo_data": "rpo_data", **{part: f"rpo_data.{part}" for part in ("pipelines", "schemas", "trainer")}}
MODULES = [
    ".".join([module, *path.relative_to(ROOT / folder).with_suffix("").parts]).removesuffix(".__init__")
    for folder, module in HOMES.items()
    for path in sorted((ROOT / folder).rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_hold(name):
    result = doctest.testmod(import_module(name))
    assert result.failed == 0


def test_examples_are_found():
    assert {"rpo_data.weights", "rpo_data.trainer.loss", "rpo_data.schemas.recipe"} <= {*MODULES}
