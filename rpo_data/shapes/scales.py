"""What the readers of comparisons, scores and rankings share: one judgement out of a column, and which answer it favours."""

import math
from collections.abc import Mapping
from typing import Any, TypeVar

from rpo_data.shapes.base import ShapeError, kind, number, required

T = TypeVar("T")


def level(data: Mapping[str, Any], column: str, levels: Mapping[str, T]) -> T:
    """What the judgement in a column means; `levels` holds every value the publisher documents, as text.

    Raises:
        ShapeError: the column is not there, holds nothing, or a value that is not documented.
    """
    value = _judgement(data, column)
    found = levels.get(value_key(value))
    if found is None:
        raise ShapeError(
            "unknown_judgement", f"'{column}' is {_shown(value)}, where one of {', '.join(levels)} is needed"
        )
    return found


def value_key(value: Any) -> str:
    """A text or number as it would stand in a CSV file, so that 1, 1.0 and "1" are one value; all else is blank.

    >>> [value_key(value) for value in (1, -2.0, " 1 ", True, None, [1])]
    ['1', '-2', '1', '', '', '']
    """
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    # a longer number is no documented value, and Python refuses to write the very long ones
    return str(value) if abs(value) < 10**18 else ""


def score(data: Mapping[str, Any], column: str) -> float:
    """The finite number of a column that holds a judgement.

    Raises:
        ShapeError: the column is not there, holds nothing, or no finite number.
    """
    value = _judgement(data, column)
    if isinstance(value, (list, dict)):
        raise ShapeError("wrong_type", f"'{column}' is a {kind(value)}, not a number")
    found = number(data, column)
    if found is None or not math.isfinite(found):
        raise ShapeError("not_a_number", f"'{column}' is the number {found}")
    return found


def rank(data: Mapping[str, Any], column: str, best: int) -> int | None:
    """The place in a ranking, 1 for the best; None where there is none. `best` is what the log calls its best place.

    Raises:
        ShapeError: it is no whole number from `best` on.
    """
    value = data.get(column)
    if is_empty(value):
        return None
    place = whole(value)
    if place is None or place < best:
        raise ShapeError(
            "unknown_judgement", f"'{column}' is {_shown(value)}, where a whole number from {best} is needed"
        )
    return place - best + 1


def whole(value: Any) -> int | None:
    """The whole number from 0 on that a value is, also as text; None for all else."""
    digits = value_key(value)
    return int(digits) if digits.isdecimal() and len(digits) < 19 else None


def ordered(lead: float, first: T, second: T) -> tuple[T, T]:
    """The chosen and the rejected of two answers; `lead` is above 0 where the first is better, 0 in a tie.

    >>> ordered(-1, "a", "b")
    ('b', 'a')
    """
    return (second, first) if lead < 0 else (first, second)


def member(data: Mapping[str, Any], column: str) -> Mapping[str, Any]:
    """The object in a column.

    Raises:
        ShapeError: it is not there, null or no object.
    """
    value = required(data, column)
    if not isinstance(value, Mapping):
        raise ShapeError("wrong_type", f"'{column}' is a {kind(value)}, where an object is needed")
    return value


def members(data: Mapping[str, Any], column: str) -> list[Mapping[str, Any]]:
    """The list of objects in a column.

    Raises:
        ShapeError: it is not there, null or no list of objects.
    """
    value = required(data, column)
    if not isinstance(value, list):
        raise ShapeError("wrong_type", f"'{column}' is a {kind(value)}, where a list of objects is needed")
    for place, entry in enumerate(value, start=1):
        if not isinstance(entry, Mapping):
            raise ShapeError("wrong_type", f"entry {place} of '{column}' is a {kind(entry)}, where an object is needed")
    return value


def _judgement(data: Mapping[str, Any], column: str) -> Any:
    if column not in data:
        required(data, column)
    value = data[column]
    if is_empty(value):
        raise ShapeError("no_judgement", f"holds no judgement: '{column}' is empty")
    return value


def is_empty(value: Any) -> bool:
    """Null, NaN (how tables write null) or blank."""
    return (
        value is None or (isinstance(value, float) and value != value) or (isinstance(value, str) and not value.strip())
    )


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f"'{value[:40]}'"
    return value_key(value) or f"a {kind(value)}"
