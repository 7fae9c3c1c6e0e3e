"""report.html: one self-contained page on a dataset. Texts of the data are escaped by jinja2; the page runs no script."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from rpo_data.dataset import ContrastDataset, judgement
from rpo_data.schemas.rules import RULES


def render_report(data: ContrastDataset) -> str:
    """The page for a dataset; equal datasets give equal bytes."""
    environment = Environment(
        loader=PackageLoader("rpo_data"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["last_text"] = lambda messages: messages[-1]["content"] or "(tool call)"
    environment.filters["judgement"] = judgement
    template = environment.get_template("report.html.j2")
    return template.render(
        manifest=data.manifest,
        read=sum(source.records_read for source in data.manifest.sources),
        kept=sum(source.rows_kept for source in data.manifest.sources),
        reasons={code: rule.reason for code, rule in RULES.items()},
        examples=_examples(data),
    )


def _examples(data: ContrastDataset) -> list[dict[str, Any]]:
    """The most, the middle and the least related group of the train split, with texts."""
    ranked = data.ranked_groups()
    places = {"Most related": 0, "In the middle": len(ranked) // 2, "Least related": len(ranked) - 1}
    shown: dict[int, dict[str, Any]] = {}
    for title, place in places.items():
        group_id, mean = ranked[place]
        shown.setdefault(place, data.group(group_id) | {"title": title, "mean": mean})
    return list(shown.values())
