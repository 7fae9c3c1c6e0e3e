import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rpo_data.trainer import rpo_loss
from rpo_data.trainer.loss import LOSS_TYPES, cell_scales

WINS = torch.tensor([1.0, -1.0])
LOSSES = torch.tensor([0.5, 0.0, -2.0])
WEIGHTS = torch.tensor([[0.5, 0.0, 0.25], [0.0, 1.0, 0.5]])


def cost(logit: float) -> float:
    """-logsigmoid, as a school book has it."""
    return math.log(1 + math.exp(-logit))


def numpy_loss(wins, losses, weights, beta, loss_type="rpo", alpha=0.8):
    """The same loss in float64, cell by cell."""
    own, other = [], []
    for i, win in enumerate(wins.astype(np.float64)):
        for j, loss in enumerate(losses.astype(np.float64)):
            if weights[i, j] == 0:
                continue
            weight = float(weights[i, j]) if loss_type == "rpo" else 1.0
            (own if i == j else other).append(np.logaddexp(0.0, -beta * weight * (win - loss)))
    if loss_type == "dpo":
        return np.mean(own) if own else 0.0
    if loss_type == "diagonal" and own and other:
        return alpha * np.mean(own) + (1 - alpha) * np.mean(other)
    return np.mean(own + other) if own + other else 0.0


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


ratios = st.floats(-50, 50, width=32)


@st.composite
def groups(draw):
    rows, columns = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    weight = st.one_of(st.just(0.0), st.floats(2**-20, 1, width=32))
    return (
        draw(hnp.arrays(np.float32, rows, elements=ratios)),
        draw(hnp.arrays(np.float32, columns, elements=ratios)),
        draw(hnp.arrays(np.float32, (rows, columns), elements=weight)),
    )


@settings(max_examples=150, deadline=None)
@given(groups(), st.sampled_from(LOSS_TYPES), st.floats(0.01, 2), st.floats(0, 1))
def test_equals_float64_numpy(group, loss_type, beta, alpha):
    wins, losses, weights = group
    if loss_type in ("dpo", "diagonal"):
        size = min(weights.shape)
        wins, losses, weights = wins[:size], losses[:size], weights[:size, :size]
    got = rpo_loss(*map(torch.from_numpy, (wins, losses, weights)), beta, loss_type=loss_type, diagonal_alpha=alpha)
    assert got.item() == pytest.approx(numpy_loss(wins, losses, weights, beta, loss_type, alpha), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_masked_cells_change_nothing(loss_type):
    wins = torch.tensor([1.0, -1.0], requires_grad=True)
    losses = torch.tensor([0.5, 99.0], requires_grad=True)
    weights = torch.tensor([[0.5, 0.0], [0.5, 0.0]])  # the second loss counts nowhere
    rpo_loss(wins, losses, weights, 1.0, loss_type=loss_type).backward()
    assert losses.grad[1] == 0
    assert losses.grad[0] != 0


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_fully_masked_is_zero_with_zero_gradients(loss_type):
    wins, losses = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([3.0, 4.0], requires_grad=True)
    loss = rpo_loss(wins, losses, torch.zeros(2, 2), 0.1, loss_type=loss_type)
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
    for loss_type in LOSS_TYPES:
        loss = rpo_loss(torch.zeros(3), torch.zeros(3), torch.rand(3, 3) + 0.1, 0.1, loss_type=loss_type)
        assert loss.item() == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_order_of_rows_does_not_matter(loss_type):
    wins, losses, weights = torch.randn(4), torch.randn(4), torch.rand(4, 4)
    turned = torch.tensor([2, 0, 3, 1])
    first = rpo_loss(wins, losses, weights, 0.3, loss_type=loss_type)
    second = rpo_loss(wins[turned], losses[turned], weights[turned][:, turned], 0.3, loss_type=loss_type)
    assert first.item() == pytest.approx(second.item(), abs=1e-6)


def test_scales_add_up_to_a_mean():
    for loss_type in LOSS_TYPES:
        for own, other in ((3, 5), (0, 4), (4, 0)):
            scales = cell_scales(torch.tensor([own, other]), loss_type, 0.8)
            total = own * scales[0] + other * scales[1]
            assert total.item() == pytest.approx(0.0 if loss_type == "dpo" and own == 0 else 1.0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"weights": torch.ones(3, 2)}, r"\(2,\).*\(3,\).*weights of shape.*\(3, 2\)"),
        ({"weights": torch.tensor([[1.0, 1, 1], [1, 1, math.nan]])}, r"weights\[1, 2\] = nan is not finite"),
        ({"weights": torch.tensor([[1.0, -0.5, 1], [1, 1, 1]])}, r"weights\[0, 1\] = -0.5 is negative"),
        ({"chosen_logratios": torch.tensor([0.0, math.nan])}, r"chosen_logratios\[1\] = nan is not finite"),
        ({"rejected_logratios": torch.tensor([0.0, 1, math.inf])}, r"rejected_logratios\[2\] = inf is not finite"),
        ({"beta": 0.0}, "beta must be greater than 0 and finite, got 0.0"),
        ({"loss_type": "ipo"}, "one of rpo, uniform, dpo, diagonal, got 'ipo'"),
        ({"loss_type": "dpo"}, "as many wins as losses, got 2 and 3"),
        ({"diagonal_alpha": 1.5}, "between 0 and 1, got 1.5"),
    ],
)
def test_refusals_name_the_value(change, sentence):
    good = {"chosen_logratios": WINS, "rejected_logratios": LOSSES, "weights": WEIGHTS, "beta": 0.1}
    with pytest.raises(ValueError, match=sentence):
        rpo_loss(**good | change)
