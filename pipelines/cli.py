"""The command line: parse, call, print. `rpo-data` = `rpo_data.pipelines.cli:main`."""

import json
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from rpo_data.errors import RecipeError, RpoDataError
from rpo_data.pipelines import console
from rpo_data.pipelines.console import StageProgress, Stopped, log, need_extra, out, say, with_recipe_options
from rpo_data.schemas.recipe import Recipe

app = typer.Typer(
    help="Turn raw preference logs into mined contrast datasets, and train from them with Relative Preference "
    "Optimization (arXiv 2402.10958).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
CacheDir = Annotated[
    Path | None, typer.Option(help="Where vectors and finished stages are kept [$XDG_CACHE_HOME/rpo-data].")
]
DatasetName = Annotated[str, typer.Argument(help="Folder that `rpo-data build` wrote, or USER/NAME on the Hub.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a dataset on the Hub.")]


@app.command()
@with_recipe_options
def build(
    logs: Annotated[
        list[str],
        typer.Argument(
            help="Preference logs: files (JSON lines, JSON, CSV, Parquet), globs, folders, or a Hub dataset."
        ),
    ],
    out_dir: Annotated[Path, typer.Option("--out", help="Folder to write. A dataset of ours in it is replaced.")],
    options: dict[str, Any],
    recipe: Annotated[Path | None, typer.Option(help="YAML file with recipe keys.")] = None,
    limit: Annotated[int | None, typer.Option(help="Read this many records at most.", min=1)] = None,
    previous: Annotated[
        Path | None,
        typer.Option(help="Earlier dataset: its test prompts stay test prompts, its train prompts stay in train."),
    ] = None,
    evaluation: Annotated[
        list[str] | None,
        typer.Option("--eval", help="File of an evaluation set: rows that overlap with it are left out."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read and check only; write nothing but the cache.")
    ] = False,
    batch_size: Annotated[int, typer.Option(help="Prompts embedded between two writes to the cache.", min=1)] = 1024,
    cache_dir: CacheDir = None,
) -> None:
    """Build a mined contrast dataset from raw chosen/rejected logs.

    Example: rpo-data build logs/*.jsonl.gz --out dataset --group-size 8
    """
    need_extra("build", "faiss", "numba", "pandera", "polars", "py3langid", "scipy", "sentence_transformers")
    from rpo_data.pipelines.build import build as run
    from rpo_data.pipelines.checking import read_and_check
    from rpo_data.pipelines.recipes import load_recipe
    from rpo_data.pipelines.store import cache_folder

    settings = load_recipe(recipe, options)
    with StageProgress() as track:
        if dry_run:
            read_and_check(
                logs,
                settings,
                limit=limit,
                cache=cache_folder(cache_dir),
                evaluation=evaluation or (),
                say=say,
                track=track,
            )
            say(f"dry run: {out_dir} was not written")
            return
        dataset = run(
            logs,
            out_dir,
            settings,
            limit=limit,
            previous=previous,
            evaluation=evaluation or (),
            cache_dir=cache_dir,
            batch_size=batch_size,
            say=say,
            track=track,
        )
    for warning in dataset.manifest.warnings:
        log.print(f"[yellow]warning[/] {warning}")
    say(f"wrote   {out_dir}: look at a group with: rpo-data show {out_dir}")


@app.command("lint")
@with_recipe_options
def lint_logs(
    logs: Annotated[list[str], typer.Argument(help="Preference logs, as for build.")],
    options: dict[str, Any],
    near: Annotated[bool, typer.Option("--near", help="Look for nearly equal rows (MinHash).")] = False,
    semantic: Annotated[
        bool, typer.Option("--semantic", help="Embed the prompts; look for contradictions and duplicates in meaning.")
    ] = False,
    evaluation: Annotated[
        list[str] | None, typer.Option("--eval", help="File of an evaluation set that prompts must not overlap with.")
    ] = None,
    off: Annotated[str, typer.Option(help="Rules that are not looked for: CODE,CODE.")] = "",
    examples: Annotated[int, typer.Option(help="Examples shown of each finding.", min=0)] = 3,
    limit: Annotated[int | None, typer.Option(help="Read this many records at most.", min=1)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    cache_dir: CacheDir = None,
) -> None:
    """Say what preference logs hold and what is wrong with them. Exit status 3 where a fault is MAJOR.

    Example: rpo-data lint logs/*.jsonl.gz
    """
    need_extra("build", "faiss", "numba", "pandera", "polars", "py3langid", "scipy", "sentence_transformers")
    from rpo_data.pipelines.lint import lint, print_findings
    from rpo_data.pipelines.recipes import load_recipe, nearest
    from rpo_data.schemas.rules import RULES

    codes = [code.strip() for code in off.split(",") if code.strip()]
    for code in codes:
        if code not in RULES:
            raise RecipeError(f"--off names '{code}', which is no rule{nearest(code, RULES)}")
    with StageProgress() as track:
        report = lint(
            logs,
            load_recipe(None, options),
            limit=limit,
            near=near,
            semantic=semantic,
            evaluation=evaluation or (),
            off=codes,
            examples=examples,
            cache_dir=cache_dir,
            track=track,
        )
    if as_json:
        sys.stdout.write(report.model_dump_json(indent=2) + "\n")
    else:
        print_findings(out, report)
    sys.exit(3 if report.verdict == "MAJOR" else 0)


# written out, since the pipeline is imported only when it runs
_REGROUP_KEYS = (
    "group_size", "views", "strategy", "seed", "min_score", "max_score", "range_min", "range_max", "mix_languages",
    "temperature", "normalize", "scale",
)  # fmt: skip


@app.command("regroup")
@partial(with_recipe_options, keys=_REGROUP_KEYS)
def regroup_dataset(
    dataset: Annotated[Path, typer.Argument(help="Folder that `rpo-data build` wrote.")],
    out_dir: Annotated[Path, typer.Option("--out", help="Folder to write. A dataset of ours in it is replaced.")],
    options: dict[str, Any],
    cache_dir: CacheDir = None,
) -> None:
    """Make other groups or weights from a dataset's stored vectors and neighbours; nothing is embedded or searched.

    Example: rpo-data regroup dataset --out dataset-sinkhorn --normalize sinkhorn --temperature 0.3
    """
    need_extra("build", "faiss", "numba", "polars", "scipy")
    from rpo_data.pipelines.regroup import regroup

    changes = {key: value for key, value in options.items() if value is not None}
    dataset_of = regroup(dataset, out_dir, changes, cache_dir=cache_dir, say=say)
    for warning in dataset_of.manifest.warnings:
        log.print(f"[yellow]warning[/] {warning}")
    say(f"wrote   {out_dir}: look at a group with: rpo-data show {out_dir}")


@app.command()
def show(
    dataset: DatasetName,
    group: Annotated[
        str | None, typer.Option(help="Id of the group, such as train-0-12. [the middle one by similarity]")
    ] = None,
    best: Annotated[bool, typer.Option("--best", help="The group of the most similar prompts.")] = False,
    worst: Annotated[bool, typer.Option("--worst", help="The group of the least similar prompts.")] = False,
    hubs: Annotated[bool, typer.Option("--hubs", help="The group with the heaviest column.")] = False,
    masked: Annotated[bool, typer.Option("--masked", help="The group with the most masked cells.")] = False,
    characters: Annotated[int, typer.Option(help="Characters shown of each text.", min=10)] = 80,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole group as JSON.")] = False,
    revision: Revision = None,
) -> None:
    """Show one contrast group: its prompts, answers, similarities and weights.

    Example: rpo-data show dataset --group train-0-12
    """
    from rpo_data.dataset import load
    from rpo_data.pipelines.show import print_group

    if sum([group is not None, best, worst, hubs, masked]) > 1:
        raise typer.BadParameter("give one of --group, --best, --worst, --hubs and --masked")
    data = load(dataset, revision)
    ranked = data.ranked_groups(by="hubs" if hubs else "masked" if masked else "similarity")
    if masked and not ranked[0][1]:
        log.print("no cell of the train split is masked")
        return
    place = -1 if worst else 0 if best or hubs or masked else len(ranked) // 2
    row = data.group(group or ranked[place][0])
    if as_json:
        sys.stdout.write(json.dumps(row, ensure_ascii=False, indent=2) + "\n")
    else:
        print_group(out, row, characters)


@app.command("report")
def write_page(
    dataset: Annotated[Path, typer.Argument(help="Folder that `rpo-data build` wrote.")],
    cache_dir: CacheDir = None,
) -> None:
    """Write a dataset's report.html anew: one self-contained page on what was lost, what mining did, and how groups look.

    Example: rpo-data report dataset
    """
    need_extra("build", "jinja2", "polars", "vl_convert")
    from rpo_data.dataset import load_folder
    from rpo_data.pipelines.report import write_report
    from rpo_data.pipelines.store import cache_folder

    say(f"wrote   {write_report(load_folder(dataset), dataset, cache_folder(cache_dir))}")


@app.command("explore")
def explore_dataset(
    dataset: Annotated[Path, typer.Argument(help="Folder that `rpo-data build` wrote.")],
    port: Annotated[int, typer.Option(help="Port on this machine.", min=1, max=65535)] = 5055,
    browse: Annotated[bool, typer.Option(help="Open the browser.")] = True,
    cache_dir: CacheDir = None,
) -> None:
    """Open an interactive map of the prompts: groups, neighbours, weights, search. Nothing leaves this machine.

    Example: rpo-data explore dataset
    """
    need_extra("explore", "polars", "embedding_atlas")
    from rpo_data.dataset import load_folder
    from rpo_data.pipelines.explore import explore
    from rpo_data.pipelines.store import cache_folder

    try:
        explore(load_folder(dataset), cache_folder(cache_dir), port=port, browse=browse, say=say)
    except Stopped:
        say("stopped")


@app.command()
def diff(
    before: DatasetName,
    after: Annotated[str, typer.Argument(help="Another one.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the difference as JSON.")] = False,
) -> None:
    """Show what changed between two datasets: settings, counts, reasons, quality, and rows that moved.

    Example: rpo-data diff dataset dataset-sinkhorn
    """
    need_extra("build", "polars")
    from rpo_data.dataset import load
    from rpo_data.difference import compare_datasets
    from rpo_data.pipelines.diff import print_difference

    difference = compare_datasets(load(before), load(after))
    if as_json:
        sys.stdout.write(difference.model_dump_json(indent=2) + "\n")
    else:
        print_difference(out, difference)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def score(
    context: typer.Context,
    dataset: DatasetName,
    model: Annotated[str, typer.Option(help="Reference model: a folder or a Hub id.")],
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Folder of a store of its own; train takes it as --cache-dir.")
    ] = None,
    verify: Annotated[int, typer.Option(help="Compute this many sequences again and compare.", min=0)] = 0,
    config: Annotated[Path | None, typer.Option(help="YAML file with RPOConfig fields, as for train.")] = None,
    revision: Revision = None,
) -> None:
    """Compute the reference log-probs of a dataset ahead of training. Any RPOConfig field is an option, as for train.

    Example: rpo-data score dataset --model M --max-length 512 --bf16 --verify 20
    """
    need_extra("train", "accelerate", "torch", "transformers")
    from rpo_data.dataset import load
    from rpo_data.pipelines.score import score as run
    from rpo_data.pipelines.train_settings import read_settings

    settings = read_settings(config, context.args)
    if out_dir is not None and "cache_dir" in settings:
        raise typer.BadParameter("give one of --out and --cache-dir")
    with StageProgress() as track:
        run(load(dataset, revision), model, settings, out=out_dir, verify=verify, say=say, progress=track)
    console.leave_processes()


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def train(
    context: typer.Context,
    dataset: DatasetName,
    model: Annotated[str, typer.Option(help="Causal language model: a folder or a Hub id.")],
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for checkpoints and the trained model.")],
    config: Annotated[Path | None, typer.Option(help="YAML file with RPOConfig fields.")] = None,
    compare: Annotated[
        str | None,
        typer.Option(
            help="Train with this loss_type too, into OUT/compare-LOSS, and show both: dpo, or another of rpo, uniform, "
            "dpo, diagonal, ipo, lipo, joint."
        ),
    ] = None,
    revision: Revision = None,
) -> None:
    """Train a model from the precomputed groups. Any RPOConfig field is an option; a checkpoint in --out is resumed.

    Besides those of transformers' TrainingArguments they are --beta, --loss-type, --temperature, --normalize,
    --diagonal-alpha, --max-length, --disable-dropout, --share-prompts, --micro-batch-size and --cache-dir:
    docs/training.md lists them with their defaults under "Options of RPOConfig".

    Adapters are trained where an option begins with --lora-, such as --lora-r 16 (fields of peft.LoraConfig).

    Example: rpo-data train dataset --model M --out run --learning-rate 1e-6 --num-train-epochs 1
    """
    need_extra("train", "accelerate", "torch", "transformers")
    from rpo_data.dataset import load
    from rpo_data.pipelines import compare as comparison
    from rpo_data.pipelines.train import last_checkpoint, read_settings
    from rpo_data.pipelines.train import train as run

    settings = read_settings(config, context.args)
    data = load(dataset, revision)
    with StageProgress() as track:
        try:
            if compare:
                comparison.compare(data, model, out_dir, settings, compare, say=say, progress=track)
            else:
                run(data, model, out_dir, settings, say=say, progress=track)
        except Stopped:
            folders = [out_dir / f"compare-{compare}"] * bool(compare) + [out_dir]
            kept = next(filter(None, map(last_checkpoint, folders)), None)
            what = f"the same command goes on from {kept}" if kept else "no checkpoint was saved yet (--save-steps)"
            log.print(f"stopped; {what}", markup=False)
            sys.exit(130)
    console.leave_processes()


@app.command()
def push(
    dataset: Annotated[Path, typer.Argument(help="Folder that `rpo-data build` wrote.")],
    repository: Annotated[str, typer.Argument(help="Where on the Hugging Face Hub: USER/NAME.")],
    licence: Annotated[str, typer.Option("--license", help="Licence of the logs: ID, or FILE=ID,FILE=ID.")] = "",
    private: Annotated[bool, typer.Option("--private", help="A new repository is private.")] = False,
    branch: Annotated[str, typer.Option(help="Branch to commit to.")] = "main",
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request instead.")] = False,
    tag: Annotated[str | None, typer.Option(help="Name this version, such as v1.")] = None,
    unpaired: Annotated[bool, typer.Option("--unpaired", help="Add the responses one by one, for KTO.")] = False,
    llamafactory: Annotated[bool, typer.Option("--llamafactory", help="Add a table for LLaMA-Factory.")] = False,
    message: Annotated[str | None, typer.Option(help="Of the commit.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go up, and the card.")] = False,
) -> None:
    """Put a dataset with its card on the Hugging Face Hub, in one commit. Log in before, with `hf auth login`.

    Example: rpo-data push dataset me/helpful-contrasts --license mit --private
    """
    from rpo_data.hub import Target
    from rpo_data.pipelines.push import EXTRAS, ask_licenses
    from rpo_data.pipelines.push import push as run

    licenses = Recipe(license=licence).license  # type: ignore[arg-type]
    if sys.stdin.isatty() and out.is_terminal:
        licenses = ask_licenses(dataset, licenses, typer.prompt)
    target = Target(repository, private=private, branch=branch, create_pr=create_pr, tag=tag)
    extras = [name for name, wanted in zip(EXTRAS, (unpaired, llamafactory), strict=True) if wanted]
    with StageProgress() as track:
        try:
            run(
                dataset,
                target,
                licenses=licenses,
                extras=extras,
                message=message,
                dry_run=dry_run,
                say=say,
                track=track,
            )
        except Stopped:
            kept = f"{repository} holds the old version or the new one, as a whole; what was uploaded is not sent again"
            log.print(f"stopped; {kept}", markup=False)
            sys.exit(130)


@app.command()
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Delete it.")] = False,
    cache_dir: CacheDir = None,
) -> None:
    """Show how much the cache holds (vectors, finished stages, reference log-probs), or clear it."""
    from rpo_data.pipelines.store import cache_folder, cache_sizes, clear_cache

    folder = cache_folder(cache_dir)
    for name, (files, size) in cache_sizes(folder).items():
        out.print(f"{name:<12}{files:>8,} files {size / 2**20:>12,.1f} MiB")
    if clear:
        clear_cache(folder)
        out.print(f"cleared {folder}")
    else:
        out.print(f"in {folder}; clear it with: rpo-data cache --clear")


def _stop(*_: object) -> None:
    raise Stopped


def main() -> None:
    """Run the command line; errors of ours become one line, and exit status 2 where an option or a recipe is wrong, else 1."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGINT, _stop)
    try:
        app()
    except RpoDataError as error:
        log.print(f"[bold red]error[/] {escape(str(error))}")
        sys.exit(2 if isinstance(error, RecipeError) else 1)
    except (OSError, EOFError, MemoryError) as error:
        log.print(
            f"[bold red]error[/] {escape(f'{type(error).__name__}: {error}')}: is there room, and may it be read?"
        )
        sys.exit(1)
    except Stopped:
        log.print("stopped; what is finished is kept in the cache, the same command goes on from there")
        sys.exit(130)


if __name__ == "__main__":
    main()
