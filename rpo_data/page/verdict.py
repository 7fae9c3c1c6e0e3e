"""The short verdict at the top of the page: a few figures against fixed limits, and what to do where one is passed."""

from typing import NamedTuple

from rpo_data.schemas.manifest import Manifest

LOST, MASKED, HUBS, WEAK = 0.1, 0.1, 0.01, 0.1
"""Most that should be left out or merged, masked, hubs, weak groups, as shares."""
WAY = 0.5
"""Least part of the way from random groups to the best possible mean."""
LONGER = 0.05
"""How far from half the share of pairs may be in which the chosen response is the longer one."""


class Check(NamedTuple):
    """One figure of the verdict.

    text     the figure and its limit, in words
    good     whether it keeps the limit
    section  of the page that tells more
    advice   what to do where it does not
    """

    text: str
    good: bool
    section: str
    advice: str


def way_to_best(manifest: Manifest) -> float | None:
    """How far mining went from random groups (0) to the best possible mean cosine (1); None where it is not known."""
    quality = manifest.quality
    mean, random, best = quality.mean_similarity, quality.random_similarity, quality.nearest_similarity
    if mean is None or random is None or best is None or best <= random:
        return None
    return (mean - random) / (best - random)


def verdict(manifest: Manifest, weak: float | None, longer: float | None) -> list[Check]:
    """Every figure that is known, against its limit.

    Args:
        manifest: of the dataset.
        weak: share of the groups that are weak.
        longer: share of the pairs whose chosen response is the longer one.
    """
    total = {
        name: sum(getattr(source, name) for source in manifest.sources) for name in ("records_rejected", "rows_made")
    }
    checks = [
        _at_most(
            "left out or merged",
            sum(manifest.left_out.values()) / max(1, sum(total.values())),
            LOST,
            "fix",
            "mend the logs as listed",
        )
    ]
    way = way_to_best(manifest)
    if way is not None:
        told = f"mining went {way:.1%} of the way from random groups to the best possible mean (at least {WAY:.0%})"
        checks.append(
            Check(told, way >= WAY, "similarity", "look whether near prompts are alike at all, group by group")
        )
    if weak is not None:
        checks.append(
            _at_most("weak groups", weak, WEAK, "quality", "read the weakest groups, then leave them or regroup")
        )
    quality = manifest.quality
    masked = sum(quality.masked_cells.values()) / max(1, quality.cells)
    checks.append(_at_most("masked cells", masked, MASKED, "contradictions", "see what the logs say against them"))
    if quality.mined and quality.mined.column_sums:
        hubs = quality.mined.hubs / quality.mined.column_sums.count
        checks.append(_at_most("losses that are hubs", hubs, HUBS, "hubs", "try --normalize sinkhorn"))
    if longer is not None:
        low, high = 0.5 - LONGER, 0.5 + LONGER
        told = f"the chosen response is the longer one in {longer:.1%} of the pairs ({low:.0%} to {high:.0%})"
        advice = "compare the lengths of the trained model's answers, too"
        checks.append(Check(told, low <= longer <= high, "lengths", advice))
    return checks


def _at_most(what: str, share: float, limit: float, section: str, advice: str) -> Check:
    return Check(f"{what} {share:.1%} (at most {limit:.0%})", share <= limit, section, advice)
