r"""Comparisons of summarize-from-feedback: two summaries of one post or article, and the one a worker chose.

Rules: README of github.com/openai/summarize-from-feedback, section "Comparisons": `choice` is the place of the better of
the two `summaries`, 0 or 1, `worker` who chose. The prompt is the query of the publisher's own tasks
(summarize_from_feedback/utils/experiment_helpers.py, `tldr_task` and `cnndm_task`). `extra.confidence` is not read: the
README does not say what its numbers mean.
"""

from collections.abc import Mapping
from typing import Any

from rpo_data.shapes.base import Message, Pair, Row, Shape, ShapeError, assistant, text, user
from rpo_data.shapes.scales import level, member, members, ordered, value_key

_LEADS = {"0": 1, "1": -1}


def _claims(data: Mapping[str, Any]) -> bool:
    return isinstance(data["info"], Mapping) and isinstance(data["summaries"], list)


def _read(data: Mapping[str, Any]) -> list[Row]:
    lead = level(data, "choice", _LEADS)
    summaries = [text(summary, "text") for summary in members(data, "summaries")]
    if len(summaries) != 2:
        raise ShapeError("wrong_type", f"'summaries' holds {len(summaries)} summaries, where two are needed")
    chosen, rejected = ordered(lead, *summaries)
    return [
        Pair(
            prompt=[query(data)],
            chosen=[assistant(chosen)],
            rejected=[assistant(rejected)],
            annotator=value_key(data.get("worker")) or None,
        )
    ]


def query(data: Mapping[str, Any]) -> Message:
    """The user message that asks for a summary of `info`, as the publisher's policies were asked.

    Raises:
        ShapeError: `info` holds neither an article nor a post with its title and subreddit.
    """
    info = member(data, "info")
    if info.get("article") is not None:
        return user(f"Article:\n{text(info, 'article')}\n\nTL;DR:\n")
    subreddit, title, post = (text(info, column) for column in ("subreddit", "title", "post"))
    return user(f"SUBREDDIT: r/{subreddit}\n\nTITLE: {title}\n\nPOST: {post}\n\nTL;DR:")


SHAPE = Shape(
    name="summarize",
    title="summarize-from-feedback, comparisons",
    gives="pairs",
    source="https://github.com/openai/summarize-from-feedback#comparisons",
    needs=(("info", "summaries", "choice"),),
    claims=_claims,
    read=_read,
)
