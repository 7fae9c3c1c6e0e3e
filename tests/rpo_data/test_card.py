"""The card: what it says is in the manifest, and text of the data stays text."""

import html
import json
import re
from dataclasses import replace

import pytest
import yaml

from rpo_data import Recipe, build
from rpo_data.card import dataset_card, plain

NASTY = (
    "</details><script>alert(1)</script> | --- ![x](javascript:alert(1)) `` ``` $x$ ~~a~~ @all www.evil.com https://e.com"
    "\n# big\n---"
)


@pytest.fixture(scope="module", params=["paired", "unpaired", "scored"])
def data(request, tmp_path_factory, cache_dir):
    folder = tmp_path_factory.mktemp(request.param)
    records = []
    for n in range(16):
        record = {"prompt": f"{NASTY} {n}", "language": ["de", "en", None, "unknown"][n % 4]}
        if request.param == "paired":
            record |= {"chosen": f"{NASTY} good {n}", "rejected": f"bad {n}"}
        elif request.param == "unpaired":
            record |= {"completion": f"{NASTY} {n}", "label": n % 2 == 0}
        else:
            record |= {
                "chosen": f"{NASTY} good {n}",
                "rejected": f"bad {n}",
                "score_chosen": 5 + n,
                "score_rejected": n % 3,
            }
        records.append(record)
    logs = folder / "a|b.jsonl"
    logs.write_text("".join(json.dumps(record) + "\n" for record in records))
    recipe = Recipe(embedder="static", mode=request.param, test_fraction=0, group_size=4, mix_languages=True)
    return build(logs, folder / "out", recipe, cache_dir=cache_dir)


@pytest.fixture(scope="module")
def tables(data):
    rows = "pairs" if data.paired else "responses"
    return {name: {s: len(t) for s, t in table.items()}
            for name, table in {rows: data.rows, "groups": data.groups, "neighbors": data.neighbors}.items()}  # fmt: skip


@pytest.fixture(scope="module")
def card(data, tables):
    return dataset_card(data, "me/data", {"a|b.jsonl": "mit"}, tables)


def test_metadata(card, data, tables):
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["license"] == "mit"
    assert head["language"] == ["de", "en"]
    assert head["size_categories"] == ["n<1K"]
    assert [config["config_name"] for config in head["configs"]] == list(tables)
    assert head["configs"][0]["default"] is True


def test_several_licences_are_all_named(data, tables):
    text = dataset_card(data, "me/data", {"a|b.jsonl": "mit", "c.jsonl": "cc-by-4.0"}, tables)
    assert yaml.safe_load(text.split("---\n")[1])["license"] == ["cc-by-4.0", "mit"]


def test_figures_are_those_of_the_manifest(card, data):
    quality = data.manifest.quality
    assert f"| {quality.mean_similarity:.3f} | {quality.random_similarity:.3f} |" in card
    assert f"| {quality.effective_contrasts:.3f} | {quality.random_contrasts:.3f} |" in card
    assert f"temperature {data.manifest.temperatures}" in card
    read, kept = data.manifest.sources[0].records_read, data.manifest.sources[0].rows_kept
    assert f"{kept:,} {data.manifest.what} in contrast groups of 4" in card
    assert f"{read:,} log records" in card


def test_text_of_the_data_does_nothing(card):
    body = card.split("## Three groups to read")[1].split("## Licence")[0]
    assert "alert" in body
    for mark in ("<script", "`", "](", "$x$", "~~", "@all", "www.evil", "https://", "javascript:a", "\n# big"):
        assert mark not in body, mark
    assert body.count("<details>") == body.count("</details>") == body.count("<summary>") > 0
    rows = [line for line in body.splitlines() if line.startswith("| ")]
    assert len({line.count("|") for line in rows}) == 1
    assert re.search(r"^\| a&#124;b\.jsonl \| mit \|$", card, re.MULTILINE)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Plain words, 3.5 and more! (so)", "Plain words, 3.5 and more! (so)"),
        ("a*b*", "a&#42;b&#42;"),
        ("_a_", "&#95;a&#95;"),
        ("[a](b)", "&#91;a&#93;(b)"),
        ("a|b", "a&#124;b"),
        ("<b> &lt;", "&lt;b&gt; &amp;lt;"),
        ("\\*", "&#92;&#42;"),
        ("a\u202eb\x00", "a b "),
        ("می\u200cخواهم 👩\u200d👧", "می\u200cخواهم 👩\u200d👧"),
        ("http://x.y: :smile:", "http&#58;//x.y: &#58;smile:"),
        ("www.a.b", "www&#46;a.b"),
    ],
)
def test_plain_text(text, shown):
    assert plain(text) == shown


def test_a_setting_reads_as_it_was_written(data, tables):
    recipe = data.manifest.recipe.model_copy(update={"embed_text": "last_user", "prompt_prefix": "<b>`query: "})
    other = replace(data, manifest=data.manifest.model_copy(update={"recipe": recipe}))
    text = dataset_card(other, "me/data", {"a|b.jsonl": "mit"}, tables)
    shown = [html.unescape(setting) for setting in re.findall(r"<code>(.*?)</code>", text)]
    assert {"embed_text: last_user", "prompt_prefix: <b>`query: ", "group_size: 4"} <= set(shown)
    assert "<b>" not in text


def test_a_group_of_one_pair_has_no_mean_cosine(tmp_path, cache_dir):
    logs = tmp_path / "logs.jsonl"
    logs.write_text('{"prompt": "p", "chosen": "a", "rejected": "b"}\n')
    data = build(logs, tmp_path / "out", Recipe(embedder="static", test_fraction=0), cache_dir=cache_dir)
    text = dataset_card(data, "me/data", {"logs.jsonl": "mit"}, {"pairs": {"train": 1}, "groups": {"train": 1}})
    assert re.findall("<summary>(.*?)</summary>", text) == ["Most related: train-0-0, mean cosine none"]


def test_sections_a_person_looks_for(card):
    wanted = [
        "Tables", "How to load it", "How it was made", "How good the groups are", "Three groups to read", "Licence", "Limits",
        "Citation",
    ]  # fmt: skip
    assert re.findall(r"^## (.*)$", card, re.MULTILINE) == wanted


def test_code_fits_the_kind_of_rows(card, data):
    assert ("DPOTrainer" in card) == ("field_messages: prompt" in card) == data.paired
    assert ("KTOTrainer" in card) == (data.manifest.mode == "unpaired")
    assert 'load("me/data")' in card


def test_plots_stand_where_they_are_given(data, tables):
    text = dataset_card(data, "me/data", {"a": "mit"}, tables, plots={"plots/similarity.png": "similarity of cells"})
    assert "![similarity of cells](plots/similarity.png)" in text
