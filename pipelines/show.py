"""Print one contrast group for a person to read."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_group(console: Console, group: dict[str, Any], characters: int) -> None:
    """Print the pairs of a group and its weight matrix.

    Args:
        console: where to.
        group: as `ContrastDataset.group` gives it.
        characters: shown of each text.
    """
    wins, weight, similarity = group["wins"], group["weight"], group["similarity"]
    console.print(f"group {group['group_id']}: {len(wins)} wins x {len(group['losses'])} losses", markup=False)
    for number, (win, loss) in enumerate(zip(wins, group["losses"], strict=True)):
        console.print(Text(f"\n{number:>2}  prompt    {_cut(win['prompt'][-1]['content'], characters)}", style="bold"))
        console.print(Text(f"    chosen    {_cut(win['chosen'][-1]['content'], characters)}"))
        console.print(Text(f"    rejected  {_cut(loss['rejected'][-1]['content'], characters)}", style="dim"))
    console.print()
    console.print(_matrix("weight of win (row) against loss (column); - is masked", weight, mask_zero=True))
    console.print(_matrix("similarity of the two prompts", similarity, mask_zero=False))


def _matrix(title: str, values: list[list[float]], *, mask_zero: bool) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("")
    for column in range(len(values[0])):
        table.add_column(str(column), justify="right")
    for number, row in enumerate(values):
        table.add_row(str(number), *("-" if mask_zero and value == 0 else f"{value:.2f}" for value in row))
    return table


def _cut(text: str | None, characters: int) -> str:
    flat = " ".join((text or "").split())
    return flat if len(flat) <= characters else flat[: characters - 1] + "…"
