import itertools
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rpo_data import Recipe, build
from rpo_data.errors import RpoDataError, TrainingError
from rpo_data.pipelines import compare
from rpo_data.pipelines import train as pipeline
from rpo_data.pipelines.console import counted
from rpo_data.pipelines.tiny_model import dataset_texts, make_tiny_model
from rpo_data.pipelines.train import make_config, read_settings, train
from rpo_data.pipelines.train_settings import check_metric, in_short
from rpo_data.trainer import RPOTrainer


@pytest.fixture
def settings(tmp_path):
    return {"cache_dir": str(tmp_path / "cache"), "use_cpu": "true", "learning_rate": "1e-2", "logging_steps": "1"}


def test_trains_says_and_saves(tiny_models, echo, settings, tmp_path, capsys):
    lines = []
    result = train(echo, str(tiny_models["qwen2"]), tmp_path / "out", settings | {"max_steps": "5"}, say=lines.append)
    assert result["steps"] == 5
    assert result["first_loss"] == pytest.approx(0.6931, abs=1e-4)
    assert result["last_loss"] < result["train_loss"] < result["first_loss"]
    assert result["before"]["eval_rewards/accuracies"] == 0.5
    assert result["after"]["eval_loss"] < result["before"]["eval_loss"]
    steps = [line for line in lines if line.startswith("step ")]
    assert len(steps) == 5
    assert steps[0].startswith("step      1/5       loss 0.6931 rewards ")
    assert all(word in steps[0] for word in ("accuracy 0.500", "lr 1.0e-02", "steps/s", "left"))
    assert len([line for line in lines if line.startswith("held out")]) == 3
    assert lines[-2].startswith("held out  4 pairs, after:  loss ")
    assert lines[:2] == [
        "tokens    train 16 pairs, cut to max_length 1024: 0 prompts, 0 responses",
        "tokens    test  4 pairs, cut to max_length 1024: 0 prompts, 0 responses",
    ]
    size = sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(tiny_models["qwen2"]).parameters())
    assert lines[3] == f"model     all {size:,} parameters are trained"
    assert capsys.readouterr().out == ""  # no line of transformers' own
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    AutoTokenizer.from_pretrained(tmp_path / "out")


def test_a_warm_up_that_outlasts_the_run_is_warned_of(tiny_models, echo, settings, tmp_path):
    lines = {}
    for warm_up in (0, 1, 2, 150):
        said = lines[warm_up] = []
        given = settings | {"max_steps": 2, "warmup_steps": warm_up, "lr_scheduler_type": "constant_with_warmup"}
        train(echo, str(tiny_models["qwen2"]), tmp_path / f"out-{warm_up}", given, say=said.append)
    said = lines["constant"] = []  # this schedule knows no warm-up
    given = settings | {"max_steps": 1, "warmup_steps": 150, "lr_scheduler_type": "constant"}
    train(echo, str(tiny_models["qwen2"]), tmp_path / "out-constant", given, say=said.append)
    warned = {name: [line for line in said if line.startswith("warning")] for name, said in lines.items()}
    assert warned[0] == warned[1] == warned["constant"] == []
    assert len(warned[2]) == 1
    assert warned[150] == [
        "warning   warm-up takes 150 steps and the run has 2 steps: the learning rate never reaches 1.0e-02; "
        "lower warmup_steps, or train for longer"
    ]


def test_the_best_checkpoint_is_named_and_every_measurement_said_once(tiny_models, echo, settings, tmp_path):
    lines, out = [], tmp_path / "out"
    given = settings | {
        "max_steps": 4, "eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2,
        "load_best_model_at_end": True, "metric_for_best_model": "rewards/margins", "greater_is_better": False,
    }  # fmt: skip
    result = train(echo, str(tiny_models["qwen2"]), out, given, say=lines.append)
    value = result["after"]["eval_rewards/margins"]  # least after two steps, since margins grow
    best = f"best      rewards/margins {value:.4f}, loaded from {out / 'checkpoint-2'}"
    assert lines.count(best) == 1
    held_out = [line.split("loss")[0].split() for line in lines if line.startswith("held out")]
    assert [words[2:] for words in held_out[:3]] == [["step", "0"], ["step", "2"], ["step", "4"]]
    assert [words[-1] for words in held_out[3:]] == ["before:", "after:"]
    plain = train(echo, str(tiny_models["qwen2"]), tmp_path / "plain", settings | {"max_steps": 1}, say=lines.append)
    assert plain["steps"] == 1
    assert len([line for line in lines if line.startswith("best")]) == 1


def test_zero_has_one_sign():
    for value in (-0.0004, -0.0, 0.0, 0.0004):
        logs = {"rewards/chosen": value, "rewards/rejected": value, "rewards/margins": value}
        assert pipeline._described(logs, "") == "rewards +0.000 / +0.000  margin +0.000"
        assert compare._ROWS["margin"][1].format(value) == "+0.000"
    assert pipeline._described({"rewards/margins": -0.0006}, "") == " margin -0.001"


def test_one_is_singular(tiny_models, make, settings, tmp_path):
    rows = {"train": make.echo_pairs(2, seed=0), "test": make.echo_pairs(1, seed=1)}
    groups = {"train": make.paired_groups("train", [[[0, 1]]]), "test": make.paired_groups("test", [[[0]]])}
    lines = []
    compare.compare(
        make.dataset(rows, groups), str(tiny_models["qwen2"]), tmp_path / "out", settings | {"max_steps": 1},
        say=lines.append,
    )  # fmt: skip
    assert "held out  1 pair, 1 step each" in lines
    assert len([line for line in lines if line.startswith("held out  1 pair, after:")]) == 2
    assert [counted(n, "prompts") for n in (0, 1, 2000)] == ["0 prompts", "1 prompt", "2,000 prompts"]


def test_a_wrong_metric_is_refused_before_anything_is_loaded(tiny_models, echo, settings, tmp_path):
    wrong = settings | {"metric_for_best_model": "margin"}
    with pytest.raises(TrainingError, match=r"'margin' is not known: did you mean 'rewards/margins'\?") as caught:
        train(echo, "no model", tmp_path / "out", wrong)
    known = str(caught.value).partition("it is one of ")[2].split(", ")
    evaluated = RPOTrainer(str(tiny_models["qwen2"]), make_config(settings, tmp_path), echo, echo).evaluate()
    assert {f"eval_{name}" for name in known} <= {*evaluated}
    for name in (*known, "eval_loss"):
        assert make_config(settings | {"metric_for_best_model": name}, tmp_path).metric_for_best_model == name


def test_what_another_library_says_ends_at_a_word():
    sentence = in_short(KeyError("the argument is set to 'eval_margin', which " + "is not found " * 40))
    assert sentence.endswith(" ...")
    assert sentence.startswith("the argument is set to 'eval_margin', which is not found")


def test_no_test_split_means_no_evaluation(tiny_models, make, settings, tmp_path):
    rows = make.echo_pairs(4, seed=0)
    data = make.dataset({"train": rows}, {"train": make.paired_groups("train", [[[0, 1], [2, 3]]])})
    result = train(data, str(tiny_models["qwen2"]), tmp_path / "out", settings | {"max_steps": 1})
    assert result["before"] is result["after"] is None


def test_a_killed_run_resumes_by_itself_to_the_same_end(tiny_models, echo, settings, tmp_path, monkeypatch):
    settings |= {"max_steps": 6, "save_steps": 2}
    whole = train(echo, str(tiny_models["qwen2"]), tmp_path / "whole", settings)
    step, count = RPOTrainer.training_step, itertools.count(1)

    def fifth_step_is_killed(self, *args, **kwargs):
        if next(count) == 5:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(RPOTrainer, "training_step", fifth_step_is_killed)
        with pytest.raises(KeyboardInterrupt):
            train(echo, str(tiny_models["qwen2"]), tmp_path / "killed", settings)
    lines = []
    resumed = train(echo, str(tiny_models["qwen2"]), tmp_path / "killed", settings, say=lines.append)
    assert any(line.startswith("resume    from") and line.endswith("checkpoint-4") for line in lines)
    for name in ("steps", "first_loss", "last_loss", "train_loss"):
        assert resumed[name] == pytest.approx(whole[name], abs=1e-6)
    for name in ("eval_loss", "eval_rewards/margins"):
        assert resumed["before"][name] == pytest.approx(whole["before"][name], abs=1e-6)
        assert resumed["after"][name] == pytest.approx(whole["after"][name], abs=1e-6)


def test_a_finished_run_goes_on_for_longer_under_a_schedule_made_anew(tiny_models, echo, settings, tmp_path):
    rates = {}
    for steps in (2, 6):
        train(echo, str(tiny_models["qwen2"]), tmp_path / "out", settings | {"max_steps": steps})
        log = json.loads((tmp_path / "out" / "trainer_state.json").read_text())["log_history"]
        rates[steps] = [entry["learning_rate"] for entry in log if "loss" in entry]
    assert rates[2] == pytest.approx([1e-2, 5e-3])
    assert rates[6][:2] == rates[2]
    assert rates[6][2] == 0  # where the first schedule ended
    assert rates[6][3:] == pytest.approx([1e-2 * left / 6 for left in (3, 2, 1)])


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (
            {"optim": "galore_adamw"},
            "cannot go on with these settings (ImportError: You need to install `galore_torch`",
        ),
        ({"lr_scheduler_type": "cosine_with_min_lr"}, "ValueError: One of min_lr or min_lr_rate should be set"),
        ({"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": '{"foo": 1}'}, "unexpected keyword argument 'foo'"),
        ({"adam_beta1": 2}, "Invalid beta parameter at index 0: 2.0"),
        ({"num_train_epochs": 0}, "the run would take no step: raise max_steps or num_train_epochs"),
    ],
)
def test_a_run_that_cannot_step_is_refused_before_tokenising(
    tiny_models, echo, settings, tmp_path, monkeypatch, more, sentence
):
    monkeypatch.setattr(pipeline, "RPOTrainer", None)  # tokenises and scores
    with pytest.raises(TrainingError) as caught:
        train(echo, str(tiny_models["qwen2"]), tmp_path / "out", settings | more)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name", ["linear", "warmup_stable_decay", "cosine_with_min_lr", "polynomial", "constant", "greedy"]
)
def test_optimizers_and_schedules_that_work_pass_the_trial(name, tmp_path):
    kwargs = {"warmup_stable_decay": {"num_decay_steps": 2}, "cosine_with_min_lr": {"min_lr": "1e-7"}}
    given = {
        "lr_scheduler_type": name,
        "lr_scheduler_kwargs": kwargs.get(name),
        "warmup_steps": 3,
        "eval_strategy": "epoch",
    }
    for optim in ("adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "rmsprop"):
        for length in ({"max_steps": 2}, {"num_train_epochs": 2}):
            args = make_config(given | length | {"optim": optim, "use_cpu": True}, tmp_path)
            pipeline._try_optimizer(args, torch.nn.Linear(1, 1))


def test_a_folder_of_adapters_is_refused_as_soon_as_it_is_loaded(tiny_models, echo, settings, tmp_path, monkeypatch):
    settings |= {"max_steps": 1}
    train(echo, str(tiny_models["qwen2"]), tmp_path / "adapters", settings | {"lora_r": 4})
    monkeypatch.setattr(pipeline, "RPOTrainer", None)  # tokenises and scores
    for more in ({}, {"lora_r": 4}):
        with pytest.raises(TrainingError, match=r"adapters' holds adapters, which are read frozen: merge them first"):
            train(echo, str(tmp_path / "adapters"), tmp_path / "out", settings | more)


def test_a_run_that_broke_its_model_saves_nothing(tiny_models, echo, settings, tmp_path):
    given = settings | {"max_steps": 2, "learning_rate": 1e30, "logging_strategy": "no", "save_steps": 1}
    with pytest.raises(TrainingError, match="weights are not finite after step 2"):
        train(echo, str(tiny_models["qwen2"]), tmp_path / "out", given)
    assert not any((tmp_path / "out").glob("*.safetensors"))


@pytest.fixture(scope="module")
def thumbs(tmp_path_factory, cache_dir):
    """Responses judged one by one: every prompt with one, and every prompt with a liked and a disliked one."""
    folder, found = tmp_path_factory.mktemp("thumbs"), {}
    for name, labels in (("single", [[n % 2 == 0] for n in range(24)]), ("double", [[True, False]] * 12)):
        rows = [(n, label) for n, given in enumerate(labels) for label in given]
        lines = [{"prompt": f"word {n}?", "completion": "yes" if y else "no", "label": y} for n, y in rows]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        recipe = Recipe(embedder="static", mode="unpaired", group_size=4, test_fraction=0.4, duplicate_score=1.001)
        found[name] = build(folder / f"{name}.jsonl", folder / name, recipe, cache_dir=cache_dir)
    return found


def test_without_pairs_the_accuracy_is_that_across_prompts(tiny_models, thumbs, settings, tmp_path):
    lines, model = [], str(tiny_models["qwen2"])
    given = settings | {"max_steps": 1}
    results = compare.compare(thumbs["single"], model, tmp_path / "out", given, "uniform", say=lines.append)
    after = results["rpo"]["after"]
    assert "eval_rewards/accuracies" not in after
    figure = f"{after['eval_rewards/cross_prompt_accuracies']:.3f}"
    said = [line for line in lines if line.startswith("held out") and "after:" in line]
    assert said[0].endswith(f"after:  loss {after['eval_loss']:.4f}  accuracy across prompts {figure}")
    table = lines[next(n for n, line in enumerate(lines) if line.endswith("1 step each")) + 1 :]
    assert [line.split("  ")[0] for line in table[1:]] == ["accuracy across prompts", "loss (its own)"]
    assert table[1].split()[3:5] == ["0.500", figure]


def test_metrics_of_pairs_are_known_where_a_held_out_group_has_one(tiny_models, thumbs, echo, settings, tmp_path):
    wrong = settings | {"metric_for_best_model": "rewards/margins"}
    with pytest.raises(
        TrainingError, match=r"needs two responses to a prompt.*: use one of loss, rewards/cross_prompt"
    ):
        train(thumbs["single"], "no model", tmp_path / "out", wrong)
    check_metric("rewards/cross_prompt_accuracies", thumbs["single"])
    given = settings | {"max_steps": 1}
    after = train(thumbs["double"], str(tiny_models["qwen2"]), tmp_path / "out", given)["after"]
    for data in (thumbs["double"], echo):
        for name in ("rewards/margins", "eval_rewards/accuracies", "logps/chosen"):
            check_metric(name, data)
            assert f"eval_{name.removeprefix('eval_')}" in after


def test_a_mapping_in_yaml_is_as_good_as_json_text(tmp_path):
    file = tmp_path / "train.yaml"
    file.write_text(
        "lr_scheduler_type: cosine_with_min_lr\nlr_scheduler_kwargs: {min_lr: 1e-7}\nactivation_checkpointing_kwargs: "
        "{use_reentrant: false}\naccelerator_config: {split_batches: false, gradient_accumulation_kwargs: {a: 2e-3}}\n"
    )
    text = {
        "lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": '{"min_lr": 1e-7}',
        "activation_checkpointing_kwargs": '{"use_reentrant": false}',
        "accelerator_config": '{"split_batches": false, "gradient_accumulation_kwargs": {"a": 2e-3}}',
    }  # fmt: skip
    one, other = (make_config(given | {"use_cpu": True}, tmp_path) for given in (read_settings(file, []), text))
    assert one.lr_scheduler_kwargs == {"min_lr": 1e-7}
    for name in text:
        assert getattr(one, name) == getattr(other, name)


def test_texts_become_what_the_field_holds(tmp_path):
    file = tmp_path / "train.yaml"
    file.write_text("learning-rate: 5e-7\nmax_length: none\nbeta: 1\nlr_scheduler_type: cosine\nseed: 7\n")
    options = ["--max-steps=30", "--warmup-steps", "3", "--use-cpu", "--bf16", "--no-disable-dropout", "--seed", "8"]
    args = make_config(read_settings(file, options), tmp_path)
    assert (args.learning_rate, args.max_length, args.beta, args.seed) == (5e-7, None, 1.0, 8)
    assert (args.max_steps, args.warmup_steps, args.bf16, args.disable_dropout) == (30, 3.0, True, False)
    assert args.lr_scheduler_type == "cosine"
    assert isinstance(args.beta, float)
    assert make_config(read_settings(None, ["--max-steps", "-1"]), tmp_path).max_steps == -1


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"learning_rat": 1}, "'learning_rat' is no setting of a training run: did you mean 'learning_rate'?"),
        (
            {"group_size": 4},
            "'group_size' is no setting of a training run: it is a key of the recipe, set at build, and some of them by "
            "`rpo-data regroup`",
        ),
        ({"zebra": 1}, "'zebra' is no setting of a training run: docs/training.md lists those of RPOConfig"),
        ({"max_steps": "many"}, "max_steps needs a value of type int, got 'many'"),
        ({"max_steps": "2.5"}, "max_steps needs a value of type int, got '2.5'"),
        ({"max_length": "x"}, "max_length needs a value of type int, got 'x'"),
        ({"beta": True}, "beta needs a value of type float, got 'True'"),
        ({"beta": None}, "beta needs a value of type float, got 'None'"),
        ({"bf16": "maybe"}, "bf16 needs a value of type bool, got 'maybe'"),
        ({"output_dir": "x"}, "'output_dir' cannot be set: it is what --out says"),
        ({"eval_on_start": True}, "'eval_on_start' cannot be set: the test split is measured before the first step"),
        ({"disable_tqdm": "false"}, "'disable_tqdm' cannot be set: a line a step is shown instead of a bar"),
        ({"lr_scheduler_type": "zigzag"}, "these training settings cannot work: zigzag is not a valid SchedulerType"),
        ({"loss_type": "sigmoid"}, "loss_type 'sigmoid' is not known"),
    ],
)
def test_wrong_settings_are_one_sentence(settings, sentence, tmp_path):
    with pytest.raises(TrainingError) as caught:
        make_config(settings, tmp_path)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "options", "sentence"),
    [
        ("a: [", [], r"train.yaml.* is not valid YAML"),
        ("- a", [], r"train.yaml must hold 'key: value' lines"),
        (None, [], r"train.yaml cannot be read \(No such file or directory\): check the path"),
        ("{}", ["beta", "1"], "'beta' is no option: settings stand behind the dataset, such as --learning-rate 1e-6"),
        ("{}", ["--beta"], "'--beta' needs a value, such as --beta VALUE"),
        ("{}", ["--beta", "--bf16"], "'--beta' needs a value"),
    ],
)
def test_wrong_files_and_options_are_one_sentence(content, options, sentence, tmp_path):
    file = tmp_path / "train.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(RpoDataError, match=sentence) as caught:
        read_settings(file, options)
    assert "\n" not in str(caught.value)


def test_tiny_model_is_small_and_always_the_same(echo, tmp_path):
    sizes = [make_tiny_model(tmp_path / name, dataset_texts(echo)) for name in ("one", "two")]
    assert sizes[0] == sizes[1] < 20_000
    for file in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    other = make_tiny_model(tmp_path / "three", dataset_texts(echo), architecture="llama", tie_embeddings=True)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "three").config.tie_word_embeddings
    assert other < 20_000


@pytest.mark.parametrize("recipe", ["train-paper.yaml", "train-demo.yaml"])
def test_recipes_are_settings(recipe, tmp_path):
    file = Path(pipeline.__file__).parent / "recipes" / recipe
    args = make_config(read_settings(file, []), tmp_path)
    assert args.loss_type == "rpo"
    assert args.beta == 0.1
