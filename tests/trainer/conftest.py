"""Small contrast datasets written by hand, and tiny models made on the spot."""

import random
import zlib

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict

from rpo_data.dataset import ContrastDataset
from rpo_data.pipelines.tiny_model import make_tiny_model
from rpo_data.schemas.manifest import EmbedderInfo, Manifest, NeighborsInfo, Quality, SplitInfo
from rpo_data.schemas.recipe import Recipe
from rpo_data.schemas.tables import GROUPS, NEIGHBORS, PAIRS

WORDS = [
    "apple",
    "bread",
    "cloud",
    "drum",
    "eagle",
    "flute",
    "grape",
    "honey",
    "island",
    "jelly",
    "kite",
    "lemon",
    "mango",
    "north",
    "olive",
    "piano",
]


def message(role: str, content: str | None, **more) -> dict:
    return {"role": role, "content": content, "name": None, "tool_calls": None, "tool_call_id": None} | more


def pair_row(number: int, prompt: str, chosen: str, rejected: str) -> dict:
    """A row of `pairs`."""
    return {
        "pair_id": f"{number:032x}",
        "prompt_id": f"{number:032x}",
        "prompt": [message("user", prompt)],
        "chosen": [message("assistant", chosen)],
        "rejected": [message("assistant", rejected)],
        "score_chosen": None,
        "score_rejected": None,
        "strength": None,
        "weight": 1.0,
        "annotator": None,
        "language": None,
        "source": "hand.jsonl",
        "source_row": number + 1,
        "flags": [],
    }


def group_row(split: str, view: int, number: int, wins: list, losses: list, weight) -> dict:
    weight = np.asarray(weight, dtype=np.float32)
    return {
        "group_id": f"{split}-{view}-{number}",
        "view": view,
        "win_rows": list(wins),
        "loss_rows": list(losses),
        "similarity": np.ones_like(weight).tolist(),
        "weight": weight.tolist(),
    }


def paired_groups(split: str, views: list[list[list[int]]], weight=None) -> list[dict]:
    """Rows of `groups` from row numbers: views[view][group] = rows. Weights even, unless a function of the size is given."""
    weight = weight or (lambda size: np.full((size, size), 1 / size))
    return [
        group_row(split, view, number, rows, rows, weight(len(rows)))
        for view, groups in enumerate(views)
        for number, rows in enumerate(groups)
    ]


def contrast_dataset(pairs: dict[str, list], groups: dict[str, list], views: int = 1) -> ContrastDataset:
    """A dataset in memory from rows of `pairs` and `groups` by split."""
    nothing = {"mean_similarity": None, "random_similarity": None, "nearest_similarity": None}
    manifest = Manifest(
        format_version=1,
        rpo_data_version="0",
        package_versions={},
        mode="paired",
        recipe=Recipe(views=views, group_size=4),
        limit=None,
        sources=[],
        left_out={},
        embedder=EmbedderInfo(
            name="none", content_hash="", dimension=1, max_tokens=None, device="cpu", dtype="float32"
        ),
        neighbors=NeighborsInfo(k=1, index="Flat", recall=1.0),
        temperature=0.5,
        splits={
            s: SplitInfo(prompts=len(pairs[s]), pairs=len(pairs[s]), groups=len(groups[s]) // views) for s in pairs
        },
        moved_to_test=0,
        quality=Quality(**nothing, effective_contrasts=None, random_contrasts=None, cells=0, masked_cells={}),
        warnings=[],
        tables={f"pairs/{s}": f"{zlib.crc32(str(rows).encode()):x}" for s, rows in pairs.items()},
    )
    neighbors = {s: [{"prompt_id": r["prompt_id"], "neighbors": [], "similarity": []} for r in pairs[s]] for s in pairs}
    tables = (
        DatasetDict({split: Dataset.from_list(rows, features=features) for split, rows in content.items()})
        for content, features in ((pairs, PAIRS), (groups, GROUPS), (neighbors, NEIGHBORS))
    )
    return ContrastDataset(manifest, *tables)


def echo_pairs(count: int, seed: int, words: list[str] = WORDS) -> list[dict]:
    """A task that can be learnt: chosen says yes, rejected says no, whatever the words of the prompt and the answer are."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        first, second, third = draw.sample(words, 3)
        rows.append(pair_row(number, f"{first} {second}?", f"yes {third}", f"no {third}"))
    return rows


def in_groups(count: int, size: int) -> list[list[int]]:
    return [list(range(start, min(start + size, count))) for start in range(0, count, size)]


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny models gain nothing from threads, and lose much where another process wants the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def make():
    """The helpers above, for tests (which cannot import a conftest)."""

    class Helpers:
        message = staticmethod(message)
        pair_row = staticmethod(pair_row)
        group_row = staticmethod(group_row)
        paired_groups = staticmethod(paired_groups)
        dataset = staticmethod(contrast_dataset)
        echo_pairs = staticmethod(echo_pairs)
        in_groups = staticmethod(in_groups)
        words = WORDS

    return Helpers


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory):
    """Folders of a Qwen2 with tied embeddings and of a Llama with a head of its own, some 16 thousand parameters each."""
    folder = tmp_path_factory.mktemp("models")
    texts = [m["content"] for row in echo_pairs(50, 0) for key in ("prompt", "chosen", "rejected") for m in row[key]]
    for architecture in ("qwen2", "llama"):
        make_tiny_model(folder / architecture, texts, architecture=architecture)
    return {"qwen2": folder / "qwen2", "llama": folder / "llama"}


@pytest.fixture
def echo(make):
    """16 pairs to train on in two views of four groups, 4 held out."""
    train, test = make.echo_pairs(16, seed=1), make.echo_pairs(4, seed=2)
    first = make.in_groups(16, 4)
    second = [[row for row in range(16) if row % 4 == number] for number in range(4)]
    groups = {
        "train": make.paired_groups("train", [first, second]),
        "test": make.paired_groups("test", [[[0, 1, 2, 3]]] * 2),
    }
    return make.dataset({"train": train, "test": test}, groups, views=2)


@pytest.fixture
def config(tmp_path):
    """RPOConfig for a short run on the CPU; keyword arguments go over it."""
    from rpo_data.trainer import RPOConfig

    def build(**settings):
        defaults = {
            "output_dir": str(tmp_path / "run"),
            "cache_dir": str(tmp_path / "cache"),
            "use_cpu": True,
            "learning_rate": 1e-2,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
        }
        return RPOConfig(**defaults | settings)

    return build
