"""docs/publishing.md: its commands and code run against the small Hub."""

import re
from pathlib import Path

from rpo_data.pipelines.push import EXTRAS, OWNED

PAGE = (Path(__file__).parents[2] / "docs" / "publishing.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_commands_and_code_run(hub, clients, pushed_dataset):
    commands = [line for block in blocks("bash") for line in block.splitlines()]
    assert [command.split()[:2] for command in commands] == [
        ["hf", "auth"], ["rpo-data", "push"], ["rpo-data", "push"], ["rpo-data", "train"],
    ]  # fmt: skip
    for command in commands[1:3]:
        _, push, folder, name, *options = command.split()
        assert (folder, name) == ("dataset", "user/name")
        done = clients.rpo_data(push, pushed_dataset.path, "me/data", *options)
        assert done.status == 0, done.stderr
    assert hub.count("commit") == 1
    python = blocks("python")
    assert len(python) == 3
    for code in python:
        ready = code.replace("user/name", "me/data").replace('"dataset"', f'"{pushed_dataset.path}"')
        done = clients.python(ready.replace(", private=True", ""))
    assert "unchanged me/data" in done.stdout


def test_options_and_paths_are_those_of_the_command(clients):
    documented = (
        set(re.findall(r"^\| `(--[\w-]+)`", PAGE, re.MULTILINE)) | {f"--{name}" for name in EXTRAS} | {"--dry-run"}
    )
    shown = set(re.findall(r"--[a-z][\w-]+", clients.rpo_data("push", "--help", COLUMNS="200").stdout))
    assert documented == shown - {"--help", "--no-private"}
    for path in (
        "pairs/a.parquet",
        "groups/a.parquet",
        "unpaired/a.parquet",
        "dataset_info.json",
        "manifest.json",
        "report.html",
    ):
        assert OWNED.fullmatch(path)
    for path in ("README.md", "LICENSE", "data/a.parquet", "pairs/a.txt", "pairs/x/a.parquet"):
        assert not OWNED.fullmatch(path)
