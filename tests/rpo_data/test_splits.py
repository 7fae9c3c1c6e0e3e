"""Prompts that belong together stand in one split, whatever is added and in whatever order it comes."""

import gzip
import json
import random

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from rpo_data.check import row_ids
from rpo_data.errors import DatasetError
from rpo_data.splits import components, crossing_edges, giant_components, hold_out, previous_split, turn_edges


def edges_of(*pairs):
    starts, ends = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return starts, ends


NONE = edges_of()
TEST, TRAIN = "00", "ff"  # the first hex digits decide: 00... is below any fraction, ff... above


def ids_of(*halves):
    return [half + f"{number:030x}" for number, half in enumerate(halves)]


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


# -- turns of one dialogue ----------------------------------------------------------------------------------------------

DIALOGUE = [user("Hi"), assistant("Hello"), user("Why?"), assistant("So"), user("Sure?")]


def turns(*prompts):
    return list(zip(*(side.tolist() for side in turn_edges(prompts)), strict=True))


def test_an_earlier_turn_of_a_dialogue_belongs_to_the_later_ones():
    assert turns(DIALOGUE[:1], DIALOGUE[:3], DIALOGUE) == [(0, 1), (0, 2), (1, 2)]
    assert sorted(turns(DIALOGUE, DIALOGUE[:1])) == [(1, 0)]


def test_outer_blanks_and_null_keys_make_no_other_dialogue():
    stored = [{**message, "content": f" {message['content']}\n", "name": None} for message in DIALOGUE]
    assert turns(DIALOGUE[:3], stored) == [(0, 1)]


@pytest.mark.parametrize(
    "other",
    [
        [user("Hi"), assistant("Hello there"), user("Why?")],  # another answer in between
        [user("Hi there"), assistant("Hello"), user("Why?")],  # only the text has a common start
        [{"role": "system", "content": "Hi"}, assistant("Hello"), user("Why?")],
        [user("Hi") | {"name": "Ada"}, assistant("Hello"), user("Why?")],
        [user("Why?")],
        [],
    ],
)
def test_other_dialogues_do_not_belong_together(other):
    assert turns(DIALOGUE[:3], other) == []


def test_a_start_is_the_earlier_prompt_where_their_ids_are_equal():
    prompts = [[user('"quoted" ü')], [user('"quoted" ü '), assistant(""), user("x")]]
    assert turns(*prompts) == [(0, 1)]
    first, start = (row_ids(prompt, [], None)["prompt_id"] for prompt in (prompts[0], prompts[1][:1]))
    assert first == start


short_dialogues = st.lists(st.sampled_from([user("a"), assistant("a"), user("b"), user("a,b")]), min_size=1, max_size=5)


@settings(deadline=None)
@given(st.lists(short_dialogues, max_size=12, unique_by=repr))
def test_every_start_of_a_prompt_is_found(prompts):
    expected = [(i, j) for i, a in enumerate(prompts) for j, b in enumerate(prompts) if a != b and b[: len(a)] == a]
    assert sorted(turns(*prompts)) == expected


def test_real_dialogues(sample_rows):
    """Against a comparison of every pair of prompts."""
    from rpo_data.shapes import split_dialogue

    prompts = {json.dumps(p): p for row in sample_rows for p in [split_dialogue(row["chosen"])[0]]}
    prompts = list(prompts.values())
    expected = {
        (i, j) for i, a in enumerate(prompts) for j, b in enumerate(prompts) if len(a) < len(b) and b[: len(a)] == a
    }
    assert len(expected) > 0
    assert set(turns(*prompts)) == expected


def test_the_harmless_test_split_holds_many_dialogues_more_than_once(shared_data):
    """Against a look-up of every start of every prompt."""
    from rpo_data.shapes import split_dialogue

    with gzip.open(shared_data / "hh_rlhf" / "harmless-base.test.jsonl.gz", "rt", encoding="utf-8") as file:
        prompts = [split_dialogue(json.loads(line)["chosen"])[0] for line in file]
    known = {tuple((m["role"], m["content"]) for m in prompt): prompt for prompt in prompts}
    number = {prompt: place for place, prompt in enumerate(known)}
    starts = [(prompt[:end], prompt) for prompt in known for end in range(1, len(prompt)) if prompt[:end] in number]
    assert len(starts) > 100
    assert sorted(turns(*known.values())) == sorted((number[start], number[prompt]) for start, prompt in starts)


# -- without an earlier build -------------------------------------------------------------------------------------------


def test_by_hash_alone():
    ids = ids_of(TEST, TRAIN, TRAIN, TRAIN)
    assert hold_out(ids, 0.02, NONE).is_test.tolist() == [True, False, False, False]
    assert hold_out(ids, 0.0, NONE).is_test.tolist() == [False] * 4
    assert hold_out([], 0.02, NONE).is_test.tolist() == []


def test_what_belongs_to_a_test_prompt_goes_with_it_also_over_a_chain():
    split = hold_out(ids_of(TEST, TRAIN, TRAIN, TRAIN), 0.02, edges_of((0, 1), (2, 1), (1, 2)))
    assert split.is_test.tolist() == [True, True, True, False]
    assert split.moved == 2
    assert not split.bridging.any()
    assert split.crossing == 0


def test_giant_components():
    chain = edges_of(*((i, i + 1) for i in range(11)), *((i, i + 1) for i in range(20, 30)))
    assert giant_components(components(1000, chain)) == [12, 11]
    assert giant_components(components(1200, chain)) == []  # 12 of 1,200 is 1 %, not more
    assert giant_components(components(1199, chain)) == [12]
    assert giant_components(components(9, edges_of(*((0, i) for i in range(9))))) == []
    assert hold_out(ids_of(*[TRAIN] * 1000), 0.02, chain).giants == [12, 11]
    assert giant_components(components(0, NONE)) == []


def test_crossing_edges():
    is_test = np.array([True, False, False])
    assert crossing_edges(is_test, edges_of((0, 1), (1, 0), (0, 1), (1, 2))) == 1
    assert crossing_edges(is_test, edges_of((1, 2), (2, 0), (0, 1))) == 2
    assert crossing_edges(is_test, NONE) == 0


# -- with an earlier build ----------------------------------------------------------------------------------------------


def after(halves, pairs, train, test):
    ids = ids_of(*halves)
    return hold_out(ids, 0.02, edges_of(*pairs), ({ids[i] for i in train}, {ids[i] for i in test}))


def test_previous_prompts_stay_and_new_ones_follow_them():
    # 0 was test though its hash says train, 1 was train though its hash says test
    split = after([TRAIN, TEST, TRAIN, TEST, TEST, TRAIN], [(2, 0), (1, 3)], train=[1], test=[0])
    assert split.is_test.tolist() == [True, False, True, False, True, False]
    assert split.moved == 1
    assert not split.bridging.any()


def test_new_prompts_follow_over_a_chain():
    split = after([TRAIN] * 6, [(0, 2), (2, 3), (1, 4), (4, 5)], train=[1], test=[0])
    assert split.is_test.tolist() == [True, False, True, True, False, False]


def test_a_prompt_that_bridges_the_splits_is_rejected():
    split = after([TRAIN] * 3, [(0, 2), (2, 1)], train=[1], test=[0])
    assert split.bridging.tolist() == [False, False, True]
    assert split.is_test.tolist() == [True, False, False]
    assert split.crossing == 0


def test_of_a_bridge_of_several_prompts_those_at_the_test_side_go():
    # 0 (test) - 2 - 3 - 4 - 1 (train), and 5 hangs on 2 alone; its own hash says test
    split = after([TRAIN] * 5 + [TEST], [(0, 2), (2, 3), (3, 4), (4, 1), (2, 5)], train=[1], test=[0])
    assert split.bridging.tolist() == [False, False, True, False, False, False]
    assert split.is_test.tolist() == [True, False, False, False, False, True]


def test_previous_prompts_that_turn_out_to_belong_together_stay_and_are_counted():
    split = after([TRAIN] * 2, [(0, 1), (1, 0)], train=[1], test=[0])
    assert split.is_test.tolist() == [True, False]
    assert not split.bridging.any()
    assert split.crossing == 1


def test_a_new_prompt_beside_one_split_only_is_no_bridge_though_the_splits_touch():
    split = after([TRAIN] * 3, [(0, 1), (2, 1)], train=[1], test=[0])
    assert not split.bridging.any()
    assert split.is_test.tolist() == [True, False, False]


# -- whatever the graph -------------------------------------------------------------------------------------------------


@st.composite
def graphs(draw):
    count = draw(st.integers(1, 14))
    halves = draw(st.lists(st.sampled_from([TEST, TRAIN, TRAIN, TRAIN]), min_size=count, max_size=count))
    prompt = st.integers(0, count - 1)
    pairs = draw(st.lists(st.tuples(prompt, prompt), max_size=20))
    roles = draw(st.lists(st.sampled_from(["train", "test", "new", "new"]), min_size=count, max_size=count))
    return ids_of(*halves), pairs, roles


def previous_of(ids, roles):
    return tuple({i for i, role in zip(ids, roles, strict=True) if role == split} for split in ("train", "test"))


@settings(deadline=None)
@given(graphs())
def test_no_edge_crosses_the_splits(graph):
    ids, pairs, _ = graph
    split = hold_out(ids, 0.02, edges_of(*pairs))
    assert crossing_edges(split.is_test, edges_of(*pairs)) == 0
    assert split.is_test[[i.startswith(TEST) for i in ids]].all()
    assert not split.bridging.any()


@settings(deadline=None)
@given(graphs(), st.integers(0, 14))
@example((ids_of(TRAIN, TEST, TRAIN), [(0, 1), (1, 2)], ["new"] * 3), 1)
def test_added_logs_move_no_prompt_from_test_to_train(graph, size):
    ids, pairs, _ = graph
    assume(size < len(ids))
    before = hold_out(ids[:size], 0.02, edges_of(*(p for p in pairs if max(p) < size)))
    now = hold_out(ids, 0.02, edges_of(*pairs))
    assert now.is_test[:size][before.is_test].all()


@settings(deadline=None)
@given(graphs())
def test_previous_prompts_stay_and_only_they_can_cross(graph):
    ids, pairs, roles = graph
    split = hold_out(ids, 0.02, edges_of(*pairs), previous_of(ids, roles))
    for is_test, bridging, role in zip(split.is_test, split.bridging, roles, strict=True):
        assert role == "new" or is_test == (role == "test")
        assert not (bridging and (is_test or role != "new"))
    kept = [(a, b) for a, b in pairs if not split.bridging[[a, b]].any()]
    crossing = {frozenset(pair) for pair in kept if split.is_test[pair[0]] != split.is_test[pair[1]]}
    assert all({roles[i] for i in pair} == {"train", "test"} for pair in crossing)
    assert split.crossing == len(crossing)


@settings(deadline=None)
@given(graphs())
def test_a_rejected_prompt_touches_test_and_reaches_train_over_new_prompts(graph):
    ids, pairs, roles = graph
    split = hold_out(ids, 0.02, edges_of(*pairs), previous_of(ids, roles))
    linked = {i: {b for a, b in pairs + [(b, a) for a, b in pairs] if a == i} for i in range(len(ids))}

    def reaches_train(prompt):
        seen, todo = set(), [prompt]
        while todo:
            seen.add(here := todo.pop())
            todo += [other for other in linked[here] - seen if roles[other] == "new"]
        return any(roles[other] == "train" for here in seen for other in linked[here])

    for prompt, role in enumerate(roles):
        touches_test = any(roles[other] == "test" for other in linked[prompt])
        assert split.bridging[prompt] == (role == "new" and touches_test and reaches_train(prompt))


@settings(deadline=None)
@given(graphs(), st.randoms(use_true_random=False), st.booleans())
def test_the_order_of_prompts_and_edges_does_not_matter(graph, rng: random.Random, again):
    ids, pairs, roles = graph
    previous = previous_of(ids, roles) if again else None
    split = hold_out(ids, 0.02, edges_of(*pairs), previous)
    order = rng.sample(range(len(ids)), len(ids))
    place = {old: new for new, old in enumerate(order)}
    moved = [(place[b], place[a]) for a, b in rng.sample(pairs, len(pairs))]
    other = hold_out([ids[i] for i in order], 0.02, edges_of(*moved), previous)
    assert other.is_test.tolist() == split.is_test[order].tolist()
    assert other.bridging.tolist() == split.bridging[order].tolist()
    assert (other.moved, other.giants, other.crossing) == (split.moved, split.giants, split.crossing)


@settings(deadline=None)
@given(graphs())
def test_the_same_logs_again_are_split_as_before(graph):
    ids, pairs, _ = graph
    first = hold_out(ids, 0.02, edges_of(*pairs))
    names = np.array(ids)
    again = hold_out(
        ids, 0.5, edges_of(*pairs), (set(names[~first.is_test].tolist()), set(names[first.is_test].tolist()))
    )
    assert again.is_test.tolist() == first.is_test.tolist()
    assert not again.bridging.any()


# -- the earlier build on disk ------------------------------------------------------------------------------------------


def test_a_folder_that_is_no_dataset_of_ours(tmp_path):
    with pytest.raises(DatasetError, match="is no mined contrast dataset"):
        previous_split(tmp_path)


def test_previous_split_of_a_build(sample_rows, write_lines, tmp_path, cache_dir):
    from rpo_data.pipelines.build import build
    from rpo_data.schemas.recipe import Recipe

    logs = write_lines("logs.jsonl", sample_rows[:60])
    built = build(logs, tmp_path / "out", Recipe(embedder="static", test_fraction=0.2), cache_dir=cache_dir)
    train, test = previous_split(tmp_path / "out")
    assert (len(train), len(test)) == (len(built.neighbors["train"]), len(built.neighbors["test"]))
    assert train == set(built.neighbors["train"]["prompt_id"][:])
    assert test == set(built.neighbors["test"]["prompt_id"][:])
