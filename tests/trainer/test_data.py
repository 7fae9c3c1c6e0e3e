import json

import numpy as np
import pytest
from transformers import AutoTokenizer

from rpo_data import Recipe, build
from rpo_data.errors import DatasetError, MissingExtra, TrainingError
from rpo_data.labels import response_labels
from rpo_data.trainer import RPOTrainer
from rpo_data.trainer import data as trainer_data
from rpo_data.trainer.data import GroupDataset, check_loss
from rpo_data.trainer.tokenize import tokenize_pairs
from rpo_data.weights import contrast_weights, effective_contrasts


@pytest.fixture
def groups_of(tiny_models, config):
    tokenizer = AutoTokenizer.from_pretrained(tiny_models["qwen2"])

    def groups(data, max_length=None, **options):
        what = "pairs" if data.paired else "responses"
        joint = options.get("loss_type") == "joint"
        tokens = tokenize_pairs(data.rows["train"], tokenizer, max_length, what=what, joint=joint)
        return GroupDataset(data, "train", tokens, config(**options))

    return groups


def test_views_hold_the_same_pairs_in_other_groups(echo, groups_of):
    dataset = groups_of(echo)
    first = [set(group.completions) for group in dataset]
    dataset.set_view(1)
    second = [set(group.completions) for group in dataset]
    assert len(first) == len(second) == 4
    assert first != second
    assert set.union(*first) == set.union(*second) == set(range(len(dataset.pairs.sequences)))
    with pytest.raises(DatasetError, match="no view 2"):
        dataset.set_view(2)


def test_cells_carry_their_weights_and_masked_ones_are_left_out(make, groups_of):
    rows = make.echo_pairs(2, seed=3)
    weight = [[0.75, 0.25], [0.0, 1.0]]
    data = make.dataset({"train": rows}, {"train": [make.group_row("train", 0, 0, [0, 1], [0, 1], weight)]})
    dataset = groups_of(data)
    group = dataset[0]
    chosen, rejected = dataset.pairs.chosen, dataset.pairs.rejected
    cells = list(zip(group.wins, group.losses, group.weights, group.own, strict=True))
    assert cells == [
        (chosen[0], rejected[0], 0.75, True),
        (chosen[0], rejected[1], 0.25, False),
        (chosen[1], rejected[1], 1.0, True),
    ]


def test_wins_and_losses_may_differ_in_number(make, groups_of):
    rows = make.echo_pairs(4, seed=3)
    weight = np.full((3, 2), 0.5)
    data = make.dataset({"train": rows}, {"train": [make.group_row("train", 0, 0, [0, 1, 2], [1, 3], weight)]})
    group = groups_of(data)[0]
    assert len(group.wins) == 6
    assert group.own == [False, False, True, False, False, False]
    assert len(group.completions) == 5


def test_cells_of_equal_tokens_are_masked(make, groups_of):
    rows = [
        make.pair_row(0, "apple?", "yes " * 40, "yes " * 40 + "no"),  # equal once cut
        make.pair_row(1, "bread?", "yes", "no"),
        make.pair_row(2, "bread?", "no", "never"),  # this win is the loss of the row before
    ]
    data = make.dataset({"train": rows}, {"train": make.paired_groups("train", [[[0, 1, 2]]])})
    dataset = groups_of(data, max_length=40)
    group = dataset[0]
    cells = set(zip(group.wins, group.losses, strict=True))
    chosen, rejected = dataset.pairs.chosen, dataset.pairs.rejected
    assert len(cells) == 7
    assert (chosen[0], rejected[0]) not in cells
    assert (chosen[2], rejected[1]) not in cells
    assert sum(group.own) == 2


def built(folder, records, cache_dir, **recipe):
    (folder / "logs.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    settings = {"embedder": "static", "group_size": 4, "test_fraction": 0.0, "duplicate_score": 1.001}
    return build(folder / "logs.jsonl", folder / "out", Recipe(**settings | recipe), cache_dir=cache_dir)


def pair_records(count, words):
    return [
        {"prompt": f"{words[n % 16]} {words[n * 5 % 13]} {n}?", "chosen": f"yes {n}", "rejected": f"no {n}"}
        for n in range(count)
    ]


@pytest.mark.parametrize("normalize", ["row", "sinkhorn", "none"])
def test_weights_computed_anew_by_the_settings_of_the_build_are_those_stored(
    make, groups_of, tmp_path, cache_dir, normalize
):
    records = pair_records(22, make.words)
    data = built(tmp_path, records, cache_dir, normalize=normalize, temperature=(0.3, 0.6), views=2, scale="mean1")
    stored, anew = groups_of(data), groups_of(data, normalize=normalize)
    for view in (0, 1):
        stored.set_view(view)
        anew.set_view(view)
        assert [group.weights for group in stored] == [group.weights for group in anew]
    assert len({weight for group in stored for weight in group.weights}) > 20


def test_temperature_and_normalize_go_over_the_stored_weights(make, groups_of):
    rows = make.echo_pairs(3, seed=3)
    group = make.group_row("train", 0, 0, [0, 1, 2], [0, 1, 2], [[0.5, 0.25, 0.25], [0.0, 1.0, 0.0], [0.0, 0.5, 0.5]])
    group["similarity"] = [[1.0, 0.5, 0.25], [0.5, 1.0, 0.75], [0.25, 0.75, 1.0]]
    data = make.dataset({"train": rows}, {"train": [group]})
    assert groups_of(data)[0].weights == [0.5, 0.25, 0.25, 1.0, 0.5, 0.5]
    # exp(-(1 - similarity) / 0.25) is 1, exp(-2), exp(-3) | 1 | exp(-1), 1; the three masked cells stay out
    near, far, one = np.exp(-2), np.exp(-3), np.exp(-1)
    sums = [1 + near + far] * 3 + [1] + [1 + one] * 2
    powers = np.array([1, near, far, 1, one, 1])
    anew = groups_of(data, temperature=0.25)
    np.testing.assert_allclose(anew[0].weights, powers / sums, rtol=1e-6)
    np.testing.assert_allclose(groups_of(data, temperature=0.25, normalize="none")[0].weights, powers, rtol=1e-6)
    assert anew[0].own == groups_of(data)[0].own
    assert anew[0].contrasts == effective_contrasts(anew._weights(group)).tolist()
    # normalize alone keeps the temperature of the build, here 0.5
    np.testing.assert_allclose(groups_of(data, normalize="none")[0].weights, powers**0.5, rtol=1e-6)
    mask = np.array(group["weight"]) == 0
    even = contrast_weights(np.array(group["similarity"]), mask, 0.25, "sinkhorn")
    assert groups_of(data, temperature=0.25, normalize="sinkhorn")[0].weights == even[~mask].tolist()


def test_sinkhorn_without_numba_says_what_to_install(make, groups_of, monkeypatch):
    data = make.dataset({"train": make.echo_pairs(2, 3)}, {"train": make.paired_groups("train", [[[0, 1]]])})
    monkeypatch.setattr(trainer_data, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="normalize 'sinkhorn' needs numba: pip install"):
        groups_of(data, normalize="sinkhorn")
    groups_of(data, temperature=0.25)


def test_cells_know_their_importance_and_whether_they_cross_prompts(make, groups_of):
    rows = make.echo_pairs(3, seed=3)
    rows[1] |= {name: rows[0][name] for name in ("prompt", "prompt_id")}
    for row, weight in zip(rows, (0.3, 1.0, 4.0), strict=True):
        row["weight"] = weight
    group = groups_of(make.dataset({"train": rows}, {"train": make.paired_groups("train", [[[0, 1, 2]]])}))[0]
    assert group.own == [True, False, False, False, True, False, False, False, True]
    assert group.cross == [False, False, True, False, False, True, True, True, False]
    one, three, six = np.float32(0.3), np.sqrt(np.float32(0.3)), np.sqrt(np.float32(1.2))
    np.testing.assert_allclose(group.importance, [one, three, six, three, 1, 2, six, 2, 4], rtol=1e-6)
    assert group.importance[0] == one  # to the bit: an own cell has the importance of its pair
    assert group.contrasts == pytest.approx([3, 3, 3])
    assert group.labels == ()


@pytest.mark.parametrize("weight", [None, 0.0, -1.0])
def test_a_weight_that_is_not_above_zero_is_refused(make, groups_of, weight):
    rows = make.echo_pairs(2, seed=3)
    rows[1]["weight"] = weight
    data = make.dataset({"train": rows}, {"train": make.paired_groups("train", [[[0, 1]]])})
    with pytest.raises(TrainingError, match="split 'train' has a row whose weight is not above 0"):
        groups_of(data)


def test_joint_counts_prompt_tokens_under_keys_of_their_own(echo, groups_of):
    plain, joint = groups_of(echo), groups_of(echo, loss_type="joint")
    assert joint[0].weights == plain[0].weights
    plain, joint = plain.pairs.sequences, joint.pairs.sequences
    assert set(joint.keys).isdisjoint(plain.keys)
    assert len(set(joint.keys)) == len(joint) == len(plain)
    assert joint.tokens.tolist() == plain.tokens.tolist()
    assert joint.prompt_lengths.tolist() == plain.prompt_lengths.tolist()  # a packer finds them as ever


def test_under_joint_rows_that_differ_in_the_border_alone_share_a_sequence(make, tiny_models, config, groups_of):
    """Else they would have one key and be scored twice, and the next run would read one of the two values for both."""
    rows = [make.pair_row(0, "apple", "bread", "cloud"), make.pair_row(1, "apple", "honey", "olive")]
    later = [make.message("user", "drum"), make.message("assistant", "kite")]
    rows[0]["chosen"] += later
    rows[1]["prompt"] += [*make.pair_row(0, "", "bread", "")["chosen"], later[0]]
    rows[1]["chosen"] = later[1:]
    data = make.dataset({"train": rows}, {"train": make.paired_groups("train", [[[0, 1]]])})
    assert len(groups_of(data).pairs.sequences) == 4
    joint = groups_of(data, loss_type="joint").pairs
    assert joint.chosen.tolist() == [0, 0]
    assert len(joint.sequences) == len(set(joint.sequences.keys)) == 3
    first, again = (RPOTrainer(tiny_models["qwen2"], config(loss_type="joint"), data) for _ in range(2))
    assert (first.reference_computed, again.reference_computed) == (3, 0)
    assert first.train_dataset.ref_logps.tolist() == again.train_dataset.ref_logps.tolist()


def test_labels_of_pairs_are_scores_between_the_extremes_of_their_source(make, groups_of):
    rows = make.echo_pairs(4, seed=3)
    for row, scores in zip(rows, ((5, 1), (4, 3), (100, 20), (60, 20)), strict=True):
        row |= dict(zip(("score_chosen", "score_rejected"), scores, strict=True))
    rows[2]["source"] = rows[3]["source"] = "other.jsonl"
    tables = {"train": rows[1:], "test": rows[:1]}  # the extremes of the first source stand in the test split
    data = make.dataset(tables, {s: make.paired_groups(s, [[[*range(len(tables[s]))]]]) for s in tables})
    assert groups_of(data, loss_type="lipo")[0].labels[:4] == [[0.75, 0.5], [0.75, 0.0], [0.75, 0.0], [1.0, 0.5]]


def scored(number, answers):
    completions = [{"response": answer, "fine-grained_score": score} for answer, score in answers.items()]
    return {"instruction": f"word {number}?", "completions": completions}


def test_labels_of_responses_are_their_score_or_rank(tmp_path, cache_dir, groups_of):
    records = [scored(n, {f"so {n}": 1.0 + n % 3, f"well {n}": 4.0, f"good {n}": 5.0}) for n in range(6)]
    data = built(tmp_path, records, cache_dir, mode="scored")
    rows = data.responses["train"]
    assert response_labels(data, "train")[1].tolist() == [(score - 1) / 4 for score in rows["score"]]
    groups = groups_of(data, loss_type="lipo")
    assert all(win > loss for group in groups for win, loss in group.labels)
    ranked = rows.map(lambda row: {"score": None, "rank": int(6 - row["score"])}, features=rows.features)
    data.rows["train"] = ranked
    assert set(response_labels(data, "train")[0].tolist()) == {0.0, 0.25, 0.5, 0.75, 1.0}


def test_a_model_learns_from_scores(tmp_path, cache_dir, tiny_models, config):
    """The answers that say yes have the higher scores, whatever the prompt."""
    answers = {"no way": 0.0, "no": 1.0, "yes": 2.0, "yes yes": 3.0}
    records = [scored(n, answers) for n in range(12)]
    data = built(tmp_path, records, cache_dir, mode="scored", group_size=6)
    trainer = RPOTrainer(str(tiny_models["qwen2"]), config(loss_type="lipo", num_train_epochs=3), data)
    trainer.train()
    first, *_, last = (line for line in trainer.state.log_history if "loss" in line)
    assert 0 < last["loss"] < first["loss"]
    assert first["rewards/accuracies"] == 0.5
    assert last["rewards/accuracies"] > 0.8
    assert last["rewards/cross_prompt_accuracies"] > 0.8


def test_losses_are_refused_where_the_dataset_lacks_what_they_need(make, echo, tiny_models, config, tmp_path):
    check_loss(echo, "joint")
    rows = make.echo_pairs(3, seed=3)
    rows[0] |= {"score_chosen": 2.0, "score_rejected": 1.0}
    rows[1] |= {"score_chosen": 2.0}
    data = make.dataset({"train": rows}, {"train": make.paired_groups("train", [[[0, 1, 2]]])})
    with pytest.raises(TrainingError, match="'lipo' needs the score of every response, and 2 of 3 rows have none: use"):
        RPOTrainer(tmp_path / "no model is looked for", config(loss_type="lipo"), data)


def test_the_largest_groups_by_tokens(make, groups_of):
    rows = [make.pair_row(n, "word " * length, "yes", "no") for n, length in enumerate([3, 9, 1, 4, 9, 2])]
    members = [[[0, 2], [1, 3], [4], [5]], [[1, 4], [3], [0, 5], [2]]]
    groups = groups_of(make.dataset({"train": rows}, {"train": make.paired_groups("train", members)}, views=2))
    expected = []
    for view, row in ((1, 0), (0, 1), (0, 2)):  # prompts of 9 + 9, 9 + 4 and 9 words
        groups.set_view(view)
        expected.append([*groups[row].completions])
    groups.set_view(1)
    assert [[*group.completions] for group in groups.largest(3)] == expected
    assert groups.view == 1
    assert len(groups.largest(9)) == 8
