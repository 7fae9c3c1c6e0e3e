"""Print one contrast group for a person to read."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rpo_data.dataset import FIGURES, judgement, own_cells

Row = dict[str, Any]


def print_group(console: Console, group: Row, characters: int) -> None:
    """Print the rows of a group beside their weights and similarities.

    Pairs stand one below the other, each beside its row of cells. Of responses the side that has fewer is listed first, and
    gives the columns; so a group of one win and sixty losses stays narrow.

    Args:
        console: where to.
        group: as `ContrastDataset.group` gives it.
        characters: shown of each text.
    """
    wins, losses = group["wins"], group["losses"]
    paired, wide = "chosen" in wins[0], len(losses) > len(wins)
    cells = 6 * (len(wins) if wide else len(losses)) + 3
    if console.is_terminal:  # elsewhere lines may be as long as they are
        characters = min(characters, max(console.width - cells, 30))
    console.print(f"group {group['group_id']}: {len(wins)} wins x {len(losses)} losses", markup=False)
    weight, similarity = (np.array(group[name]) for name in ("weight", "similarity"))
    prompts = ([row["prompt_id"] for row in side] for side in (wins, losses))
    own = own_cells(*((group["win_rows"], group["loss_rows"]) if paired else prompts))
    console.print(_figures(similarity, weight, own), markup=False)
    if paired:
        console.print(Text(_LEGEND.format("weight of win (row) against loss (column)"), "dim"))
        texts = [_pair(win, loss, characters) for win, loss in zip(wins, losses, strict=True)]
        table = _table("prompt, chosen, rejected", texts, weight, similarity, own=range(len(wins)))
    else:
        shown, listed = (("loss", losses), ("win", wins)) if wide else (("win", wins), ("loss", losses))
        for number, row in enumerate(listed[1]):
            console.print(_response(listed[0], row, characters, f"{number} "))
        console.print()
        console.print(Text(_LEGEND.format(f"weight of {shown[0]} (row) and {listed[0]} (column)"), "dim"))
        texts = [_response(shown[0], row, characters) for row in shown[1]]
        turned = (weight.T, similarity.T) if wide else (weight, similarity)
        table = _table("prompt, completion", texts, *turned, own=[-1] * len(texts))
    if console.is_terminal:
        console.print(table)
    else:
        Console(file=console.file, width=characters + cells, highlight=False).print(table)


def _figures(similarity: np.ndarray, weight: np.ndarray, own: np.ndarray) -> str:
    """A line on what `--best`, `--worst`, `--hubs` and `--masked` rank by."""
    mean, hub, masked = (FIGURES[by](similarity, weight, own) for by in ("similarity", "hubs", "masked"))
    return (
        f"mean similarity {'none' if math.isnan(mean) else f'{mean:.2f}'}, {masked:.0f} of {weight.size} cells masked, "
        f"the heaviest column is loss {weight.sum(axis=0).argmax()} with {hub:.2f} times the mean"
    )


_LEGEND = "a cell: {}, - is masked; below, similarity of the prompts"


def _table(title: str, texts: Sequence[Text], weight: np.ndarray, similarity: np.ndarray, own: Sequence[int]) -> Table:
    table = Table(box=None, pad_edge=False, show_lines=False, padding=(0, 1, 1, 0))
    table.add_column("", justify="right")
    table.add_column(title, no_wrap=True)
    for column in range(weight.shape[1]):
        table.add_column(str(column), justify="right", no_wrap=True)
    for number, text in enumerate(texts):
        table.add_row(str(number), text, *_row(weight[number], similarity[number], own[number]))
    return table


def _row(weights: np.ndarray, similarity: np.ndarray, own: int) -> list[Text]:
    """The cells of one row; the heaviest one besides its own is bold."""
    others = [weight for column, weight in enumerate(weights) if column != own]
    cells = []
    for column, (weight, cosine) in enumerate(zip(weights, similarity, strict=True)):
        heaviest = column != own and weight > 0 and weight == max(others)
        shown = "-" if weight == 0 else f"{weight:.2f}"
        cells.append(Text.assemble((shown, "bold" if heaviest else ""), "\n", (f"{cosine:.2f}", "dim")))
    return cells


def _pair(win: Row, loss: Row, characters: int) -> Text:
    return Text.assemble(
        (_last(win["prompt"], characters), "bold"),
        "\n+ ",
        _last(win["chosen"], characters - 2),
        "\n- ",
        (_last(loss["rejected"], characters - 2), "dim"),
    )


def _response(role: str, row: Row, characters: int, number: str = "") -> Text:
    told = f"{number}{role}, {judgement(row)}: "
    sign, style = ("+ ", "") if role == "win" else ("- ", "dim")
    return Text.assemble(
        (told, "dim"),
        (_last(row["prompt"], max(characters - len(told), 10)), "bold"),
        f"\n{sign}",
        (_last(row["completion"], characters - 2), style),
    )


def _last(messages: list[Row], characters: int) -> str:
    flat = " ".join((messages[-1]["content"] or "").split())
    return flat if len(flat) <= characters else flat[: characters - 1] + "…"
