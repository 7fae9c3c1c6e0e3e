"""Print one contrast group for a person to read."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_group(console: Console, group: dict[str, Any], characters: int) -> None:
    """Print the pairs of a group, each beside its row of weights and similarities.

    Args:
        console: where to.
        group: as `ContrastDataset.group` gives it.
        characters: shown of each text.
    """
    wins, losses = group["wins"], group["losses"]
    cells = 6 * len(losses) + 3
    if console.is_terminal:  # elsewhere lines may be as long as they are
        characters = min(characters, max(console.width - cells, 30))
    console.print(f"group {group['group_id']}: {len(wins)} wins x {len(losses)} losses", markup=False)
    console.print(
        Text("a cell: weight of win (row) against loss (column), - is masked; below, similarity of the prompts", "dim")
    )
    table = Table(box=None, pad_edge=False, show_lines=False, padding=(0, 1, 1, 0))
    table.add_column("", justify="right")
    table.add_column("prompt, chosen, rejected", no_wrap=True)
    for column in range(len(losses)):
        table.add_column(str(column), justify="right", no_wrap=True)
    for number, (win, loss) in enumerate(zip(wins, losses, strict=True)):
        texts = Text.assemble(
            (_cut(win["prompt"][-1]["content"], characters), "bold"),
            "\n+ ",
            _cut(win["chosen"][-1]["content"], characters - 2),
            "\n- ",
            (_cut(loss["rejected"][-1]["content"], characters - 2), "dim"),
        )
        table.add_row(str(number), texts, *_row(group["weight"][number], group["similarity"][number], number))
    if console.is_terminal:
        console.print(table)
    else:
        Console(file=console.file, width=characters + cells, highlight=False).print(table)


def _row(weights: list[float], similarity: list[float], own: int) -> list[Text]:
    """The cells of one win; the heaviest one besides its own is bold."""
    others = [weight for column, weight in enumerate(weights) if column != own]
    cells = []
    for column, (weight, cosine) in enumerate(zip(weights, similarity, strict=True)):
        heaviest = column != own and weight > 0 and weight == max(others)
        shown = "-" if weight == 0 else f"{weight:.2f}"
        cells.append(Text.assemble((shown, "bold" if heaviest else ""), "\n", (f"{cosine:.2f}", "dim")))
    return cells


def _cut(text: str | None, characters: int) -> str:
    flat = " ".join((text or "").split())
    return flat if len(flat) <= characters else flat[: characters - 1] + "…"
