"""report.html: the page of a dataset, written by every build and again by `rpo-data report`."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rpo_data.dataset import ContrastDataset
from rpo_data.errors import MissingExtra
from rpo_data.pipelines.store import stored_stage
from rpo_data.report import render_report

_BUNDLER = "vl-convert-python"


def write_report(data: ContrastDataset, folder: Path, cache: Path) -> Path:
    """Write the page of a dataset into this folder.

    Raises:
        MissingExtra: the package that carries the plots' script is not installed.
    """
    page = folder / "report.html"
    page.write_text(render_report(data, plot_script(cache)), encoding="utf-8")
    return page


def plot_script(cache: Path) -> str:
    """Vega, Vega-Lite and Vega-Embed as one ES module that sets `window.vegaEmbed`: 900 kB, BSD 3-Clause, ISC and MIT.

    Putting it together takes 2 s, so it is kept in the cache.

    Raises:
        MissingExtra: vl-convert-python, which carries the parts, is not installed.
    """
    try:
        made_by = version(_BUNDLER)
    except PackageNotFoundError as error:
        raise MissingExtra(f"report.html needs {_BUNDLER}: pip install 'rpo-data[build]'") from error

    def make(folder: Path) -> None:
        from vl_convert import javascript_bundle

        (folder / "plots.js").write_text(javascript_bundle("window.vegaEmbed = vegaEmbed;"), encoding="utf-8")

    stage = stored_stage(cache, "plots", {"bundler": made_by}, make)
    return (stage / "plots.js").read_text(encoding="utf-8")
