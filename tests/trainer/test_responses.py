"""Training from responses: sequences are prompt + completion, and cells of one prompt are own cells."""

import json
import math

import numpy as np
import pytest
from transformers import AutoTokenizer

from rpo_data import Recipe, build
from rpo_data.errors import TrainingError
from rpo_data.pipelines.train import train
from rpo_data.trainer import RPOTrainer
from rpo_data.trainer.data import GroupDataset
from rpo_data.trainer.tokenize import TokenCounts, tokenize_pairs


@pytest.fixture(scope="module")
def data(tmp_path_factory, cache_dir):
    """Yes is liked and no disliked, whatever the prompt; a third of the prompts have both."""
    folder = tmp_path_factory.mktemp("thumbs")
    labels = [(n, n % 3 == 0) for n in range(36)] + [(n, n % 3 != 0) for n in range(12)]
    records = [{"prompt": f"word {n}?", "completion": "yes" if y else "no", "label": y} for n, y in labels]
    (folder / "logs.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    recipe = Recipe(embedder="static", group_size=6, views=2, test_fraction=0.2, duplicate_score=1.001)
    return build(folder / "logs.jsonl", folder / "out", recipe, cache_dir=cache_dir)


def test_a_response_is_its_prompt_and_completion_as_in_a_pair(data, tiny_models):
    tokenizer = AutoTokenizer.from_pretrained(tiny_models["qwen2"])
    rows = data.responses["train"].to_list()
    pairs = [{**row, "chosen": row["completion"], "rejected": row["completion"]} for row in rows]
    one, other = tokenize_pairs(rows, tokenizer, what="responses"), tokenize_pairs(pairs, tokenizer)
    assert one.sequences.keys == other.sequences.keys
    assert len(one.sequences.keys) == len(rows) > 20
    assert one.chosen.tolist() == one.rejected.tolist() == list(range(len(rows)))
    assert one.counts == TokenCounts("responses", len(rows))
    shortest = int(one.sequences.lengths.min())
    cut = tokenize_pairs(rows, tokenizer, shortest - 1, what="responses").counts
    assert (cut.rows, cut.identical, cut.what) == (len(rows), 0, "responses")
    assert cut.prompts_cut + cut.responses_cut >= len(rows)


def test_own_cells_are_those_of_one_prompt(data, tiny_models, config):
    tokenizer = AutoTokenizer.from_pretrained(tiny_models["qwen2"])
    rows = data.responses["train"]
    groups = GroupDataset(data, "train", tokenize_pairs(rows, tokenizer, what="responses"), config())
    prompts, own = rows["prompt_id"][:], 0
    for number, group in enumerate(groups):
        stored = data.view("train", 0)[number]
        assert len(group.wins) == np.count_nonzero(stored["weight"])
        for win, loss, is_own in zip(group.wins, group.losses, group.own, strict=True):
            assert (prompts[win] == prompts[loss]) == is_own
            assert rows[win]["label"]
            assert not rows[loss]["label"]
            own += is_own
    assert own > 0


def test_a_model_learns_from_thumbs(data, tiny_models, tmp_path):
    lines = []
    settings = {"cache_dir": str(tmp_path / "cache"), "use_cpu": "true", "learning_rate": "1e-2", "logging_steps": "1"}
    result = train(data, str(tiny_models["qwen2"]), tmp_path / "out", settings | {"max_steps": 6}, say=lines.append)
    assert result["first_loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert result["last_loss"] < result["first_loss"]
    assert result["after"]["eval_loss"] < result["before"]["eval_loss"]
    count = len(data.responses["train"])
    assert lines[0] == f"tokens    train {count} responses, cut to max_length 1024: 0 prompts, 0 responses"


@pytest.mark.parametrize("loss_type", ["dpo", "diagonal"])
def test_losses_of_pairs_are_refused(data, tiny_models, config, loss_type):
    with pytest.raises(TrainingError, match=f"loss_type '{loss_type}' needs pairs, the dataset has responses"):
        RPOTrainer(str(tiny_models["qwen2"]), config(loss_type=loss_type), data)
