"""What importing costs: `import rpo_data` is light, the trainer needs nothing of the data side, public names are whole."""

import importlib
import json
import pkgutil
import subprocess
import sys

import pytest

import rpo_data

HEAVY = ["torch", "faiss", "polars", "pandera", "sentence_transformers", "transformers", "datasets", "numba", "pandas"]


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_import_is_light():
    code = (
        "import time, sys, json; start = time.perf_counter(); import rpo_data; "
        "print(json.dumps([time.perf_counter() - start, sorted(sys.modules)]))"
    )
    runs = [json.loads(python(code)) for _ in range(3)]
    assert not set(HEAVY) & set(runs[0][1])
    assert min(seconds for seconds, _ in runs) < 0.5


def test_help_loads_nothing_heavy():
    code = (
        "import sys, rpo_data.pipelines.cli as cli; from typer.testing import CliRunner; "
        "result = CliRunner().invoke(cli.app, ['build', '--help']); assert result.exit_code == 0; "
        f"print(sorted(set(sys.modules) & set({HEAVY})))"
    )
    assert python(code).strip() == "[]"


def test_public_names_are_complete_sorted_and_reachable():
    assert rpo_data.__all__ == sorted(rpo_data.__all__)
    assert set(rpo_data.__all__) <= set(dir(rpo_data))
    for name in rpo_data.__all__:
        assert getattr(rpo_data, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = rpo_data.nothing


@pytest.mark.parametrize("package", ["rpo_data", "rpo_data.schemas", "rpo_data.pipelines", "rpo_data.trainer"])
def test_every_module_imports(package):
    modules = list(pkgutil.iter_modules(importlib.import_module(package).__path__, package + "."))
    assert modules
    for module in modules:
        importlib.import_module(module.name)
