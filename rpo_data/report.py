"""report.html: one self-contained page on a dataset, from its tables and manifest alone, so that equal data gives equal bytes.

Nothing of the data can run: jinja2 escapes every text, what the plots draw is JSON with < > & escaped, and a content security
policy admits the two scripts of the page by their hashes, and no request.
"""

import base64
import hashlib
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rpo_data.dataset import ContrastDataset, judgement
from rpo_data.page.facts import collect_facts
from rpo_data.page.rows import excerpt, opening

_ROWS = 12  # rows of a side of a group to read
_TEXT = 1200  # characters of a text to read


def render_report(data: ContrastDataset, script: str) -> str:
    """The page for a dataset.

    Args:
        data: the dataset; of one without `vectors/` the map and the cosines of random pairs are not drawn.
        script: Vega, Vega-Lite and Vega-Embed, as one ES module (`pipelines.report.plot_script`).
    """
    facts, environment = collect_facts(data), _environment()
    own_script = environment.get_template("report.js").render()
    return environment.get_template("report.html.j2").render(
        **facts.told,
        page=facts.drawn,
        script=Markup(script),
        own_script=Markup(own_script),
        hashes=[_script_hash(text) for text in (script, own_script)],
        text_limit=_TEXT,
        row_limit=_ROWS,
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("rpo_data"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "allow_nan": False, "separators": (",", ":")}
    environment.filters["excerpt"] = excerpt
    environment.filters["opening"] = opening
    environment.filters["judgement"] = judgement
    environment.filters["number"] = lambda value: f"{value:,}"
    environment.filters["figure"] = lambda value, digits=3: "none" if value is None else f"{value:.{digits}f}"
    environment.filters["percent"] = lambda value: f"{value:.1%}"
    return environment


def _script_hash(text: str) -> str:
    """As a content security policy names a script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
