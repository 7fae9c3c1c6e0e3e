import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rpo_data.trainer import rpo_loss
from rpo_data.trainer.loss import LOSS_TYPES, OF_PAIRS, cell_counts, cell_scales, lambda_weights, mean_of_cells

WINS = torch.tensor([1.0, -1.0])
LOSSES = torch.tensor([0.5, 0.0, -2.0])
WEIGHTS = torch.tensor([[0.5, 0.0, 0.25], [0.0, 1.0, 0.5]])


def cost(logit: float) -> float:
    """-logsigmoid, as a school book has it."""
    return math.log(1 + math.exp(-logit))


def exact_loss(wins, losses, weights, beta, loss_type="rpo", alpha=0.8, importance=None, labels=None):
    """The same in float64, cell by cell from the formulas."""
    cells = [(i, j) for i in range(len(wins)) for j in range(len(losses)) if weights[i, j] != 0]
    delta = deltas(wins.tolist(), labels, cells) if loss_type == "lipo" else {}
    costs = {}
    for i, j in cells:
        gap = wins[i] - losses[j]
        if loss_type == "ipo":
            costs[i, j] = (gap - 1 / (2 * beta)) ** 2
        else:
            weight = float(weights[i, j]) if loss_type == "rpo" else 1.0
            costs[i, j] = delta.get((i, j), 1.0) * torch.log1p(torch.exp(-beta * weight * gap))
    own = [(i, j) for i, j in cells if i == j]
    other = [(i, j) for i, j in cells if i != j]

    def mean(some):
        counts = [1.0 if importance is None else float(importance[cell]) for cell in some]
        total = sum(
            (count * costs[cell] for count, cell in zip(counts, some, strict=True)), 0 * (wins.sum() + losses.sum())
        )
        return total / sum(counts) if sum(counts) else total

    if loss_type in ("dpo", "ipo"):
        return mean(own)
    if loss_type == "diagonal" and weight_of(own, importance) and weight_of(other, importance):
        return alpha * mean(own) + (1 - alpha) * mean(other)
    return mean(cells)


def weight_of(cells, importance):
    return len(cells) if importance is None else sum(float(importance[cell]) for cell in cells)


def deltas(scores, labels, cells):
    """LambdaLoss over the responses that stand in a cell; equal scores by label, rising, and then at their mean rank."""
    listed = sorted({number for cell in cells for number in cell}, key=lambda n: (-scores[n], labels[n]))
    places = {}
    for place, number in enumerate(listed, start=1):
        places.setdefault((scores[number], labels[number]), []).append(place)
    discount = {n: 1 / math.log(1 + np.mean(places[scores[n], labels[n]])) for n in listed}
    return {(i, j): abs(2 ** labels[i] - 2 ** labels[j]) * abs(discount[i] - discount[j]) for i, j in cells}


def test_worked_example_with_unequal_sides_and_masked_cells():
    # beta 2; cells that count, weight * (win - loss):
    #   (0, 0) 0.5  * (1 - 0.5) = 0.25      (0, 2) 0.25 * (1 + 2)  = 0.75
    #   (1, 1) 1.0  * (-1 - 0)  = -1.0      (1, 2) 0.5  * (-1 + 2) = 0.5
    expected = (cost(2 * 0.25) + cost(2 * 0.75) + cost(2 * -1.0) + cost(2 * 0.5)) / 4
    assert rpo_loss(WINS, LOSSES, WEIGHTS, 2.0).item() == pytest.approx(expected, abs=1e-6)


def test_uniform_puts_weight_one_in_every_cell_that_counts():
    # wins - losses in the four cells: 0.5, 3, -1, 1; beta 2
    expected = (cost(1.0) + cost(6.0) + cost(-2.0) + cost(2.0)) / 4
    assert rpo_loss(WINS, LOSSES, WEIGHTS, 2.0, loss_type="uniform").item() == pytest.approx(expected, abs=1e-6)


def test_dpo_and_diagonal_by_hand():
    wins, losses = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    weights = torch.tensor([[0.7, 0.3], [0.0, 0.4]])  # (1, 0) is masked
    # beta 0.5: own (0, 0): 0.5 * (1 - 0) = 0.5, own (1, 1): 0.5 * (0 - 2) = -1; other (0, 1): 0.5 * (1 - 2) = -0.5
    own, other = (cost(0.5) + cost(-1.0)) / 2, cost(-0.5)
    assert rpo_loss(wins, losses, weights, 0.5, loss_type="dpo").item() == pytest.approx(own, abs=1e-6)
    got = rpo_loss(wins, losses, weights, 0.5, loss_type="diagonal", diagonal_alpha=0.8)
    assert got.item() == pytest.approx(0.8 * own + 0.2 * other, abs=1e-6)


def test_diagonal_gives_all_to_the_kind_that_is_there():
    wins, losses = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    only_own = rpo_loss(wins, losses, torch.eye(2), 0.5, loss_type="diagonal")
    assert only_own.item() == pytest.approx((cost(0.5) + cost(-1.0)) / 2, abs=1e-6)
    only_other = rpo_loss(wins, losses, 1 - torch.eye(2), 0.5, loss_type="diagonal")
    assert only_other.item() == pytest.approx((cost(-0.5) + cost(0.0)) / 2, abs=1e-6)


def test_identity_weights_are_dpo():
    wins, losses = torch.randn(5), torch.randn(5)
    dpo = -torch.nn.functional.logsigmoid(0.1 * (wins - losses)).mean()
    assert rpo_loss(wins, losses, torch.eye(5), 0.1).item() == pytest.approx(dpo.item(), abs=1e-6)
    assert rpo_loss(wins, losses, torch.rand(5, 5) + 0.1, 0.1, loss_type="dpo").item() == pytest.approx(
        dpo.item(), abs=1e-6
    )


def test_weight_stands_inside_the_sigmoid():
    one_cell = rpo_loss(torch.tensor([3.0]), torch.tensor([0.0]), torch.tensor([[0.5]]), 1.0).item()
    assert one_cell == pytest.approx(cost(1.5), abs=1e-6)
    assert abs(one_cell - 0.5 * cost(3.0)) > 0.1


ratios = st.integers(-160, 160).map(lambda eighths: eighths / 8)  # so that some tie
shares = st.integers(0, 8).map(lambda eighths: eighths / 8)


@st.composite
def groups(draw, loss_type):
    """Log-ratios of wins and losses, weights with masked cells, importance, and labels: of one list under lipo."""
    rows = draw(st.integers(1, 6))
    columns = rows if loss_type in (*OF_PAIRS, "lipo") else draw(st.integers(1, 6))
    weight = st.one_of(st.just(0.0), st.floats(2**-20, 1, width=32))
    count = st.one_of(st.just(1.0), st.floats(2**-10, 8, width=32))
    wins, labels = (draw(hnp.arrays(np.float32, rows, elements=values)) for values in (ratios, shares))
    losses = wins if loss_type == "lipo" else draw(hnp.arrays(np.float32, columns, elements=ratios))
    weights, importance = (draw(hnp.arrays(np.float32, (rows, columns), elements=e)) for e in (weight, count))
    return wins, losses, weights, importance, labels


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
@settings(max_examples=40, deadline=None)
@given(st.data(), st.sampled_from([0.05, 0.25, 1.0]), st.floats(0, 1))
def test_values_and_gradients_equal_float64(loss_type, data, beta, alpha):
    *sides, weights, importance, labels = data.draw(groups(loss_type))
    found = [torch.from_numpy(side).requires_grad_() for side in sides]
    exact = [torch.from_numpy(side).double().requires_grad_() for side in sides]
    options = {"loss_type": loss_type, "importance": torch.from_numpy(importance), "labels": torch.from_numpy(labels)}
    got = rpo_loss(*found, torch.from_numpy(weights), beta, diagonal_alpha=alpha, **options)
    wanted = exact_loss(*exact, weights, beta, loss_type, alpha, importance, labels.tolist())
    assert got.dtype == torch.float32
    assert got.item() == pytest.approx(wanted.item(), rel=1e-5, abs=1e-6)
    got.backward()
    wanted.backward()
    for one, other in zip(found, exact, strict=True):
        torch.testing.assert_close(one.grad.double(), other.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_importance_of_one_changes_no_bit_and_none_leaves_a_cell_out(loss_type):
    wins, losses, weights, labels = example(loss_type, 4)
    plain = rpo_loss(wins, losses, weights, 0.3, loss_type=loss_type, labels=labels)
    ones = rpo_loss(wins, losses, weights, 0.3, loss_type=loss_type, labels=labels, importance=torch.ones(4, 4))
    assert plain.item() == ones.item()
    threes = rpo_loss(
        wins, losses, weights, 0.3, loss_type=loss_type, labels=labels, importance=torch.full((4, 4), 3.0)
    )
    assert plain.item() == pytest.approx(threes.item(), rel=1e-6)
    if loss_type != "lipo":  # there a cell less is a shorter list
        kept = torch.ones(4, 4)
        kept[1, :] = kept[:, 1] = 0
        without = rpo_loss(wins, losses, weights, 0.3, loss_type=loss_type, importance=kept)
        masked = rpo_loss(wins, losses, weights * kept, 0.3, loss_type=loss_type)
        assert without.item() == pytest.approx(masked.item(), rel=1e-6)
        assert without.item() != plain.item()


def example(loss_type, size, seed=0):
    """Log-ratios, weights and labels of a group that the loss takes."""
    draw = torch.Generator().manual_seed(seed)
    wins, losses, labels = (torch.randn(size, generator=draw) for _ in range(3))
    labels = labels.sigmoid()
    weights = torch.rand(size, size, generator=draw) + 0.1
    if loss_type == "lipo":
        losses, weights = wins, weights * (labels[:, None] > labels)
    return wins, losses, weights, labels


def test_ipo_by_hand():
    # own gaps: 1 - 0 = 1, 0 - 2 = -2; beta 0.5, so the target is 1
    wins, losses = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    assert rpo_loss(wins, losses, torch.full((2, 2), 0.3), 0.5, loss_type="ipo").item() == (0.0 + 9.0) / 2


def test_lipo_by_hand():
    # log-ratios 1, 3, 2 have ranks 3, 1, 2; labels 1, 0.5, 0 gain 1, sqrt(2) - 1, 0; each is better than those after it
    ratios, labels = torch.tensor([1.0, 3.0, 2.0]), torch.tensor([1.0, 0.5, 0.0])
    first, second, third = 1 / math.log(2), 1 / math.log(3), 1 / math.log(4)
    expected = (2 - math.sqrt(2)) * (first - third) * cost(0.5 * -2)  # 0 against 1
    expected += 1 * (second - third) * cost(0.5 * -1)  # 0 against 2
    expected += (math.sqrt(2) - 1) * (first - second) * cost(0.5 * 1)  # 1 against 2
    better = torch.ones(3, 3).triu(1)
    got = rpo_loss(ratios, ratios, better, 0.5, loss_type="lipo", labels=labels)
    assert got.item() == pytest.approx(expected / 3, rel=1e-6)


def test_lipo_starts_at_log_two_times_its_mean_delta_whatever_the_noise_of_float32():
    labels = torch.tensor([1.0, 0.0, 0.0, 0.5])
    better = (labels[:, None] > labels).float()
    # all tie, so the lower label ranks first: the two 0 share 1.5, then 3 and 4
    low, half, high = 1 / math.log(2.5), 1 / math.log(4), 1 / math.log(5)
    gain = math.sqrt(2) - 1
    deltas = 2 * (low - high) + (2 - math.sqrt(2)) * (half - high) + 2 * gain * (low - half)
    for noise in (0.0, 1e-5):
        ratios = noise * torch.tensor([1.0, -1.0, 0.5, 2.0])
        got = rpo_loss(ratios, ratios, better, 0.1, loss_type="lipo", labels=labels)
        assert got.item() == pytest.approx(deltas / 5 * math.log(2), rel=1e-5)


def test_groups_of_a_batch_are_ranked_by_themselves():
    ratios = torch.tensor([0.0, 1.0, 2.0, 3.0, -1.0])
    win, loss = torch.tensor([0, 1, 2, 2]), torch.tensor([1, 4, 3, 4])
    labels = torch.tensor([[1.0, 0.0], [0.5, 0.0], [1.0, 0.25], [1.0, 0.0]])
    whole = lambda_weights(ratios, win, loss, labels, torch.tensor([2, 0, 2]))
    parts = [
        lambda_weights(ratios, win[some], loss[some], labels[some], torch.tensor([2]))
        for some in (slice(0, 2), slice(2, 4))
    ]
    assert whole.tolist() == torch.cat(parts).tolist()
    together = lambda_weights(ratios, win, loss, labels, torch.tensor([4]))
    assert whole.tolist() != together.tolist()


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_masked_cells_change_nothing(loss_type):
    wins, losses, weights, labels = example(loss_type, 4)
    weights[1, :] = weights[:, 1] = 0  # the second counts nowhere
    kept = torch.tensor([0, 2, 3])
    few = (wins[kept], losses[kept], weights[kept][:, kept])
    fewer = rpo_loss(*few, 1.0, loss_type=loss_type, labels=labels[kept])
    wins[1] = 99.0
    wins.requires_grad_()
    losses = wins if loss_type == "lipo" else losses
    loss = rpo_loss(wins, losses, weights, 1.0, loss_type=loss_type, labels=labels)
    loss.backward()
    assert loss.item() == pytest.approx(fewer.item(), rel=1e-6)
    assert wins.grad[1] == 0
    assert (wins.grad[kept] != 0).all()


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_fully_masked_is_zero_with_zero_gradients(loss_type):
    wins, losses, weights, labels = example(loss_type, 2)
    wins.requires_grad_()
    losses = wins if loss_type == "lipo" else losses.requires_grad_()
    loss = rpo_loss(wins, losses, 0 * weights, 0.1, loss_type=loss_type, labels=labels)
    loss.backward()
    assert loss.item() == 0.0
    assert wins.grad.tolist() == losses.grad.tolist() == [0.0, 0.0]


def test_extreme_logits_stay_finite():
    wins, losses = torch.tensor([1e4, -1e4], requires_grad=True), torch.tensor([-1e4, 1e4])
    loss = rpo_loss(wins, losses, torch.ones(2, 2), 1.0)
    loss.backward()
    # cells: 2e4 -> 0, 0 -> log 2, 0 -> log 2, -2e4 -> 2e4
    assert loss.item() == pytest.approx((2e4 + 2 * math.log(2)) / 4, rel=1e-6)
    assert torch.isfinite(wins.grad).all()


def test_half_precision_is_cast_up_first():
    wins, losses = torch.tensor([200.5]).bfloat16(), torch.tensor([200.0]).bfloat16()
    loss = rpo_loss(wins, losses, torch.ones(1, 1).bfloat16(), 0.1)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(cost(0.1 * (wins.item() - losses.item())), abs=1e-6)


def test_equal_policy_and_reference_cost_log_two():
    for loss_type in set(LOSS_TYPES) - {"ipo", "lipo"}:
        loss = rpo_loss(torch.zeros(3), torch.zeros(3), torch.rand(3, 3) + 0.1, 0.1, loss_type=loss_type)
        assert loss.item() == pytest.approx(math.log(2), abs=1e-6)
    # ipo has all of its target before it: (1 / (2 * 0.1))^2
    assert rpo_loss(torch.zeros(3), torch.zeros(3), torch.eye(3), 0.1, loss_type="ipo").item() == pytest.approx(25)


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_order_of_rows_does_not_matter(loss_type):
    wins, losses, weights, labels = example(loss_type, 4)
    turned = torch.tensor([2, 0, 3, 1])
    first = rpo_loss(wins, losses, weights, 0.3, loss_type=loss_type, labels=labels)
    others = wins[turned], losses[turned], weights[turned][:, turned]
    second = rpo_loss(*others, 0.3, loss_type=loss_type, labels=labels[turned])
    assert first.item() == pytest.approx(second.item(), abs=1e-6)


def test_scales_add_up_to_a_mean():
    for loss_type in LOSS_TYPES:
        for own, other in ((3, 5), (0, 4), (4, 0), (0.25, 0.5)):
            scales = cell_scales(torch.tensor([own, other]), loss_type, 0.8)
            total = own * scales[0] + other * scales[1]
            assert total.item() == pytest.approx(0.0 if loss_type in ("dpo", "ipo") and own == 0 else 1.0)


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 12), st.integers(0, 2**32 - 1))
def test_parts_of_batches_add_up_to_the_mean_of_all(loss_type, border, seed):
    draw = torch.Generator().manual_seed(seed)
    losses, importance = (torch.rand(12, generator=draw) + 0.1 for _ in range(2))
    own = torch.rand(12, generator=draw) < 0.4
    parts = [slice(0, border), slice(border, 12)]
    counts = sum(cell_counts(own[part], importance[part]) for part in parts)
    total = sum(mean_of_cells(losses[part], own[part], importance[part], counts, loss_type, 0.7) for part in parts)
    kinds = [np.average(losses[some], weights=importance[some]) if some.any() else None for some in (own, ~own)]
    if loss_type in ("dpo", "ipo"):
        expected = kinds[0] or 0.0
    elif loss_type == "diagonal" and None not in kinds:
        expected = 0.7 * kinds[0] + 0.3 * kinds[1]
    else:
        expected = np.average(losses, weights=importance)
    assert total.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"weights": torch.ones(3, 2)}, r"\(2,\).*\(3,\).*weights of shape.*\(3, 2\)"),
        ({"weights": torch.tensor([[1.0, 1, 1], [1, 1, math.nan]])}, r"weights\[1, 2\] = nan is not finite"),
        ({"weights": torch.tensor([[1.0, -0.5, 1], [1, 1, 1]])}, r"weights\[0, 1\] = -0.5 is negative"),
        ({"chosen_logratios": torch.tensor([0.0, math.nan])}, r"chosen_logratios\[1\] = nan is not finite"),
        ({"rejected_logratios": torch.tensor([0.0, 1, math.inf])}, r"rejected_logratios\[2\] = inf is not finite"),
        ({"beta": 0.0}, "beta must be greater than 0 and finite, got 0.0"),
        ({"loss_type": "kto"}, "one of rpo, uniform, dpo, diagonal, ipo, lipo, joint, got 'kto'"),
        ({"importance": torch.ones(3, 2)}, r"need importance of shape.*\(3, 2\)"),
        ({"importance": torch.full((2, 3), -1.0)}, r"importance\[0, 0\] = -1.0 is negative"),
        ({"loss_type": "dpo"}, "as many wins as losses, got 2 and 3"),
        ({"diagonal_alpha": 1.5}, "between 0 and 1, got 1.5"),
    ],
)
def test_refusals_name_the_value(change, sentence):
    good = {"chosen_logratios": WINS, "rejected_logratios": LOSSES, "weights": WEIGHTS, "beta": 0.1}
    with pytest.raises(ValueError, match=sentence):
        rpo_loss(**good | change)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"labels": None}, r"'lipo' needs labels of shape \(2,\), one a response, got none"),
        ({"labels": torch.ones(3)}, r"labels of shape \(2,\), one a response, got \(3,\)"),
        ({"labels": torch.tensor([0.5, 7.0])}, r"labels\[1\] = 7.0 is not between 0 and 1"),
        ({"rejected_logratios": torch.zeros(2)}, "'lipo' ranks one list: give the same log-ratios"),
    ],
)
def test_lipo_refuses_what_is_no_scored_list(change, sentence):
    good = {"chosen_logratios": WINS, "rejected_logratios": WINS, "weights": torch.eye(2), "labels": torch.ones(2)}
    with pytest.raises(ValueError, match=sentence):
        rpo_loss(**good | change, beta=0.1, loss_type="lipo")
