"""Stock TRL is a client of our `pairs` table: it trains on it unchanged."""

import math

import pytest
from datasets import load_from_disk
from tests_support import pair

from rpo_data import Recipe, build
from rpo_data.pipelines.tiny_model import make_tiny_model


@pytest.mark.slow
def test_stock_dpo_trainer_takes_a_step_on_pairs(write_lines, tmp_path, cache_dir, sample_rows):
    from trl import DPOConfig, DPOTrainer

    call = [{"type": "function", "function": {"name": "look_up", "arguments": {"word": "x"}}}]
    prompt = [
        {"role": "user", "content": "look it up"},
        {"role": "assistant", "content": "wait", "tool_calls": call},
        {"role": "tool", "content": "found", "tool_call_id": "1", "name": "look_up"},
    ]
    sides = {side: [{"role": "assistant", "content": side}] for side in ("chosen", "rejected")}
    logs = [
        write_lines("hh.jsonl", sample_rows[:10]),
        write_lines("more.jsonl", [{"prompt": prompt} | sides, pair(1, score_chosen=2, language="en")]),
    ]
    build(logs, tmp_path / "out", Recipe(embedder="static", test_fraction=0), cache_dir=cache_dir)
    make_tiny_model(tmp_path / "model", [str(row) for row in sample_rows[:50]])

    rows = load_from_disk(str(tmp_path / "out" / "pairs"))["train"]
    assert len(rows) == 12
    trainer = DPOTrainer(
        model=str(tmp_path / "model"),
        args=DPOConfig(
            output_dir=str(tmp_path / "run"),
            max_steps=1,
            per_device_train_batch_size=12,
            report_to="none",
            use_cpu=True,
            logging_steps=1,
        ),
        train_dataset=rows,
    )
    result = trainer.train()
    assert len(trainer.train_dataset) == 12
    assert result.training_loss == pytest.approx(math.log(2), abs=1e-4)


@pytest.mark.slow
def test_stock_kto_trainer_takes_a_step_on_responses(write_lines, tmp_path, cache_dir, sample_rows):
    from trl import KTOConfig, KTOTrainer

    records = [{"prompt": f"question {n}?", "completion": f"answer {n}", "label": n % 3 == 0} for n in range(12)]
    logs = write_lines("thumbs.jsonl", records)
    build(logs, tmp_path / "out", Recipe(embedder="static", test_fraction=0), cache_dir=cache_dir)
    make_tiny_model(tmp_path / "model", [str(row) for row in sample_rows[:50]])

    rows = load_from_disk(str(tmp_path / "out" / "responses"))["train"]
    assert len(rows) == 12
    assert sum(rows["label"]) == 4
    trainer = KTOTrainer(
        model=str(tmp_path / "model"),
        args=KTOConfig(
            output_dir=str(tmp_path / "run"),
            max_steps=1,
            per_device_train_batch_size=12,
            report_to="none",
            use_cpu=True,
            logging_steps=1,
        ),
        train_dataset=rows,
    )
    result = trainer.train()
    assert len(trainer.train_dataset) == 12
    assert math.isfinite(result.training_loss)
