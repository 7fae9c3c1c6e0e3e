"""The shapes of preference logs: which one a record has, and its rows.

Each shape is one module of this folder, or an entry point of the group `rpo_data.shapes` in any installed package
(docs/shapes.md shows how to write one).
"""

from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache, lru_cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from rpo_data.errors import RecipeError
from rpo_data.shapes.base import Message, Pair, Response, Row, Shape, ShapeError, is_judged, number
from rpo_data.shapes.hh import split_dialogue

__all__ = [
    "Message", "Pair", "Response", "Row", "Shape", "ShapeError",
    "claiming_shapes", "get_shape", "is_judged", "map_columns", "read_rows", "shapes", "split_dialogue",
]  # fmt: skip

_MODULES = (
    "hh",
    "preference",
    "unpaired",
    "openai",
    "sharegpt",
    "alpaca",
    "alpaca_ranking",
    "axolotl",
    "kto",
    "swift",
    "ultrafeedback",
    "ultrafeedback_binarized",
    "helpsteer",
    "helpsteer_preference",
    "shp",
    "nectar",
    "safe_rlhf",
    "arena",
    "open_assistant",
    "webgpt",
    "summarize",
    "summarize_axis",
    "tulu_human_eval",
    "pandalm",
    "llmbar",
    "thumbs",
    "open_webui",
)


@cache
def shapes() -> dict[str, Shape]:
    """All shapes by name: ours, then those of installed packages.

    Raises:
        RecipeError: an entry point cannot be loaded, is no Shape, or takes a name that is there already.
    """
    found = {}
    for module in _MODULES:
        shape = import_module(f"rpo_data.shapes.{module}").SHAPE
        found[shape.name] = shape
    for entry in sorted(entry_points(group="rpo_data.shapes"), key=lambda entry: entry.name):
        try:
            shape = entry.load()
        except Exception as error:  # whatever a package of somebody else raises
            where = f"the shape '{entry.name}' of {entry.value}"
            raise RecipeError(f"{where} cannot be loaded ({error}): mend or remove it") from error
        if not isinstance(shape, Shape) or shape.name in found:
            reason = f"name '{shape.name}' is taken" if isinstance(shape, Shape) else "it is no rpo_data.shapes.Shape"
            raise RecipeError(f"the shape '{entry.name}' of {entry.value} cannot be used ({reason}): mend or remove it")
        found[shape.name] = shape
    return found


def get_shape(name: str) -> Shape:
    """The shape of this name.

    Raises:
        RecipeError: there is none.
    """
    known = shapes()
    if name not in known:
        close = get_close_matches(name, known, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"there are: auto, {', '.join(known)}"
        raise RecipeError(f"there is no format '{name}'; {hint}")
    return known[name]


def claiming_shapes(data: Mapping[str, Any]) -> list[str]:
    """Names of the shapes that claim a record: one where all is well."""
    return [shape.name for shape in _with_columns(tuple(data)) if shape.claims(data)]


@lru_cache(maxsize=1024)
def _with_columns(columns: tuple[str, ...]) -> tuple[Shape, ...]:
    there = set(columns)
    return tuple(shape for shape in shapes().values() if any(there.issuperset(need) for need in shape.needs))


def map_columns(data: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """A record with columns renamed, ours -> theirs; a dot reaches into an object: `score_chosen` -> `metadata.score`.

    >>> map_columns({"question": "why?", "best": "so", "n": 1}, {"prompt": "question", "chosen": "best"})
    {'n': 1, 'prompt': 'why?', 'chosen': 'so'}
    """
    mapped = {name: value for name, value in data.items() if name not in columns.values()}
    for ours, theirs in columns.items():
        value: Any = data
        for part in (theirs,) if theirs in data else theirs.split("."):
            value = value.get(part, _ABSENT) if isinstance(value, Mapping) else _ABSENT
        if value is not _ABSENT:
            mapped[ours] = value
    return mapped


_ABSENT = object()


def read_rows(data: Mapping[str, Any], shape: Shape) -> list[Row]:
    """The rows of a record of a known shape, with annotator, language, weight and scores under their usual names.

    Raises:
        ShapeError: the record does not fit; code and sentence say why.
    """
    rows = shape.read(data)
    if all(isinstance(row, Response) and not is_judged(row) for row in rows):
        raise ShapeError("no_judgement", "holds no judgement: no response is compared, labelled, scored or ranked")
    for column in ("annotator", "language"):
        value = data.get(column)
        if isinstance(value, (str, int)) and not isinstance(value, bool) and str(value).strip():
            for row in rows:
                if getattr(row, column) is None:
                    setattr(row, column, str(value))
    for column in ("weight", "score_chosen", "score_rejected"):
        value = number(data, column)
        for row in rows if value is not None else ():
            if hasattr(row, column) and getattr(row, column) is None:
                setattr(row, column, value)
    return rows
