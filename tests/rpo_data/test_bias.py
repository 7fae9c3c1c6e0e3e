"""Figures of bias, by hand."""

import polars as pl
import pytest

from rpo_data.bias import (
    group_bias,
    half_severity,
    label_severity,
    length_bias,
    length_severity,
    length_sums,
    paired_sides,
    rate,
    side_severity,
)


def lengths(*pairs):
    chosen, rejected = zip(*pairs, strict=True)
    return pl.DataFrame({"chosen_characters": chosen, "rejected_characters": rejected})


def test_wilson_interval_by_hand():
    found = rate(8, 10)
    assert found.share == 0.8
    # (0.8 + z2/20) / (1 + z2/10) -+ ..., z2 = 3.8415
    assert found.interval == pytest.approx((0.49016, 0.94332), abs=1e-5)
    assert (rate(0, 5).interval[0], rate(5, 5).interval[1]) == (0.0, 1.0)
    with pytest.raises(ValueError, match="no share"):
        rate(1, 0)


def test_cohens_d_and_gap_by_hand():
    # means 30 and 20, variances 100 and 100: d = 10 / 10, gap = 10 / 20
    found = length_bias(length_sums(lengths((20, 10), (30, 20), (40, 30))).row(0, named=True))
    assert (found.cohens_d, found.gap) == (1.0, 0.5)
    assert (found.longer_wins, found.shorter_wins, found.win_rate) == (3, 0, 1.0)


@pytest.mark.parametrize(("shift", "expected"), [(0, None), (4, "MINOR"), (9, "MAJOR")], ids=["none", "minor", "major"])
def test_severity_needs_effect_and_gap(shift, expected):
    pairs = [(50 + n % 20 + shift, 50 + n % 20) for n in range(100)]
    found = length_bias(length_sums(lengths(*pairs)).row(0, named=True))
    assert length_severity(found) == expected


def test_sums_of_batches_add_up():
    one, two = lengths((3, 4), (9, 1)), lengths((7, 7), (2, 5))
    summed = length_sums(one) + length_sums(two)
    assert summed.row(0) == length_sums(pl.concat([one, two])).row(0)


def test_a_flag_by_side():
    rows = pl.DataFrame({"chosen_refusal": [True] * 30 + [False] * 70, "rejected_refusal": [False] * 100})
    found = paired_sides(rows, "refusal")
    assert (found.better_share, found.worse_share) == (0.3, 0.0)
    assert found.interval[0] < 0.3 < found.interval[1]
    assert side_severity(found, 100) == "MAJOR"
    assert side_severity(found, 10) is None


def test_labels_and_halves():
    assert (label_severity(rate(2, 100)), label_severity(rate(15, 100)), label_severity(rate(50, 100))) == (
        "MAJOR",
        "MINOR",
        None,
    )
    assert (half_severity(rate(75, 100)), half_severity(rate(50, 100))) == ("MAJOR", None)


def test_groups_that_differ():
    counts = pl.DataFrame({"group": ["a", "b"], "count": [190, 100], "of": [200, 200]})
    assert [(found.group, found.here.share) for found in group_bias(counts, "file", "longer_wins")] == [
        ("a", 0.95),
        ("b", 0.5),
    ]
    assert group_bias(counts.head(1), "file", "longer_wins") == []
