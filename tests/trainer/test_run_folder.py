"""The folder of a training run: what is gone on with there, and what is refused."""

import json
import shutil

import pytest

from rpo_data.errors import TrainingError
from rpo_data.pipelines import train as pipeline
from rpo_data.pipelines.run_folder import check_folder, claim, last_checkpoint
from rpo_data.pipelines.train import make_config, train


@pytest.fixture
def settings(tmp_path):
    return {"cache_dir": str(tmp_path / "cache"), "use_cpu": "true", "learning_rate": "1e-2", "logging_steps": "1"}


def test_a_checkpoint_of_another_run_is_refused(tiny_models, echo, settings, tmp_path):
    train(echo, str(tiny_models["qwen2"]), tmp_path / "out", settings | {"max_steps": 2})
    with pytest.raises(TrainingError, match=r"checkpoint-2 is of another run: its beta is 0.1, now it is 0.5; choose"):
        train(echo, str(tiny_models["qwen2"]), tmp_path / "out", settings | {"max_steps": 2, "beta": 0.5})
    with pytest.raises(TrainingError, match=r"of another run: its adam_beta2 is 0.999, now it is 0.9; choose"):
        train(echo, str(tiny_models["qwen2"]), tmp_path / "out", settings | {"max_steps": 2, "adam_beta2": 0.9})
    with pytest.raises(TrainingError, match=r"another run: its model is Qwen2.*now it is Llama"):
        train(echo, str(tiny_models["llama"]), tmp_path / "out", settings | {"max_steps": 2})
    again = train(echo, str(tiny_models["qwen2"]), tmp_path / "out", settings | {"max_steps": 2})
    assert again["steps"] == 2  # finished: nothing is trained twice


def test_another_dataset_or_model_is_refused_before_tokenising(
    tiny_models, make, echo, settings, tmp_path, monkeypatch
):
    out, settings = tmp_path / "out", settings | {"max_steps": 1, "bf16": True}
    train(echo, str(tiny_models["qwen2"]), out, settings)
    rows = {split: make.echo_pairs(4, seed) for seed, split in enumerate(("train", "test"), start=7)}
    groups = {split: make.paired_groups(split, [[[0, 1, 2, 3]]]) for split in rows}
    monkeypatch.setattr(pipeline, "RPOTrainer", None)  # tokenises and scores
    with pytest.raises(
        TrainingError, match=r"checkpoint-1 is of another run: its dataset is \w+, now it is \w+; choose"
    ):
        train(make.dataset(rows, groups), "no model", out, settings)
    with pytest.raises(
        TrainingError, match=r"is of another run: its model is Qwen2\S+-float32, now it is Llama\S+-float32"
    ):
        train(echo, str(tiny_models["llama"]), out, settings)
    with pytest.raises(TrainingError, match="'NoneType' object is not callable"):  # this one goes on
        train(echo, str(tiny_models["qwen2"]), out, settings)


def test_adapters_that_change_how_the_base_is_kept_are_gone_on_with(tiny_models, echo, settings, tmp_path):
    settings |= {"max_steps": 1, "lora_trainable_token_indices": "1,2"}  # peft wraps the embeddings
    for _ in range(2):
        assert train(echo, str(tiny_models["qwen2"]), tmp_path / "out", settings)["steps"] == 1


def test_a_checkpoint_without_optimizer_is_not_gone_on_from(tiny_models, echo, settings, tmp_path):
    settings |= {"max_steps": 1}
    with pytest.raises(TrainingError, match="'save_only_model' cannot be set: a run goes on from its checkpoints"):
        train(echo, "no model", tmp_path / "out", settings | {"save_only_model": True})
    train(echo, str(tiny_models["qwen2"]), tmp_path / "out", settings)
    (tmp_path / "out" / "checkpoint-1" / "optimizer.pt").unlink()
    with pytest.raises(TrainingError, match=r"checkpoint-1 holds no state of the optimizer \(save_only_model\)"):
        train(echo, str(tiny_models["qwen2"]), tmp_path / "out", settings)
    (tmp_path / "out" / "checkpoint-1" / "optimizer_0").mkdir()  # as fsdp leaves it
    check_folder(tmp_path / "out")


def test_every_length_a_run_was_asked_for_is_noted(tiny_models, echo, settings, tmp_path):
    for length in ({"max_steps": 2}, {"max_steps": 2}, {"num_train_epochs": 0.75}):
        train(echo, str(tiny_models["qwen2"]), tmp_path / "out", settings | length)
    note = json.loads((tmp_path / "out" / "rpo_run.json").read_text())
    assert note["lengths"] == ["max_steps 2 (world size 1)", "num_train_epochs 0.75 (world size 1)"]
    train(echo, str(tiny_models["qwen2"]), tmp_path / "fresh", settings | {"max_steps": 1, "save_strategy": "no"})
    train(echo, str(tiny_models["qwen2"]), tmp_path / "fresh", settings | {"max_steps": 2, "save_strategy": "no"})
    note = json.loads((tmp_path / "fresh" / "rpo_run.json").read_text())
    assert note["lengths"] == ["max_steps 2 (world size 1)"]  # begun anew, since there was no checkpoint


@pytest.mark.parametrize("content", ["{", "[1]", ""])
def test_a_damaged_note_is_one_sentence(echo, settings, tmp_path, content):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.safetensors").touch()
    (tmp_path / "out" / "rpo_run.json").write_text(content)
    with pytest.raises(TrainingError, match=r"rpo_run.json is damaged, and .* choose another --out"):
        train(echo, "no model", tmp_path / "out", settings)


def test_a_folder_of_something_else_is_never_written_to(tiny_models, echo, settings, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(tiny_models["qwen2"], model)
    weights = (model / "model.safetensors").read_bytes()
    with pytest.raises(TrainingError, match="exists and is no training run of rpo-data"):
        train(echo, str(model), model, settings)
    assert (model / "model.safetensors").read_bytes() == weights


def test_another_run_is_refused_before_its_reference_is_scored(tiny_models, echo, settings, tmp_path):
    train(echo, str(tiny_models["qwen2"]), tmp_path / "out", settings | {"max_steps": 1})
    other = settings | {"max_steps": 1, "max_length": 12, "cache_dir": str(tmp_path / "unused")}
    with pytest.raises(TrainingError, match="is of another run: its max_length is 1024, now it is 12"):
        train(echo, str(tiny_models["qwen2"]), tmp_path / "out", other)
    assert not (tmp_path / "unused").exists()


def test_a_finished_run_is_not_replaced_by_another(tiny_models, echo, settings, tmp_path):
    settings = settings | {"max_steps": 1, "save_strategy": "no"}
    train(echo, str(tiny_models["qwen2"]), tmp_path / "out", settings)
    with pytest.raises(TrainingError, match=r"out is of another run: its beta is 0.1, now it is 0.7"):
        train(echo, str(tiny_models["qwen2"]), tmp_path / "out", settings | {"beta": 0.7})


def test_a_checkpoint_that_a_kill_left_unfinished_is_passed_over(tmp_path):
    for number, state in ((2, "{}"), (10, '{"torn'), (30, None)):
        folder = tmp_path / f"checkpoint-{number}"
        folder.mkdir()
        if state:
            (folder / "trainer_state.json").write_text(state)
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")
    assert last_checkpoint(tmp_path / "nowhere") is None


def test_a_run_note_is_whole_or_not_there(tmp_path):
    out, args = tmp_path / "out", make_config({"max_steps": 2, "use_cpu": True}, tmp_path)
    claim(out, {"beta": 0.1}, args)
    assert json.loads((out / "rpo_run.json").read_text()) == {"beta": 0.1, "lengths": ["max_steps 2 (world size 1)"]}
    shutil.rmtree(out)
    (out / "checkpoint-1").mkdir(parents=True)
    (out / "checkpoint-1" / "trainer_state.json").write_text("{}")
    with pytest.raises(TrainingError, match=r"checkpoint-1 is of another run: its beta is not known, now it is 0\.1"):
        claim(out, {"beta": 0.1}, args)
