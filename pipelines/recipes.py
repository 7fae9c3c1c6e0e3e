"""Make a recipe from a YAML file and command line options, with errors a person can act on."""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from rpo_data.errors import RecipeError
from rpo_data.schemas.recipe import Recipe


def load_recipe(file: Path | None = None, options: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe of a YAML file, with options put over it; defaults where neither says anything.

    Raises:
        RecipeError: the file cannot be read, or a key or value is wrong.
    """
    settings: dict[str, Any] = {}
    if file is not None:
        settings = read_yaml(file)
        for key in settings:
            if key not in Recipe.model_fields:
                raise RecipeError(f"{file}: there is no recipe key '{key}'{nearest(key, Recipe.model_fields)}")
    settings.update({key: value for key, value in (options or {}).items() if value is not None})
    try:
        return Recipe.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        what = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:
            raise RecipeError(what) from error
        key = str(first["loc"][0])
        where = f"{file}: {key}" if options is None or options.get(key) is None else f"--{key.replace('_', '-')}"
        raise RecipeError(f"{where} is {settings[key]!r}: {what[0].lower()}{what[1:]}") from error


def change_recipe(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """A recipe with some keys changed.

    Raises:
        RecipeError: a value is wrong.
    """
    return load_recipe(None, recipe.model_dump() | dict(changes))


def read_yaml(file: Path) -> dict[str, Any]:
    """The keys and values of a YAML file; an empty file gives none.

    Raises:
        RecipeError: the file is not there, is no YAML, or holds no keys.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{file} cannot be read ({error.strerror}): check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise RecipeError(f"{file}{place} is not valid YAML ({getattr(error, 'problem', error)}): mend it") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise RecipeError(f"{file} must hold 'key: value' lines")
    return content


def nearest(key: str, known: Any) -> str:
    """A hint that ends an error about an unknown key: the nearest known one, or all of them."""
    close = get_close_matches(str(key), list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; there are: {', '.join(known)}"
