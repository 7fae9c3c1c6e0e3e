"""Figures of bias: does length, a refusal, a format, a place or a person decide who wins?

Everything is made of counts and sums of whole numbers, which are exact and can be added up over batches and files.

Sources: Cohen 1988, "Statistical Power Analysis for the Behavioral Sciences", section 2.2 (d, and 0.8 for a large effect);
Wilson 1927, "Probable inference, the law of succession, and statistical inference" (interval of a share); Newcombe 1998,
"Improved confidence intervals for the difference between binomial proportions based on paired data", method 10, and
"Interval estimation for the difference between independent proportions", method 10 (intervals of a difference).
"""

from collections.abc import Mapping
from math import sqrt
from typing import Literal

import polars as pl

from rpo_data.schemas.findings import GroupBias, LengthBias, Rate, SideBias

Severity = Literal["MAJOR", "MINOR"]

Z = 1.959963984540054
"""Two-sided 95 % of the normal distribution."""
MIN_ROWS = 30
"""Fewer rows than this say nothing about a bias."""
LENGTH: dict[Severity, tuple[float, float]] = {"MAJOR": (0.8, 0.10), "MINOR": (0.3, 0.05)}
"""Least |d| and least gap."""
LIKED: dict[Severity, float] = {"MAJOR": 0.05, "MINOR": 0.20}
"""The rarer label is at most this share."""
DIFFERENCE: dict[Severity, float] = {"MAJOR": 0.20, "MINOR": 0.05}
"""Difference of two shares, or of a share from one half, whose interval leaves out 0."""
GROUP_ROWS = 100
GROUP_DIFFERENCE = 0.20

_SUMS = {
    "pairs": pl.len(),
    "chosen_sum": pl.col("chosen_characters").cast(pl.UInt64).sum(),
    "rejected_sum": pl.col("rejected_characters").cast(pl.UInt64).sum(),
    "chosen_squares": pl.col("chosen_characters").cast(pl.UInt64).pow(2).sum(),
    "rejected_squares": pl.col("rejected_characters").cast(pl.UInt64).pow(2).sum(),
    "longer_wins": (pl.col("chosen_characters") > pl.col("rejected_characters")).sum(),
    "shorter_wins": (pl.col("chosen_characters") < pl.col("rejected_characters")).sum(),
}


def rate(count: int, of: int) -> Rate:
    """A share with its Wilson 95 % interval.

    >>> rate(5, 10).share, [round(end, 4) for end in rate(5, 10).interval]
    (0.5, [0.2366, 0.7634])

    Raises:
        ValueError: of nothing.
    """
    if of < 1 or not 0 <= count <= of:
        raise ValueError(f"{count} of {of} is no share")
    share = count / of
    centre = (share + Z * Z / (2 * of)) / (1 + Z * Z / of)
    half = Z / (1 + Z * Z / of) * sqrt(share * (1 - share) / of + Z * Z / (4 * of * of))
    # at the ends of the scale the formula gives 0 and 1 up to rounding
    low, high = 0.0 if count == 0 else centre - half, 1.0 if count == of else centre + half
    return Rate(count=count, of=of, share=share, interval=(low, high))


def length_sums(pairs: pl.DataFrame, by: str | None = None) -> pl.DataFrame:
    """Counts and sums of lengths that `length_bias` needs; they may be added up.

    Args:
        pairs: `chosen_characters`, `rejected_characters`; ties left out.
        by: column to group by; null is no group.

    Returns:
        One row, or one a group, by name.
    """
    if by is None:
        return pairs.select(**_SUMS)
    return pairs.filter(pl.col(by).is_not_null()).group_by(by).agg(**_SUMS).sort(by)


def length_bias(sums: Mapping[str, int]) -> LengthBias | None:
    """Cohen's d, gap and win rate of the longer response; None for fewer than two pairs.

    d is (mean of chosen - mean of rejected) / sqrt((variance of chosen + variance of rejected) / 2), variances over n - 1.
    The gap is (mean of chosen - mean of rejected) / mean of rejected.
    """
    n, chosen, rejected = sums["pairs"], sums["chosen_sum"], sums["rejected_sum"]
    if n < 2 or not rejected:
        return None
    variances = [
        (n * sums[f"{side}_squares"] - total * total) / (n * (n - 1))
        for side, total in (("chosen", chosen), ("rejected", rejected))
    ]
    spread = sqrt(sum(variances) / 2)
    difference = (chosen - rejected) / n
    decided = sums["longer_wins"] + sums["shorter_wins"]
    longer = rate(sums["longer_wins"], decided) if decided else None
    return LengthBias(
        pairs=n,
        chosen_mean=chosen / n,
        rejected_mean=rejected / n,
        gap=(chosen - rejected) / rejected,
        cohens_d=difference / spread if spread else 0.0 if not difference else None,
        longer_wins=sums["longer_wins"],
        shorter_wins=sums["shorter_wins"],
        win_rate=longer.share if longer else None,
        win_rate_interval=longer.interval if longer else None,
    )


def paired_sides(rows: pl.DataFrame, flag: str) -> SideBias | None:
    """How often chosen and rejected of the same pairs have a flag; None without pairs.

    Args:
        rows: pairs with boolean `chosen_<flag>` and `rejected_<flag>`.
        flag: markdown, refusal or echo.
    """
    chosen, rejected = pl.col(f"chosen_{flag}"), pl.col(f"rejected_{flag}")
    both, only_chosen, only_rejected, total = rows.select(
        (chosen & rejected).sum(), (chosen & ~rejected).sum().alias("c"), (~chosen & rejected).sum().alias("r"),
        pl.len().alias("n"),
    ).row(0)  # fmt: skip
    if not total:
        return None
    neither = total - both - only_chosen - only_rejected
    return _sides(
        both + only_chosen, total, both + only_rejected, total, _phi(both, only_chosen, only_rejected, neither)
    )


def labelled_sides(rows: pl.DataFrame, flag: str) -> SideBias | None:
    """How often liked and disliked responses have a flag; None where one of them is missing.

    Args:
        rows: responses with boolean `label` and `chosen_<flag>`.
        flag: as above.
    """
    counts = {label: rows.filter(pl.col("label") == label)[f"chosen_{flag}"] for label in (True, False)}
    if not len(counts[True]) or not len(counts[False]):
        return None
    return _sides(int(counts[True].sum()), len(counts[True]), int(counts[False].sum()), len(counts[False]), 0.0)


def _sides(better: int, of_better: int, worse: int, of_worse: int, phi: float) -> SideBias:
    """Newcombe's interval of the difference of two shares, correlated by phi."""
    one, other = rate(better, of_better), rate(worse, of_worse)
    (l1, u1), (l2, u2) = one.interval, other.interval
    down, up = (one.share - l1, u2 - other.share), (u1 - one.share, other.share - l2)
    difference = one.share - other.share
    low, high = (sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0)) for a, b in (down, up))
    return SideBias(
        better=better,
        worse=worse,
        better_share=one.share,
        worse_share=other.share,
        difference=difference,
        interval=(difference - low, difference + high),
    )


def _phi(both: int, first: int, second: int, neither: int) -> float:
    """Newcombe's corrected correlation of a table of pairs."""
    product = (both + first) * (second + neither) * (both + second) * (first + neither)
    excess = both * neither - first * second
    if excess > 0:
        excess = max(excess - (both + first + second + neither) / 2, 0)  # type: ignore[assignment]
    return excess / sqrt(product) if product else 0.0


def group_bias(
    counts: pl.DataFrame, by: Literal["file", "annotator"], what: Literal["longer_wins", "rejected_records"]
) -> list[GroupBias]:
    """Groups that differ from all others together, where both have `GROUP_ROWS` and more.

    A group differs where the two shares are `GROUP_DIFFERENCE` apart and their intervals do not touch.

    Args:
        counts: `group`, `count`, `of`, by group.
        by: what a group is.
        what: what is counted.
    """
    total, of_total = int(counts["count"].sum()), int(counts["of"].sum())
    found = []
    for group, count, of in counts.select("group", "count", "of").rows():
        if min(of, of_total - of) < GROUP_ROWS:
            continue
        here, elsewhere = rate(count, of), rate(total - count, of_total - of)
        apart = here.interval[0] > elsewhere.interval[1] or here.interval[1] < elsewhere.interval[0]
        if apart and abs(here.share - elsewhere.share) >= GROUP_DIFFERENCE:
            found.append(GroupBias(group=group, by=by, what=what, here=here, elsewhere=elsewhere))
    return found


def length_severity(bias: LengthBias | None) -> Severity | None:
    """MAJOR or MINOR from both |d| and the gap, None where lengths are well."""
    if bias is None or bias.pairs < MIN_ROWS:
        return None
    d = float("inf") if bias.cohens_d is None else abs(bias.cohens_d)
    return next((name for name, (least_d, gap) in LENGTH.items() if d >= least_d and abs(bias.gap) >= gap), None)


def side_severity(bias: SideBias | None, rows: int) -> Severity | None:
    """MAJOR or MINOR from the difference of the two sides, where its interval leaves out 0."""
    if bias is None or rows < MIN_ROWS or bias.interval[0] <= 0 <= bias.interval[1]:
        return None
    return _difference_severity(bias.difference)


def half_severity(found: Rate | None) -> Severity | None:
    """MAJOR or MINOR from how far a share is from one half, where its interval leaves out one half."""
    if found is None or found.of < MIN_ROWS or found.interval[0] <= 0.5 <= found.interval[1]:
        return None
    return _difference_severity(found.share - 0.5)


def label_severity(liked: Rate | None) -> Severity | None:
    """MAJOR or MINOR from the share of the rarer label."""
    if liked is None or liked.of < MIN_ROWS:
        return None
    rarer = min(liked.count, liked.of - liked.count) / liked.of
    return next((name for name, most in LIKED.items() if rarer <= most), None)


def _difference_severity(difference: float) -> Severity | None:
    # shares are quotients: 0.6 - 0.4 must reach 0.2
    return next((name for name, least in DIFFERENCE.items() if abs(difference) >= least - 1e-12), None)
