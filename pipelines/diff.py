"""`diff`: print what changed between two builds."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rpo_data.difference import Change, Difference, MovedRows


def print_difference(console: Console, difference: Difference) -> None:
    """Print it for a person to read; parts without a difference are left out."""
    if difference.same_tables:
        console.print("the tables are the same, byte for byte")
    for title in ("settings", "versions", "counts", "reasons", "quality"):
        _print_changes(console, title, getattr(difference, title))
    if difference.sources:
        table = Table("sources", "", box=None, pad_edge=False)
        for name, told in difference.sources.items():
            table.add_row(Text(name), told)
        console.print(table)
        console.print()
    if difference.rows is None:
        console.print("rows cannot be compared: one dataset holds pairs, the other responses")
    else:
        _print_rows(console, difference.rows)


def _print_changes(console: Console, title: str, changes: Mapping[str, Change]) -> None:
    if not changes:
        return
    table = Table(title, box=None, pad_edge=False)
    for column in ("before", "after", "change"):
        table.add_column(column, justify="right")
    for name, (before, after) in changes.items():
        table.add_row(Text(name), _shown(before), _shown(after), _step(before, after))
    console.print(table)
    console.print()


def _print_rows(console: Console, rows: MovedRows) -> None:
    before, after, kept = rows.company
    lines = [
        f"rows    {rows.both:,} in both, {rows.only[0]:,} only before, {rows.only[1]:,} only after",
        f"splits  {', '.join(f'{number:,} from {move}' for move, number in rows.moves.items()) or 'no row moved'}",
        f"groups  {rows.groups[0]:,} before, {rows.groups[1]:,} after, {rows.groups[2]:,} with the very same rows (view 0)",
    ]
    if before:
        lines.append(
            f"company {kept:,} of the {before:,} pairs of rows that shared a group still do ({kept / before:.1%}); "
            f"{after:,} share one now"
        )
    lines += [f"        {kind}: {', '.join(ids)}" for kind, ids in rows.examples.items()]
    console.print("\n".join(lines), markup=False)


def _shown(value: Any) -> Text:
    if value is None:
        return Text("none", "dim")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return Text(str(value))
    return Text(f"{value:,}" if isinstance(value, int) else f"{value:.4g}")


def _step(before: Any, after: Any) -> str:
    """The change of a number, with its sign."""
    if any(isinstance(value, bool) or not isinstance(value, (int, float)) for value in (before, after)):
        return ""
    step = after - before
    return f"{step:+,}" if isinstance(step, int) else f"{step:+.4g}"
