"""The README.md inside a dataset folder."""

from rpo_data.schemas.manifest import Manifest
from rpo_data.schemas.rules import RULES


def folder_readme(manifest: Manifest) -> str:
    """A page to read, from the manifest alone (so that equal data gives equal bytes)."""
    recipe, quality = manifest.recipe, manifest.quality
    read = sum(source.records_read for source in manifest.sources)
    kept = sum(source.rows_kept for source in manifest.sources)
    ordered = sorted(manifest.splits.items(), reverse=True)
    splits = "\n".join(f"| {name} | {info.prompts:,} | {info.rows:,} | {info.groups:,} |" for name, info in ordered)
    sources = "\n".join(
        f"| {s.name} | {s.records_read:,} | {s.records_rejected:,} | {s.rows_merged:,} | {s.rows_rejected:,} "
        f"| {s.rows_kept:,} |"
        for s in manifest.sources
    )
    left_out = "\n".join(
        f"| {code} | {number:,} | {RULES[code].reason} |" for code, number in manifest.left_out.items()
    )
    warnings = "".join(f"- {warning}\n" for warning in manifest.warnings)
    masked = ", ".join(f"{number:,} {reason}" for reason, number in quality.masked_cells.items() if number) or "none"
    table = "pairs" if manifest.paired else "responses"
    bound = f"| mean cosine to the nearest rows, the bound | {_figure(quality.nearest_similarity)} |\n"
    bound = bound if manifest.paired else ""
    return f"""# Mined contrast dataset

{read:,} log records became {kept:,} {manifest.what} in contrast groups of {recipe.group_size} \
({recipe.views} view{"s" * (recipe.views != 1)}, strategy {recipe.strategy}), made by rpo-data {manifest.rpo_data_version}.

```python
from rpo_data import load
data = load("THIS FOLDER")
data.group("train-0-0")
```

| split | prompts | {table} | groups a view |
|---|---|---|---|
{splits}

| source | records read | rejected | merged | rows rejected | kept |
|---|---|---|---|---|---|
{sources}

{"| left out as | number | because |" if left_out else "Nothing was left out."}
{"|---|---|---|" if left_out else ""}
{left_out}

## Groups

Prompts were embedded with {manifest.embedder.name} ({manifest.embedder.dimension} dimensions, {recipe.embed_text}).

| figure (train split) | value |
|---|---|
| mean cosine inside groups | {_figure(quality.mean_similarity)} |
| the same for random groups | {_figure(quality.random_similarity)} |
{bound}| temperature | {manifest.temperatures}; weights {recipe.normalize}, {recipe.scale} |
| effective contrasts of a win | {_figure(quality.effective_contrasts)} |
| the same for random groups at temperature 0.5 | {_figure(quality.random_contrasts)} |
| losses that are hubs (column sum above 2) | {_hubs(manifest)} |
| cells, masked ones | {quality.cells:,}, {masked} |

{"Warnings:" if warnings else ""}
{warnings}
## Files

`{table}/`, `groups/`, `neighbors/` and `vectors/` open with `datasets.load_from_disk`; `manifest.json` holds every count
and setting; `rejects.parquet` holds every record left out, with code, message, file, line and the record itself.
"""


def _hubs(manifest: Manifest) -> str:
    mined, random = manifest.quality.mined, manifest.quality.random
    return f"{mined.hubs:,} (random {random.hubs:,})" if mined and random else "not counted"


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"
