"""Mined contrast datasets from raw preference logs.

>>> from rpo_data import Recipe, build, load  # doctest: +SKIP

The public names load what they need when they are first used: `import rpo_data` itself loads nothing heavy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rpo_data.dataset import ContrastDataset, load
    from rpo_data.errors import RpoDataError
    from rpo_data.pipelines.build import build
    from rpo_data.pipelines.lint import lint
    from rpo_data.schemas.recipe import Recipe

_HOMES = {
    "ContrastDataset": "rpo_data.dataset",
    "Recipe": "rpo_data.schemas.recipe",
    "RpoDataError": "rpo_data.errors",
    "build": "rpo_data.pipelines.build",
    "lint": "rpo_data.pipelines.lint",
    "load": "rpo_data.dataset",
}

__all__ = ["ContrastDataset", "Recipe", "RpoDataError", "build", "lint", "load"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'rpo_data' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
