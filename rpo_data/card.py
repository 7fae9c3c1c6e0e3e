"""The page of a dataset on the Hub: what it is, how it was made, how to load it, what to mind. README.md, with its metadata."""

import hashlib
import html
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from rpo_data.dataset import ContrastDataset, judgement
from rpo_data.schemas.citation import CITATION
from rpo_data.schemas.manifest import Manifest
from rpo_data.schemas.rules import RULES

_SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M", 10_000_000: "1M<n<10M"}
_TAGS = ["preference-optimization", "preference", "rlhf", "dpo", "contrast-groups", "rpo-data"]
_CALLS = "Messages call tools here: `datasets` 4.7 or newer is needed, which reads the calls as JSON.\n\n"
_JOINERS = "\u200c\u200d"  # Persian, Hindi and emoji are spelled with them
_CHARACTERS = 160  # shown of each text of an example
_ABOUT = {
    "pairs": "one row = prompt, chosen, rejected: TRL's preference format",
    "responses": "one row = prompt, completion, label or score",
    "groups": "one row = one contrast group: which rows of `{rows}` it holds, similarity and weight of each cell",
    "neighbors": "one row = one prompt: its nearest prompts, as a graph",
    "unpaired": "the same responses one by one, with a label: TRL's unpaired preference format",
    "llamafactory": "those dialogues that LLaMA-Factory can read (user and assistant in turn, no tools), in its form",
}


def dataset_card(
    data: ContrastDataset,
    repository: str,
    licenses: Mapping[str, str],
    tables: Mapping[str, Mapping[str, int]],
    plots: Mapping[str, str] | None = None,
    calls: bool = False,
) -> str:
    """The card as text; equal datasets give equal text.

    Args:
        data: the dataset.
        repository: USER/NAME, for the lines of code.
        licenses: licence by source.
        tables: rows by table and split; the first table is the default one of `load_dataset`.
        plots: what a plot shows, by its path in the repository.
        calls: messages call tools, which old versions of `datasets` cannot read.
    """
    manifest = data.manifest
    sections = [
        f"---\n{yaml.safe_dump(_metadata(data, licenses, tables), sort_keys=False, allow_unicode=True)}---",
        f"# {repository.partition('/')[2]}",
        _what(manifest),
        "## Tables\n\n" + _tables(tables),
        "## How to load it\n\n" + (_CALLS if calls else "") + how_to_load(manifest, repository, tables),
        "## How it was made\n\n" + _made(manifest),
        "## How good the groups are\n\n" + _quality(manifest, plots or {}),
        "## Three groups to read\n\n" + _examples(data),
        "## Licence\n\n" + _licences(licenses),
        "## Limits\n\n" + _limits(manifest),
        f"## Citation\n\n```bibtex\n{CITATION}\n```",
        f"sha256 of `manifest.json`: `{hashlib.sha256(manifest.to_json().encode()).hexdigest()}`",
    ]
    return "\n\n".join(sections) + "\n"


def _metadata(
    data: ContrastDataset, licenses: Mapping[str, str], tables: Mapping[str, Mapping[str, int]]
) -> dict[str, Any]:
    """What the Hub reads: licence, languages, size, and which files are which split of which table."""
    used = sorted(set(licenses.values()))
    known = {language for split in data.splits for language in data.rows[split].unique("language")}
    languages = sorted(code for code in known if code and re.fullmatch(r"[a-z]{2,3}", code))
    rows = sum(next(iter(tables.values())).values())
    configs = []
    for number, (name, splits) in enumerate(tables.items()):
        files = [{"split": split, "path": f"{name}/{split}-*.parquet"} for split in splits]
        configs.append({"config_name": name, **({"default": True} if number == 0 else {}), "data_files": files})
    return {
        "license": used[0] if len(used) == 1 else used,
        **({"language": languages} if languages else {}),
        "tags": _TAGS,
        "size_categories": [next((text for limit, text in _SIZES.items() if rows < limit), "n>10M")],
        "configs": configs,
    }


def _what(manifest: Manifest) -> str:
    recipe = manifest.recipe
    read = sum(source.records_read for source in manifest.sources)
    kept = sum(source.rows_kept for source in manifest.sources)
    return (
        f"{kept:,} {manifest.what} in contrast groups of {recipe.group_size}, for "
        "[Relative Preference Optimization](https://arxiv.org/abs/2402.10958) and for any trainer of preferences. Each chosen "
        "response of a group is contrasted with every rejected one, also of other prompts, and the closer two prompts are "
        "the more their contrast weighs. Here such prompts stand together: groups and weights were mined once, from "
        f"{read:,} log records, and are stored as data."
    )


def _tables(tables: Mapping[str, Mapping[str, int]]) -> str:
    rows = next(iter(tables))
    names = sorted({split for splits in tables.values() for split in splits}, reverse=True)
    lines = [f"| `{name}` | {_ABOUT[name].format(rows=rows)} | " + " | ".join(_count(splits, split) for split in names) + " |"
             for name, splits in tables.items()]  # fmt: skip
    head = "| config | holds | " + " | ".join(names) + " |"
    return "\n".join([head, "|---|---|" + "---:|" * len(names), *lines])


def _count(splits: Mapping[str, int], split: str) -> str:
    return f"{splits[split]:,}" if split in splits else "-"


def how_to_load(manifest: Manifest, repository: str, tables: Mapping[str, Mapping[str, int]]) -> str:
    """Code for each tool that reads this dataset; every block is run by a test."""
    rows = next(iter(tables))
    first = next(iter(tables[rows]))
    parts = [
        "With `datasets`:",
        _code("python", f"""
            from datasets import load_dataset

            rows = load_dataset("{repository}", split="{first}")
            groups = load_dataset("{repository}", "groups", split="{first}")
            group = groups[0]
            wins = rows.select(group["win_rows"])
            losses = rows.select(group["loss_rows"])
        """),
        "With rpo-data, which checks that the tables belong together, and trains from the groups:",
        _code("python", f"""
            from rpo_data import load

            data = load("{repository}")
            group = data.group(data.view("{first}", 0)[0]["group_id"])
        """),
        _code("bash", f"rpo-data train {repository} --model your/model --out run --learning-rate 1e-6"),
    ]  # fmt: skip
    trl = _trl(manifest, repository, first)
    if trl:
        parts += ["With TRL:", _code("python", trl)]
    if manifest.paired:
        parts += ["With Axolotl:", _code("yaml", f"""
            rl: dpo
            datasets:
              - path: {repository}
                name: pairs
                split: {first}
                type: chat_template.default
                field_messages: prompt
        """)]  # fmt: skip
    if "llamafactory" in tables:
        loss = "stage: dpo" if manifest.paired else "stage: kto"
        parts += ["With LLaMA-Factory, which finds `dataset_info.json` here:", _code("yaml", f"""
            {loss}
            dataset_dir: REMOTE:{repository}
            dataset: {repository.partition("/")[2]}
        """)]  # fmt: skip
    return "\n\n".join(parts)


def _trl(manifest: Manifest, repository: str, split: str) -> str:
    if manifest.mode == "scored":
        return ""
    kind = "DPO" if manifest.paired else "KTO"
    return f"""
        from datasets import load_dataset
        from trl import {kind}Config, {kind}Trainer

        rows = load_dataset("{repository}", split="{split}")
        trainer = {kind}Trainer("your/model", args={kind}Config("run"), train_dataset=rows)
        trainer.train()
    """


def _code(language: str, text: str) -> str:
    lines = text.strip("\n").rstrip().split("\n")
    margin = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    return f"```{language}\n" + "\n".join(line[margin:] for line in lines) + "\n```"


def _made(manifest: Manifest) -> str:
    recipe, model, search = manifest.recipe, manifest.embedder, manifest.neighbors
    sources = [
        f"| {plain(s.name)} | {s.records_read:,} | {s.records_rejected:,} | {s.rows_merged:,} | {s.rows_rejected:,} "
        f"| {s.rows_kept:,} |"
        for s in manifest.sources
    ]
    left_out = [f"| `{code}` | {number:,} | {RULES[code].reason} |" for code, number in manifest.left_out.items()]
    changed = type(recipe)().model_dump()
    settings = [
        f"<code>{key}: {plain(str(value))}</code>"  # between backticks what `plain` writes would not be read
        for key, value in recipe.model_dump().items()
        if value != changed[key] and key != "license"
    ]
    parts = [
        f"By rpo-data {manifest.rpo_data_version}: logs were read and checked, prompts embedded with {plain(model.name)} "
        f"({model.dimension} dimensions, content hash `{model.content_hash[:12]}`), each prompt's {search.k} nearest prompts "
        f"found (recall {search.recall:.3f}, index {plain(search.index)}), and rows put into groups (strategy "
        f"{recipe.strategy}, {recipe.views} view{'s' * (recipe.views != 1)}). Weights: temperature {manifest.temperatures}, "
        f"normalised by {recipe.normalize}. `manifest.json` holds every count and setting.",
        "Settings that differ from the defaults: " + (", ".join(settings) or "none") + ".",
        "\n".join(
            [
                "| source | records read | rejected | rows merged | rows rejected | rows kept |",
                "|---|" + "---:|" * 5,
                *sources,
            ]
        ),
        "\n".join(["| left out as | number | because |", "|---|---:|---|", *left_out])
        if left_out
        else "Nothing was left out.",
    ]
    return "\n\n".join(parts)


def _quality(manifest: Manifest, plots: Mapping[str, str]) -> str:
    quality, mined, random = manifest.quality, manifest.quality.mined, manifest.quality.random
    rows = [
        ("mean cosine of two prompts of a group", quality.mean_similarity, quality.random_similarity),
        ("effective contrasts of a win (exp of the entropy of its weights)", quality.effective_contrasts,
         quality.random_contrasts),
    ]  # fmt: skip
    lines = [f"| {text} | {_figure(ours)} | {_figure(theirs)} |" for text, ours, theirs in rows]
    if mined and random:
        lines.append(f"| losses that are hubs (column sum above twice the mean) | {mined.hubs:,} | {random.hubs:,} |")
    if quality.nearest_similarity is not None:
        lines.append(
            f"| bound of the cosine: every row with its nearest ones | {_figure(quality.nearest_similarity)} | |"
        )
    masked = ", ".join(f"{number:,} {reason}" for reason, number in quality.masked_cells.items() if number) or "none"
    warnings = [f"- {plain(warning)}" for warning in manifest.warnings]
    parts = [
        *(f"![{caption}]({path})" for path, caption in plots.items()),
        "On the train split, beside random groups of the same rows and sizes at the paper's temperature of 0.5:",
        "\n".join(["| figure | these groups | random groups |", "|---|---:|---:|", *lines]),
        f"Of {quality.cells:,} cells these are masked, as the logs do not bear out that the win is better: {masked}.",
    ]
    return "\n\n".join(parts + (["The build warned:\n\n" + "\n".join(warnings)] if warnings else []))


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _examples(data: ContrastDataset) -> str:
    """The most, the middle and the least related group of the train split."""
    ranked = data.ranked_groups(data.splits[0])
    places = {"Most related": 0, "In the middle": len(ranked) // 2, "Least related": len(ranked) - 1}
    shown: dict[int, str] = {}
    for title, place in places.items():
        group_id, mean = ranked[place]
        told = _figure(None if math.isnan(mean) else mean)
        shown.setdefault(place, _example(data.group(group_id), f"{title}: {group_id}, mean cosine {told}"))
    return "\n\n".join(shown.values())


def _example(group: Mapping[str, Any], title: str) -> str:
    if "chosen" in group["wins"][0]:
        head = "| prompt, last turn | chosen | rejected |\n|---|---|---|"
        lines = [
            f"| {_last(row['prompt'])} | {_last(row['chosen'])} | {_last(row['rejected'])} |" for row in group["wins"]
        ]
    else:
        head = "| | prompt, last turn | completion | judged |\n|---|---|---|---|"
        sides = [("win", row) for row in group["wins"]] + [("loss", row) for row in group["losses"]]
        lines = [
            f"| {side} | {_last(row['prompt'])} | {_last(row['completion'])} | {judgement(row)} |"
            for side, row in sides
        ]
    return "\n".join([f"<details><summary>{title}</summary>\n", head, *lines, "\n</details>"])


def _last(messages: Sequence[Mapping[str, Any]]) -> str:
    text = " ".join((messages[-1]["content"] or "(tool call)").split())
    return plain(text if len(text) <= _CHARACTERS else text[: _CHARACTERS - 1] + "…")


def plain(text: str) -> str:
    """Text of the data as Markdown that shows it and does nothing: no tag, link, mention, formula or table cell.

    >>> plain("a|b <c> *d*")
    'a&#124;b &lt;c&gt; &#42;d&#42;'
    """
    kept = (c if c.isprintable() or c in _JOINERS else " " for c in text)
    shown = html.escape("".join(kept), quote=False)
    return re.sub(r"[`*_\[\]|~$@\\]|:(?=\S)|(?<=www)\.", lambda match: f"&#{ord(match[0])};", shown)


def _licences(licenses: Mapping[str, str]) -> str:
    lines = [f"| {plain(source)} | {plain(licence)} |" for source, licence in licenses.items()]
    return "As the person who pushed this dataset states them:\n\n" + "\n".join(
        ["| source | licence |", "|---|---|", *lines]
    )


def _limits(manifest: Manifest) -> str:
    cut = manifest.embedder.max_tokens
    points = [
        "A contrast between two prompts assumes that the chosen response of one is better than the rejected response of the "
        "other. Where the logs say otherwise the cell is masked; where they are silent it is not.",
        "Whether mined groups train a better model than random ones is not known.",
        f"Similarity is what {plain(manifest.embedder.name)} takes it to be"
        + (f"; of long prompts it sees the last {cut} tokens." if cut else "."),
        "Texts stand here as they stood in the logs"
        + (", with personal data redacted where it was recognised" if manifest.recipe.redact else "")
        + ": they may be wrong, hurtful or private.",
        f"Prompts with a cosine of {manifest.recipe.duplicate_score:g} or more stand in one split, as far as the search found "
        "them; more distant paraphrases may stand in two.",
    ]
    return "\n".join(f"- {point}" for point in points)
