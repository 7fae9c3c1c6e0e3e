"""Print one contrast group for a person to read."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rpo_data.dataset import judgement


def print_group(console: Console, group: dict[str, Any], characters: int) -> None:
    """Print the rows of a group beside their weights and similarities: pairs, or the wins under a list of the losses.

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
    paired = "chosen" in wins[0]
    if not paired:
        for number, loss in enumerate(losses):
            console.print(_response(f"loss {number}", loss, characters))
        console.print()
    console.print(
        Text("a cell: weight of win (row) against loss (column), - is masked; below, similarity of the prompts", "dim")
    )
    table = Table(box=None, pad_edge=False, show_lines=False, padding=(0, 1, 1, 0))
    table.add_column("", justify="right")
    table.add_column("prompt, chosen, rejected" if paired else "prompt, completion of each win", no_wrap=True)
    for column in range(len(losses)):
        table.add_column(str(column), justify="right", no_wrap=True)
    for number, win in enumerate(wins):
        texts = _pair(win, losses[number], characters) if paired else _response("win", win, characters)
        own = number if paired else -1
        table.add_row(str(number), texts, *_row(group["weight"][number], group["similarity"][number], own))
    if console.is_terminal:
        console.print(table)
    else:
        Console(file=console.file, width=characters + cells, highlight=False).print(table)


def _pair(win: dict[str, Any], loss: dict[str, Any], characters: int) -> Text:
    return Text.assemble(
        (_last(win["prompt"], characters), "bold"),
        "\n+ ",
        _last(win["chosen"], characters - 2),
        "\n- ",
        (_last(loss["rejected"], characters - 2), "dim"),
    )


def _response(role: str, row: dict[str, Any], characters: int) -> Text:
    sign, style = ("+ ", "") if role == "win" else ("- ", "dim")
    told = f"{role}, {judgement(row)}: "
    return Text.assemble(
        (told, "dim"),
        (_last(row["prompt"], max(characters - len(told), 1)), "bold"),
        f"\n{sign}",
        (_last(row["completion"], characters - 2), style),
    )


def _row(weights: list[float], similarity: list[float], own: int) -> list[Text]:
    """The cells of one win; the heaviest one besides its own is bold."""
    others = [weight for column, weight in enumerate(weights) if column != own]
    cells = []
    for column, (weight, cosine) in enumerate(zip(weights, similarity, strict=True)):
        heaviest = column != own and weight > 0 and weight == max(others)
        shown = "-" if weight == 0 else f"{weight:.2f}"
        cells.append(Text.assemble((shown, "bold" if heaviest else ""), "\n", (f"{cosine:.2f}", "dim")))
    return cells


def _last(messages: list[dict[str, Any]], characters: int) -> str:
    flat = " ".join((messages[-1]["content"] or "").split())
    return flat if len(flat) <= characters else flat[: characters - 1] + "…"
