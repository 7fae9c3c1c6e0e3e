"""Which prompts are held out for testing: whole components of prompts that belong together, decided by content hash.

Two prompts belong together where one dialogue's later turn continues the other, or where they are near-duplicates.
"""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from rpo_data.check import canonical_bytes, stripped
from rpo_data.dataset import load
from rpo_data.shapes import Message

Edges = tuple[np.ndarray, np.ndarray]
"""Pairs of prompts that belong together: two int64 arrays of one length; a pair may come in either order, or both."""

GIANT_SHARE = 0.01
GIANT_SIZE = 10


@dataclass(frozen=True)
class Split:
    """Where each prompt stands.

    Attributes:
        is_test: True for test prompts, shape (prompts,).
        bridging: True for prompts that would join the previous train and test prompts and are to be rejected
            (`bridges_splits`), shape (prompts,); `is_test` is False there.
        moved: test prompts that only their component brought there, not their own hash.
        giants: sizes of the giant components (see `giant_components`).
        crossing: pairs of kept prompts that belong together but stood in different splits before, and stay there.
    """

    is_test: np.ndarray
    bridging: np.ndarray
    moved: int
    giants: list[int]
    crossing: int


def turn_edges(prompts: Iterable[list[Message]]) -> Edges:
    """Pairs (earlier, later) of prompts where the earlier one's messages are the first messages of the later one.

    Messages are compared as ids are made (`row_ids`): outer blanks do not count, nor do keys that are null. Each message
    is hashed once, so the time is linear in the text.

    Args:
        prompts: distinct prompts, in the order in which they are numbered; read once, not kept.
    """
    own: dict[bytes, int] = {}
    starts, owners = bytearray(), array("q")  # hash of each proper prefix, and the prompt it is of
    for number, messages in enumerate(prompts):
        state, digest = xxhash.xxh3_128(), b""
        for place, message in enumerate(messages):
            if place:
                starts += digest
                owners.append(number)
            there = {key: value for key, value in message.items() if value is not None}
            state.update((b"," if place else b"[") + canonical_bytes(stripped([there]))[1:-1])
            closed = state.copy()
            closed.update(b"]")
            digest = closed.digest()
        own[digest] = number
    width = len(xxhash.xxh3_128().digest())
    found = [(own[start], owner) for start, owner in zip(_cut(starts, width), owners, strict=True) if start in own]
    earlier, later = np.array(found, dtype=np.int64).reshape(-1, 2).T
    return earlier, later


def _cut(data: bytearray, width: int) -> Iterable[bytes]:
    return (bytes(data[place : place + width]) for place in range(0, len(data), width))


def hold_out(
    prompt_ids: list[str],
    test_fraction: float,
    edges: Edges,
    previous: tuple[set[str], set[str]] | None = None,
) -> Split:
    """Decide which prompts are test prompts.

    A prompt whose own hash falls into the test share takes its whole component there. So a test prompt stays one when logs
    are added: its hash does not change, and its component only grows.

    With `previous`, prompts that were there stay where they were. Components of the new ones go where the previous prompts
    are that they touch; those that touch none are decided by hash. Where a component touches both splits, its prompts that
    belong to a previous test prompt are rejected, and what is left of it is decided by the same rules.

    Args:
        prompt_ids: content hashes, hex, each once.
        test_fraction: share of the hash space that is test.
        edges: pairs of prompts that belong together.
        previous: ids of the train and of the test prompts of an earlier build.
    """
    count = len(prompt_ids)
    own = np.array([int(prompt_id[:13], 16) / 16**13 < test_fraction for prompt_id in prompt_ids], dtype=bool)
    was_train, was_test = (
        np.array([prompt_id in ids for prompt_id in prompt_ids], dtype=bool) for ids in previous or (set(), set())
    )
    new = ~(was_train | was_test)
    by_train, by_test = _touching(was_train, edges) & new, _touching(was_test, edges) & new

    label = components(count, _inside(new, edges))
    bridging = by_test & _spread(by_train, label)
    left = new & ~bridging
    label = components(count, _inside(left, edges))
    to_test = _spread(by_test & left, label)
    to_train = _spread(by_train & left, label)
    is_test = was_test | (left & (to_test | (~to_train & _spread(own & left, label))))
    return Split(
        is_test=is_test,
        bridging=bridging,
        moved=int((is_test & new & ~own).sum()),
        giants=giant_components(components(count, edges)),
        crossing=crossing_edges(is_test, _inside(~bridging, edges)),
    )


def components(count: int, edges: Edges) -> np.ndarray:
    """Number of the component of each prompt, shape (count,)."""
    graph = coo_array((np.ones(len(edges[0]), dtype=bool), edges), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def giant_components(component: np.ndarray) -> list[int]:
    """Sizes, largest first, of the components that hold more than 1 % of the prompts and at least 10.

    A giant goes to one split as a whole, so it can make the test split much larger or smaller than asked for.

    Args:
        component: number of the component of each prompt, shape (prompts,).
    """
    sizes = np.bincount(component)
    giant = sizes[(sizes > GIANT_SHARE * len(component)) & (sizes >= GIANT_SIZE)]
    return sorted(giant.tolist(), reverse=True)


def crossing_edges(is_test: np.ndarray, edges: Edges) -> int:
    """How many pairs of prompts that belong together stand in different splits; a pair that is there twice counts once.

    Args:
        is_test: True for test prompts, shape (prompts,).
        edges: pairs of these prompts.
    """
    crosses = is_test[edges[0]] != is_test[edges[1]]
    pairs = np.sort(np.stack([edges[0][crosses], edges[1][crosses]], axis=1), axis=1)
    return len(np.unique(pairs, axis=0))


def previous_split(folder: str | Path) -> tuple[set[str], set[str]]:
    """Ids of the train and of the test prompts of a dataset that `rpo-data build` wrote.

    Raises:
        DatasetError: the folder is no such dataset, or is damaged.
    """
    neighbors = load(folder).neighbors
    train, test = (
        set(neighbors[split].with_format("arrow")["prompt_id"][:].to_pylist()) if split in neighbors else set()
        for split in ("train", "test")
    )
    return train, test


def _touching(marked: np.ndarray, edges: Edges) -> np.ndarray:
    """True for prompts with an edge to a marked one."""
    touching = np.zeros(len(marked), dtype=bool)
    touching[edges[0][marked[edges[1]]]] = True
    touching[edges[1][marked[edges[0]]]] = True
    return touching


def _inside(marked: np.ndarray, edges: Edges) -> Edges:
    """The edges of which both ends are marked."""
    both = marked[edges[0]] & marked[edges[1]]
    return edges[0][both], edges[1][both]


def _spread(marked: np.ndarray, component: np.ndarray) -> np.ndarray:
    """True for all prompts of the components that hold a marked one."""
    return np.isin(component, component[marked])
