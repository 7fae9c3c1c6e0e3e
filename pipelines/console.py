"""What the commands of the command line share: printing, progress, recipe keys as options, and how they stop."""

import gc
import inspect
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic.fields import FieldInfo
from rich.console import Console

from rpo_data.errors import MissingExtra
from rpo_data.schemas.recipe import Recipe

out = Console(highlight=False, soft_wrap=True)
log = Console(stderr=True, highlight=False, soft_wrap=True)


def say(line: str) -> None:
    """Print a line as it is."""
    out.print(line, markup=False)


def counted(number: int, things: str) -> str:
    """How many of them, in words that fit one as well.

    >>> counted(1, "pairs"), counted(1000, "pairs")
    ('1 pair', '1,000 pairs')
    """
    return f"{number:,} {things.removesuffix('s') if number == 1 else things}"


def need_extra(extra: str, *modules: str) -> None:
    """Raise MissingExtra, which names the extra, where one of these modules is not installed."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise MissingExtra(f"this command needs {', '.join(missing)}: pip install 'rpo-data[{extra}]'")


def leave_processes() -> None:
    """End the threads that speak with the other processes of torchrun: at work while Python ends, they may abort it."""
    from accelerate import PartialState

    gc.collect()  # a trainer that is done still holds them: it is part of cycles
    PartialState().destroy_process_group()


class StageProgress:
    """Each long stage with rate and time left: a bar on a terminal, else a plain line every ten seconds."""

    def __enter__(self) -> Callable[[str, int, int], None]:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = [TextColumn("{task.description:<7}"), BarColumn(), MofNCompleteColumn()]
        columns += [TextColumn("{task.fields[rate]}"), TimeRemainingColumn()]
        self._bars = Progress(*columns, console=out, transient=True, disable=not out.is_terminal)
        self._tasks: dict[str, Any] = {}
        self._began: dict[str, float] = {}
        self._next_line = time.monotonic() + 10
        self._bars.start()
        return self._track if out.is_terminal else self._lines

    def _track(self, stage: str, done: int, total: int) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=total or None, rate="")
        task = self._bars.tasks[self._tasks[stage]]
        rate = f"{task.speed:,.0f}/s" if task.speed else ""
        self._bars.update(task.id, completed=done, total=total or None, rate=rate)

    def _lines(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        began = self._began.setdefault(stage, now)
        if now < self._next_line or now == began:
            return
        self._next_line = now + 10
        rate = done / (now - began)
        left = f" of {total:,}, {(total - done) / rate:,.0f} s left" if total else ""
        log.print(f"{stage:<7} {done:,}{left}, {rate:,.0f}/s", markup=False)

    def __exit__(self, *error: object) -> None:
        self._bars.stop()


class Stopped(BaseException):
    """Ctrl-C. Not a KeyboardInterrupt, which the command line library would swallow without our line."""


def with_recipe_options(
    command: Callable[..., None], keys: Sequence[str] = tuple(Recipe.model_fields)
) -> Callable[..., None]:
    """Give a command one option for each of these recipe keys, collected in its `options` argument."""

    def run(**arguments: Any) -> None:
        options = {key: arguments.pop(key) for key in keys}
        command(options=options, **arguments)

    own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "options"]
    added = [
        inspect.Parameter(
            key,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                bool | None if field.annotation is bool else str | None,
                typer.Option(
                    help=(field.description or "") + _default(field),
                    metavar=_metavar(field.annotation),
                    rich_help_panel="Recipe keys (defaults in brackets)",
                ),
            ],
        )
        for key, field in Recipe.model_fields.items()
        if key in keys
    ]
    run.__signature__ = inspect.Signature(own + added)  # type: ignore[attr-defined]
    run.__doc__, run.__name__ = command.__doc__, command.__name__
    run.__annotations__ = {p.name: p.annotation for p in own + added}
    return run


def _default(field: FieldInfo) -> str:
    """The default in brackets, where there is one to tell."""
    value = field.get_default(call_default_factory=True)
    return f" [{value}]" if value or (value == 0 and value is not False) else ""


def _metavar(annotation: Any) -> str | None:
    if get_origin(annotation) is Literal:
        return "|".join(map(str, get_args(annotation)))
    names: dict[Any, str | None] = {int: "INTEGER", float: "NUMBER", str: "TEXT", bool: None, int | None: "INTEGER"}
    names |= {dict[str, str]: "NAME=VALUE,...", tuple[str, ...]: "CODE,..."}
    return names.get(annotation, "NUMBER|auto")
