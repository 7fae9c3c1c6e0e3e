"""Recipes that are shipped load, and the page on recipes says what the code does."""

import re
from pathlib import Path

import pytest

from rpo_data.pipelines.recipes import load_recipe
from rpo_data.pipelines.train_settings import make_config, read_settings
from rpo_data.schemas.recipe import Recipe

ROOT = Path(__file__).parents[2]


def test_shipped_build_recipes():
    files = sorted((ROOT / "pipelines" / "recipes").glob("build-*.yaml"))
    assert files
    assert load_recipe(files[0]).embedder == "static"


def test_shipped_training_settings(tmp_path):
    files = list((ROOT / "pipelines" / "recipes").glob("train-*.yaml"))
    assert len(files) == 2
    for file in files:
        config = make_config(read_settings(file, []), tmp_path)
        assert config.beta == 0.1
    paper = make_config(read_settings(ROOT / "pipelines" / "recipes" / "train-paper.yaml", []), tmp_path)
    assert (paper.optim, paper.warmup_steps, paper.learning_rate) == ("rmsprop", 150, 5e-7)


def test_the_page_names_every_key_with_its_default():
    rows = re.findall(r"^\| (`.*?) \|(.*?)\|", (ROOT / "docs" / "recipe.md").read_text(), re.MULTILINE)
    documented = {}
    for keys, defaults in rows:
        names = re.findall(r"`(\w+)`", keys)
        values = [value.strip() for value in defaults.split(",")] if len(names) > 1 else [defaults.strip()]
        documented.update(zip(names, values, strict=True))
    defaults = {key: field.get_default(call_default_factory=True) for key, field in Recipe.model_fields.items()}
    nothing = ("", (), {}, None)
    assert documented == {key: "" if value in nothing else str(value) for key, value in defaults.items()}


def test_options_win_over_the_file(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("group_size: 4\nviews: 3\n")
    recipe = load_recipe(file, {"group_size": "6", "views": None})
    assert (recipe.group_size, recipe.views) == (6, 3)
    assert load_recipe() == Recipe()


@pytest.mark.parametrize(("value", "expected"), [("0.25", 0.25), (0.25, 0.25), ("auto", "auto")])
def test_temperature_is_a_number_or_auto(value, expected):
    assert load_recipe(None, {"temperature": value}).temperature == expected
