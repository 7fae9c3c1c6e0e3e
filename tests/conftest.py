"""Shared by all tests: no network, one cache a session, the real sample and small hand-written logs."""

import gzip
import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # parallel workers that each use all cores wait for each other

import pytest
from hypothesis import settings

settings.register_profile("shared", deadline=None)  # the machine is shared: time says nothing
settings.load_profile("shared")

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "tests" / "support"))  # tests_support, for every folder below
SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def sample() -> Path:
    """1,000 real HH-RLHF helpful pairs."""
    return ROOT / "examples" / "hh-helpful-1000.jsonl.gz"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Larger real data, beside the checkout on the project's own machines only."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED.name}/ with the full HH-RLHF test split is not beside this checkout")
    return SHARED


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory) -> Path:
    """One cache for all tests that need no fresh one, shared by parallel workers: MiniLM embeds each prompt once."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"


@pytest.fixture(scope="session")
def sample_rows(sample) -> list[dict]:
    with gzip.open(sample, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.fixture
def write_lines(tmp_path):
    """Write records as JSON lines; gives the path."""

    def write(name: str, records: list) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        return path

    return write
