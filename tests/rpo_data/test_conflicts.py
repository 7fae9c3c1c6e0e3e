"""Contradictions: each kind and policy on examples that can be read off, then on any judgements, then on real logs."""

import gzip
import json
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judged_rows import any_lines, canonical, codes, hashed_row, judged, lines_of, said

from rpo_data.conflicts import (
    edges_in_cycles,
    find_conflicts,
    find_contradictions,
    find_cycles,
    find_near_conflicts,
    find_text_both_sides,
    near_prompts,
    resolve,
    resolve_near,
)

POLICIES = ["drop", "majority"]
PROMPTS = ["p", "q", "r"]


def near(*pairs: str) -> tuple[np.ndarray, np.ndarray]:
    """ "pq" -> p and q are near-identical, as indices into PROMPTS."""
    one, other = zip(*pairs, strict=True) if pairs else ((), ())
    return tuple(np.array([PROMPTS.index(name) for name in names], dtype=np.int64) for names in (one, other))


# judged both ways


def test_a_pair_judged_both_ways_is_left_out_with_the_place_of_the_other():
    rows = judged("p A > B", "p B > A", "p A > C", "q A > B")
    kept, left_out = resolve(rows, "drop")
    assert said(kept) == ["p A > C", "q A > B"]
    assert lines_of(rows, left_out)[1] == {
        1: ("conflict", "log:1: log:2 judges the same two responses the other way: keep one of them"),
        2: ("conflict", "log:2: log:1 judges the same two responses the other way: keep one of them"),
    }


def test_a_conflict_is_one_finding_an_item_with_its_votes():
    rows = judged(
        "p A > B by ann", "p A > B by bob", "p B > A by ann", "p A = B by eve", "q A > B by ann", "q A = B by bob"
    )
    assert find_conflicts(rows).to_dicts() == [
        {
            "prompt_id": "p",
            "first_id": "A",
            "second_id": "B",
            "first_votes": 2,
            "second_votes": 1,
            "tie_votes": 1,
            "annotators": 2,
            "rows": 3,
            "example": "log:1 and log:3 judge the same two responses both ways",
        }
    ]


def test_drop_leaves_ties_in():
    rows = judged("p A > B", "p B > A", "p A = B", "p B = A", "q A > B", "q A = B")
    kept, left_out = resolve(rows, "drop")
    assert codes(rows, left_out) == {1: "conflict", 2: "conflict"}
    assert sorted(said(kept)) == ["p A = B", "p B = A", "q A = B", "q A > B"]


def test_by_majority_the_side_with_more_votes_stays():
    rows = judged("p A > B by ann", "p A > B by ann", "p B > A by bob", "p B > A by eve")
    kept, left_out = resolve(rows, "majority")
    assert said(kept) == ["p B > A", "p B > A"]
    assert codes(rows, left_out) == {1: "conflict", 2: "conflict"}
    assert lines_of(rows, left_out)[1][1][1] == (
        "log:1: log:3 judges the same two responses the other way, and of the votes 1 are for this, 2 for that, 0 for a tie"
    )


@pytest.mark.parametrize(
    ("lines", "stay"),
    [
        (("p A > B", "p B > A"), []),
        (("p A > B", "p A > B", "p B > A", "p A = B"), ["p A > B", "p A > B", "p A = B"]),
        (("p A > B", "p A > B", "p B > A", "p A = B", "p B = A"), ["p A = B", "p B = A"]),
        (("p A > B", "p A = B", "p A = B"), ["p A > B", "p A = B", "p A = B"]),
    ],
    ids=["equal votes", "one tie", "as many ties", "ties contradict nothing"],
)
def test_ties_vote_but_do_not_contradict(lines, stay):
    assert sorted(said(resolve(judged(*lines), "majority")[0])) == sorted(stay)


def test_a_text_against_itself_contradicts_nothing():
    rows = judged("p A > A", "p A > A", "p A > B", "p B > C")
    assert all(found.is_empty() for kind, found in find_contradictions(rows).items() if kind != "text_both_sides")
    assert resolve(rows, "drop")[0].equals(rows)


# cycles


def test_every_judgement_of_a_cycle_is_left_out_and_no_other():
    rows = judged("p A > B", "p B > C", "p C > A", "p A > D", "p D > E", "q A > B", "q B > C", "r C > A")
    kept, left_out = resolve(rows, "drop")
    assert codes(rows, left_out) == {1: "cycle", 2: "cycle", 3: "cycle"}
    assert len(kept) == 5
    assert lines_of(rows, left_out)[1][3][1] == (
        "log:3: this judgement and others, the next in log:1, make a circle A > B > … > A: leave one of them out"
    )
    assert find_cycles(rows).to_dicts() == [
        {
            "prompt_id": "p",
            "responses": 3,
            "rows": 3,
            "example": "log:1 and log:2 are two of the judgements that go round in a circle",
        }
    ]


def test_cycles_that_share_a_response_are_one_finding_and_others_are_not():
    knot = ("p A > B", "p B > C", "p C > A", "p C > D", "p D > E", "p E > C")
    rows = judged(*knot, "q A > B", "q B > C", "q C > A", "q X > Y", "q Y > Z", "q Z > X", "q A > X")
    found = find_cycles(rows).select("prompt_id", "responses", "rows").rows()
    assert sorted(found) == [("p", 5, 6), ("q", 3, 3), ("q", 3, 3)]


def test_what_is_judged_both_ways_makes_no_cycle():
    rows = judged("p A > B", "p B > A", "p B > C", "p C > A")
    assert find_cycles(rows).is_empty()
    assert codes(rows, resolve(rows, "drop")[1]) == {1: "conflict", 2: "conflict"}


def test_the_majority_of_a_conflict_can_close_a_cycle():
    rows = judged("p A > B", "p A > B", "p B > A", "p B > C", "p C > A")
    kept, left_out = resolve(rows, "majority")
    assert said(kept) == ["p A > B", "p A > B"]
    assert codes(rows, left_out) == {3: "conflict", 4: "cycle", 5: "cycle"}


@pytest.mark.parametrize(
    ("lines", "stay"),
    [
        (("p A > B", "p B > C", "p C > A"), []),
        (
            ("p A > B by x", "p A > B by y", "p B > C by x", "p B > C by z", "p C > A by x"),
            ["p A > B"] * 2 + ["p B > C"] * 2,
        ),
        (("p A > B by x", "p A > B by x", "p B > C by x", "p C > A by x"), []),
        ([*["p A > B", "p C > A"] * 3, *["p B > C"] * 2, "p C > D", "p D > A"], ["p A > B"] * 3 + ["p C > A"] * 3),
        ([*["p A > B", "p B > C", "p C > A"] * 2, "p C > D", "p D > A"], []),
    ],
    ids=["equal votes", "one has fewest", "one annotator twice", "fewest twice", "fewest, then equal votes"],
)
def test_by_majority_a_cycle_loses_its_judgements_with_the_fewest_votes(lines, stay):
    assert sorted(said(resolve(judged(*lines), "majority")[0])) == stay


# near-identical prompts


def test_a_near_identical_prompt_that_judges_the_other_way_is_found_and_left_out():
    rows = judged("p A > B", "q B > A", "q A > C", "r B > A")
    assert find_near_conflicts(rows, near_prompts(PROMPTS, near("qp", "pq", "rr"))).to_dicts() == [
        {
            "prompt_id": "p",
            "near_id": "q",
            "chosen_id": "A",
            "rejected_id": "B",
            "rows": 2,
            "example": "log:1 and log:2 judge the same two responses to near-identical prompts both ways",
        }
    ]
    kept, left_out = resolve_near(rows, PROMPTS, near("qp"), "drop")
    assert said(kept) == ["q A > C", "r B > A"]
    assert lines_of(rows, [left_out])[1] == {
        1: (
            "near_conflict",
            "log:1: log:2 judges the same two responses to a near-identical prompt the other way: keep one of them",
        ),
        2: (
            "near_conflict",
            "log:2: log:1 judges the same two responses to a near-identical prompt the other way: keep one of them",
        ),
    }


def test_nothing_is_contradicted_where_no_prompts_are_near():
    rows = judged("p A > B", "q B > A", "q A = B")
    assert resolve_near(rows, PROMPTS, near(), "drop")[0].equals(rows)
    assert resolve_near(rows, PROMPTS, near("pr"), "drop")[0].equals(rows)
    assert find_near_conflicts(rows, near_prompts(PROMPTS, near("pr"))).is_empty()


@pytest.mark.parametrize(
    ("lines", "pairs", "stay"),
    [
        (("p A > B", "q B > A", "r A > B"), ("pq", "qr", "pr"), ["p A > B", "r A > B"]),
        (("p A > B", "q B > A"), ("pq",), []),
        (("p A > B by x", "p A > B by y", "q B > A by x"), ("pq",), ["p A > B", "p A > B"]),
        (("p A > B by x", "p A > B by x", "q B > A by x"), ("pq",), []),
        (("p A > B", "p A > B", "q B > A", "q A = B", "r B = A"), ("pq", "qr", "pr"), ["q A = B", "r B = A"]),
        (("p A > B", "q B > A", "r A > B"), ("pq",), ["r A > B"]),
    ],
    ids=["two prompts against one", "equal", "two annotators", "one annotator twice", "as many ties", "far prompts"],
)
def test_by_majority_votes_are_summed_over_near_identical_prompts(lines, pairs, stay):
    assert said(resolve_near(judged(*lines), PROMPTS, near(*pairs), "majority")[0]) == stay


def test_opposite_judgements_that_both_win_among_their_own_neighbours_both_go():
    """p1 - p - q - q1 in a row: p has A > B on its side twice, q has B > A twice."""
    rows = judged("p A > B", "p1 A > B", "q B > A", "q1 B > A")
    ids, chain = ["p", "p1", "q", "q1"], (np.array([0, 0, 2]), np.array([1, 2, 3]))
    kept, left_out = resolve_near(rows, ids, chain, "majority")
    assert said(kept) == ["p1 A > B", "q1 B > A"]
    assert codes(rows, [left_out]) == {1: "near_conflict", 3: "near_conflict"}


# one text on both sides


def test_a_text_on_both_sides_is_reported_with_whether_it_is_across_prompts():
    rows = judged("p A > B", "p C > A", "q X > Y", "r Z > X", "q B > W", "r T = U", "r U > V", "q M > T")
    found = find_text_both_sides(rows).sort("response_id")
    assert found.to_dicts() == [
        {
            "response_id": "A",
            "chosen_rows": 1,
            "rejected_rows": 1,
            "across_prompts": False,
            "rows": 2,
            "example": "log:1 chooses the text that log:2 rejects",
        },
        {
            "response_id": "B",
            "chosen_rows": 1,
            "rejected_rows": 1,
            "across_prompts": True,
            "rows": 2,
            "example": "log:5 chooses the text that log:1 rejects",
        },
        {
            "response_id": "X",
            "chosen_rows": 1,
            "rejected_rows": 1,
            "across_prompts": True,
            "rows": 2,
            "example": "log:3 chooses the text that log:4 rejects",
        },
    ]


# any judgements

EDGES_OF_NEAR = st.lists(st.sampled_from(["pq", "qr", "pr", "qp", "pp"]), max_size=4)


def edges(rows: list[dict]) -> set[tuple[str, str, str]]:
    return {(r["prompt_id"], r["chosen_id"], r["rejected_id"]) for r in rows if r["kind"] == "pair"}


def in_cycle(edge, of: set) -> bool:
    """Whether a walk over the edges leads from the rejected response back to the chosen one."""
    prompt, start, here = edge
    reached, todo = {here}, [here]
    while todo:
        node = todo.pop()
        for other in {loser for p, winner, loser in of if (p, winner) == (prompt, node)} - reached:
            reached.add(other)
            todo.append(other)
    return start in reached


@settings(deadline=None)
@given(rows=any_lines())
def test_what_is_found_is_what_a_plain_search_finds(rows):
    frame, all_edges = canonical(rows), edges(rows)
    both_ways = {(p, a, b) for p, a, b in all_edges if (p, b, a) in all_edges}
    found = find_conflicts(frame)
    assert {(r["prompt_id"], r["first_id"], r["second_id"]) for r in found.to_dicts()} == {
        e for e in both_ways if e[1] < e[2]
    }
    one_way = all_edges - both_ways
    cyclic = {edge for edge in one_way if in_cycle(edge, one_way)}
    assert set(edges_in_cycles(frame).select("prompt_id", "chosen_id", "rejected_id").rows()) == cyclic
    kept, left_out = resolve(frame, "drop")
    assert edges(kept.to_dicts()) == one_way - cyclic
    assert lines_of(frame, left_out)[0] == sorted(kept["source_row"])


@settings(deadline=None)
@given(rows=any_lines(), pairs=EDGES_OF_NEAR)
def test_near_conflicts_found_are_what_a_plain_search_finds(rows, pairs):
    frame, all_edges = canonical(rows), edges(rows)
    known = {pair for pair in pairs if pair[0] != pair[1]} | {pair[::-1] for pair in pairs if pair[0] != pair[1]}
    against = {(p, a, b) for p, a, b in all_edges for q in PROMPTS if p + q in known and (q, b, a) in all_edges}
    kept, left_out = resolve_near(frame, PROMPTS, near(*pairs), "drop")
    assert edges(kept.to_dicts()) == all_edges - against
    assert lines_of(frame, [left_out])[0] == sorted(kept["source_row"])


@pytest.mark.parametrize("policy", POLICIES)
@settings(deadline=None, max_examples=60)
@given(rows=any_lines(), pairs=EDGES_OF_NEAR, order=st.randoms(use_true_random=False))
def test_no_contradiction_is_left_in_any_order(policy, rows, pairs, order):
    def run(of):
        frame = canonical(of)
        kept, left_out = resolve(frame, policy)
        kept, also = resolve_near(kept, PROMPTS, near(*pairs), policy)
        stay, gone = lines_of(frame, [*left_out, also])
        assert sorted(kept["source_row"]) == stay
        return frame, kept, gone

    frame, kept, gone = run(rows)
    left = find_contradictions(kept, near_prompts(PROMPTS, near(*pairs)))
    assert all(left[kind].is_empty() for kind in ("conflict", "cycle", "near_conflict"))
    assert kept.filter(kept["kind"] == "tie").equals(frame.filter(frame["kind"] == "tie"))
    found = find_contradictions(frame, near_prompts(PROMPTS, near(*pairs)))
    if all(found[kind].is_empty() for kind in ("conflict", "cycle", "near_conflict")):
        assert kept.equals(frame)

    shuffled = list(rows)
    order.shuffle(shuffled)
    _, other, also_gone = run(shuffled)
    assert also_gone == gone
    assert other.drop("position").equals(kept.drop("position"))


@settings(deadline=None)
@given(rows=any_lines(prompts="p", annotators=(None,)))
def test_by_majority_the_side_that_stays_has_more_votes_than_the_one_left_out(rows):
    frame = canonical(rows)
    votes: dict = defaultdict(int)
    for r in rows:
        votes[
            (*sorted([r["chosen_id"], r["rejected_id"]]), "tie")
            if r["kind"] == "tie"
            else (r["chosen_id"], r["rejected_id"])
        ] += 1
    _, (conflicts, _) = resolve(frame, "majority")
    gone = edges(frame.filter(frame["position"].is_in(conflicts.position)).to_dicts())
    for _, a, b in edges(rows):
        this, that, tie = votes[a, b], votes.get((b, a), 0), votes.get((*sorted([a, b]), "tie"), 0)
        assert (("p", a, b) in gone) == (that > 0 and this <= max(that, tie))


@settings(deadline=None, max_examples=20)
@given(rows=any_lines(), pairs=EDGES_OF_NEAR)
def test_keep_and_mask_leaves_nothing_out(rows, pairs):
    frame = canonical(rows)
    kept, left_out = resolve(frame, "keep-and-mask")
    kept, also = resolve_near(kept, PROMPTS, near(*pairs), "keep-and-mask")
    assert kept.equals(frame)
    assert not any(reason.position for reason in [*left_out, also])


# real logs


def read(path) -> list[dict]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_annotators_who_contradict_each_other_in_the_tulu_human_evaluation(shared_data):
    """Of 996 items (instance and model pair) 23 are judged both ways: 21 by different annotators, 2 by one alone.

    By the texts there are 979 items: 14 of them bear 31 names, since two models often answer alike (in 9 of the 14 all of
    their answers are one text, judged a tie). No conflict is among these, so by the texts it is the same 23.
    """
    records = read(shared_data / "tulu_human_eval" / "eval_annotations_tulu_1.jsonl.gz")
    by_text, by_name = [], []
    for number, record in enumerate(records, 1):
        sides = ["a", "b"] if not record["preference"].startswith("b-") else ["b", "a"]
        kind, who = "tie" if record["preference"] == "tie" else "pair", record["evaluator"]
        texts = [record[f"completion_{side}"] for side in sides]
        models = [record[f"model_{side}"] for side in sides]
        by_text.append(hashed_row(record["prompt"], *texts, kind, who, "tulu", number))
        by_name.append(hashed_row(record["instance_id"], *models, kind, who, "tulu", number))
    assert (len(records), sum(r["kind"] == "tie" for r in by_text)) == (1150, 376)

    def items(rows):
        return len({(r["prompt_id"], *sorted([r["chosen_id"], r["rejected_id"]])) for r in rows})

    same_text = [r for r in by_text if r["chosen_id"] == r["rejected_id"]]
    assert (items(by_name), items(by_text)) == (996, 979)
    assert (len(same_text), {r["kind"] for r in same_text}) == (39, {"tie"})
    frame = canonical(by_text)
    for found in (find_conflicts(canonical(by_name)), find_conflicts(frame)):
        assert (len(found), found["rows"].sum()) == (23, 52)
        assert sorted(found["annotators"].to_list()).count(1) == 2
        assert (found["annotators"] >= 2).sum() == 21
    for policy in POLICIES:
        kept, left_out = resolve(frame, policy)
        assert find_conflicts(kept).is_empty()
        assert find_cycles(kept).is_empty()
        assert len(kept) + sum(len(reason.position) for reason in left_out) == 1150


def test_flipped_labels_beside_the_clean_copy_are_found_all_and_no_other(shared_data):
    """UltraFeedback, 1,000 pairs of 1,000 prompts, and a copy with 200 of them turned round: precision and recall 1.

    6 pairs cannot be used (4 have one text on both sides, 2 an empty response); none of them is among the 200.
    """
    folder = shared_data / "ultrafeedback_noise"
    clean, noisy = read(folder / "train_clean.jsonl.gz"), read(folder / "label_flip_20.jsonl.gz")

    def usable(record) -> bool:
        sides = {record["chosen"].strip(), record["rejected"].strip()}
        return len(sides) == 2 and "" not in sides

    rows = [
        hashed_row(r["prompt"], r["chosen"], r["rejected"], "pair", None, name, line)
        for name, records in (("clean", clean), ("noisy", noisy))
        for line, r in enumerate(records, 1)
        if usable(r)
    ]
    marked = {line for line, r in enumerate(noisy, 1) if r["metadata"]["noise"]["selected"]}
    assert (len(rows), len(marked), len({r["prompt_id"] for r in rows})) == (1988, 200, 994)
    frame = canonical(rows)
    kept, (conflicts, cycles) = resolve(frame, "drop")
    gone = frame.filter(frame["position"].is_in(conflicts.position)).select("source", "source_row").rows()
    found = {line for source, line in gone if source == "noisy"}
    precision, recall = len(found & marked) / len(found), len(found & marked) / len(marked)
    assert (precision, recall) == (1.0, 1.0)
    assert {line for source, line in gone if source == "clean"} == marked
    assert (len(kept), cycles.position, len(find_conflicts(frame))) == (1588, [], 200)
