"""The verdict: figures against limits, by hand."""

from types import SimpleNamespace

import pytest

from rpo_data.page.verdict import HUBS, LOST, WEAK, verdict, way_to_best


def manifest(lost=0, made=100, rejected=0, mean=0.3, random=0.1, best=0.5, hubs=0, masked=0):
    quality = SimpleNamespace(
        mean_similarity=mean,
        random_similarity=random,
        nearest_similarity=best,
        masked_cells={"same_response": masked},
        cells=200,
        mined=SimpleNamespace(hubs=hubs, column_sums=SimpleNamespace(count=100)),
    )
    source = SimpleNamespace(records_rejected=rejected, rows_made=made)
    return SimpleNamespace(quality=quality, sources=[source], left_out={"duplicate": lost})


def test_the_way_from_random_to_best():
    assert way_to_best(manifest()) == pytest.approx(0.5)
    assert way_to_best(manifest(mean=0.1)) == 0
    assert way_to_best(manifest(best=None)) is way_to_best(manifest(best=0.1)) is None


def test_a_figure_at_its_limit_is_good_and_one_past_it_is_not():
    at = verdict(manifest(lost=10, mean=0.301, masked=20, hubs=1), 0.1, 0.55)
    assert [check.good for check in at] == [True] * 6
    past = verdict(manifest(lost=11, mean=0.29, masked=21, hubs=2), 0.11, 0.56)
    assert [check.good for check in past] == [False] * 6
    assert past[0].text == "left out or merged 11.0% (at most 10%)"
    assert past[-1].text == "the chosen response is the longer one in 56.0% of the pairs (45% to 55%)"
    assert (LOST, WEAK, HUBS) == (0.1, 0.1, 0.01)


def test_records_and_rows_are_counted_once():
    (lost, *_) = verdict(manifest(lost=30, made=50, rejected=10), None, None)
    assert lost.text.startswith("left out or merged 50.0%")  # 10 records and 20 of 50 rows


def test_what_is_not_known_is_left_out():
    assert len(verdict(manifest(best=None), None, None)) == 3
