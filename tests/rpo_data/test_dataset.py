"""Opening a dataset: groups with their texts, and one clear sentence for whatever does not belong together."""

import json
import shutil

import numpy as np
import pytest
from datasets import load_from_disk
from tests_support import pair

from rpo_data import Recipe, build, load
from rpo_data.errors import DatasetError


@pytest.fixture(scope="module")
def original(tmp_path_factory, cache_dir):
    folder = tmp_path_factory.mktemp("dataset")
    logs = folder / "logs.jsonl"
    logs.write_text("".join(json.dumps(pair(n)) + "\n" for n in range(40)))
    recipe = Recipe(embedder="static", test_fraction=0.2, group_size=4, views=2)
    return build(logs, folder / "out", recipe, cache_dir=cache_dir)


@pytest.fixture
def copy(original, tmp_path):
    return shutil.copytree(original.path, tmp_path / "copy")


def test_a_group_with_its_texts(original):
    whole = [row["group_id"] for row in original.view("train", 1) if len(row["win_rows"]) == 4]
    group = original.group(whole[-1])
    assert group["view"] == 1
    assert len(group["wins"]) == len(group["losses"]) == len(group["weight"]) == 4
    for row, win in zip(group["win_rows"], group["wins"], strict=True):
        assert win == original.pairs["train"][row]
        assert win["chosen"][0]["content"].startswith("good answer")


def test_it_is_shown_by_its_tables_and_not_by_the_whole_manifest(original):
    assert "num_rows" in repr(original)
    assert "recipe" not in repr(original)


def test_groups_ranked_by_similarity(original):
    ranked = original.ranked_groups()
    assert sorted(group_id for group_id, _ in ranked) == sorted(original.view("train", 0)["group_id"])
    assert [mean for _, mean in ranked] == sorted((mean for _, mean in ranked), reverse=True)
    similarity = original.group(ranked[0][0])["similarity"]
    off_diagonal = [similarity[i][j] for i in range(4) for j in range(4) if i != j]
    assert ranked[0][1] == pytest.approx(sum(off_diagonal) / 12)


def test_groups_ranked_by_hubs_and_by_masked_cells(original):
    name, heaviest = original.ranked_groups(by="hubs")[0]
    weight = np.array(original.group(name)["weight"])
    assert heaviest == pytest.approx(weight.sum(axis=0).max() / weight.sum(axis=0).mean())
    everyone = [np.array(group["weight"]) for group in original.view("train", 0)]
    assert heaviest == pytest.approx(max(w.sum(axis=0).max() / w.sum(axis=0).mean() for w in everyone))
    name, most = original.ranked_groups(by="masked")[0]
    assert (
        most == max((weight == 0).sum() for weight in everyone) == (np.array(original.group(name)["weight"]) == 0).sum()
    )


def test_unknown_names_show_what_there_is(original):
    with pytest.raises(DatasetError, match=r"no group 'train-9-0' .* ids look like 'train-0-0'"):
        original.group("train-9-0")
    with pytest.raises(DatasetError, match="no split 'dev' in this dataset; it has train, test"):
        original.view("dev", 0)
    with pytest.raises(DatasetError, match="no view 2 in this dataset; it has 2"):
        original.view("train", 2)


def test_what_is_no_dataset(tmp_path):
    with pytest.raises(
        DatasetError, match="is no mined contrast dataset: it is not there; make one with: rpo-data build"
    ):
        load(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match=r"holds no manifest.json"):
        load(tmp_path)


def test_a_newer_format(copy):
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(manifest | {"format_version": 3}))
    with pytest.raises(DatasetError, match="has format version 3, this rpo-data reads up to 2: update rpo-data"):
        load(copy)


def test_version_1_is_read(copy):
    manifest = json.loads((copy / "manifest.json").read_text())
    for source in manifest["sources"]:
        del source["shapes"]
    del manifest["previous"]
    pairs = load_from_disk(str(copy / "pairs"))
    for split in pairs:
        pairs[split] = pairs[split].remove_columns("strength")
        manifest["tables"][f"pairs/{split}"] = pairs[split]._fingerprint
    pairs.save_to_disk(str(copy / "old"))
    shutil.rmtree(copy / "pairs")
    (copy / "old").rename(copy / "pairs")
    (copy / "manifest.json").write_text(json.dumps(manifest | {"format_version": 1}))
    assert "strength" not in load(copy).pairs["train"].column_names


@pytest.mark.parametrize("text", ["", "[]", '{"format_version": 1}', "{"])
def test_a_damaged_manifest(copy, text):
    (copy / "manifest.json").write_text(text)
    with pytest.raises(DatasetError, match=r"manifest.json is damaged"):
        load(copy)


def test_a_missing_or_damaged_table(copy):
    shutil.rmtree(copy / "groups" / "train")
    with pytest.raises(DatasetError, match="groups cannot be opened"):
        load(copy)


def test_tables_of_two_builds_are_not_mixed(original, copy, tmp_path, cache_dir):
    logs = tmp_path / "logs.jsonl"
    logs.write_text("".join(json.dumps(pair(n, chosen=f"another {n}")) + "\n" for n in range(40)))
    other = build(logs, tmp_path / "other", original.manifest.recipe, cache_dir=cache_dir)
    assert {s: len(rows) for s, rows in other.pairs.items()} == {s: len(rows) for s, rows in original.pairs.items()}
    shutil.rmtree(copy / "pairs")
    shutil.copytree(tmp_path / "other" / "pairs", copy / "pairs")
    with pytest.raises(DatasetError, match="is not the table that the manifest names"):
        load(copy)
