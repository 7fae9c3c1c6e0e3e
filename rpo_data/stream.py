"""Groups with their texts as a stream from the Hub: nothing is stored, and memory holds one group and what is read ahead."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from datasets import load_dataset

from rpo_data.dataset import read_manifest
from rpo_data.errors import DatasetError
from rpo_data.hub import commit_of, download, explained


def stream_groups(repository: str, split: str = "train", revision: str | None = None) -> Iterator[dict[str, Any]]:
    """The groups of view 0, in order, each as `ContrastDataset.group` gives it.

    Rows stand in the order of these groups, so each file is read once from front to back.

    Args:
        repository: USER/NAME.
        split: train or test.
        revision: branch, tag or commit; main where not given.

    Raises:
        DatasetError: the repository holds no such dataset or split, or its rows do not stand in the order of groups.
        HubError: there is no such repository or revision, or the Hub cannot be reached.
    """
    commit = commit_of(repository, revision)
    manifest = read_manifest(download(repository, commit, ["manifest.json"]))
    if split not in manifest.splits:
        raise DatasetError(f"there is no split '{split}' in {repository}; it has {', '.join(manifest.splits)}")
    with explained(repository):
        groups, rows = (
            load_dataset(repository, name, split=split, revision=commit, streaming=True)
            for name in ("groups", "pairs" if manifest.paired else "responses")
        )
        remaining, start = iter(rows), 0
        for group in islice(groups, manifest.splits[split].groups):
            named = sorted({*group["win_rows"], *group["loss_rows"]})
            texts = dict(zip(named, islice(remaining, len(named)), strict=False))
            if named != list(range(start, start + len(named))) or len(texts) != len(named):
                raise DatasetError(
                    f"group {group['group_id']} of {repository} does not follow the one before: load it whole"
                )
            start += len(named)
            yield group | {
                "wins": [texts[row] for row in group["win_rows"]],
                "losses": [texts[row] for row in group["loss_rows"]],
            }
