import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback, TrainingArguments

from rpo_data.errors import TrainingError
from rpo_data.labels import response_labels
from rpo_data.trainer import RPOConfig, RPOTrainer
from rpo_data.trainer.loss import LOSS_TYPES
from rpo_data.trainer.models import disable_dropout
from rpo_data.trainer.reference import score_sequences


def parameters(model) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def perturbed(path, seed=0, size=0.05):
    """The model of a folder, moved away from it, so that no log-ratio is 0."""
    model = AutoModelForCausalLM.from_pretrained(path)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture
def uneven(make):
    """Four groups of 4, 4, 3 and 1 pairs; one with most cells masked, one with its own cells masked, one wholly masked.

    Pairs have scores and weights; the first two answer one prompt, and so do the last two.
    """
    draw = np.random.default_rng(0)
    more = ("score_chosen", "score_rejected", "weight")
    rows = [
        row | dict(zip(more, (draw.uniform(3, 5), draw.uniform(1, 4), draw.uniform(0.2, 2)), strict=True))
        for row in make.echo_pairs(12, seed=5)
    ]
    for one, other in ((0, 1), (8, 9)):
        rows[other] |= {name: rows[one][name] for name in ("prompt", "prompt_id")}
    masks = [np.ones((4, 4)), np.eye(4), 1 - np.eye(3), np.zeros((1, 1))]
    masks[1][0, 1] = 1
    members = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10], [11]]
    groups = [
        make.group_row("train", 0, number, rows_in, rows_in, mask * draw.uniform(0.1, 1, mask.shape))
        for number, (rows_in, mask) in enumerate(zip(members, masks, strict=True))
    ]
    tests = [row | {"group_id": row["group_id"].replace("train", "test")} for row in groups]
    return make.dataset({"train": rows, "test": rows}, {"train": groups, "test": tests})


@pytest.mark.parametrize("loss_type", sorted({*LOSS_TYPES} - {"ipo", "lipo"}))
def test_first_loss_is_log_two(tiny_models, echo, config, loss_type):
    trainer = RPOTrainer(tiny_models["qwen2"], config(loss_type=loss_type, max_steps=1), echo)
    trainer.train()
    first = trainer.state.log_history[0]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert first["rewards/accuracies"] == 0.5
    assert first["rewards/margins"] == pytest.approx(0, abs=1e-4)
    assert first["logps/chosen"] < -1


@pytest.mark.parametrize(("loss_type", "their_name"), [("dpo", "sigmoid"), ("ipo", "ipo")])
def test_losses_of_pairs_equal_trl(tiny_models, make, config, tmp_path, loss_type, their_name):
    trl = pytest.importorskip("trl")
    rows = make.echo_pairs(4, seed=7)
    data = make.dataset({"train": rows}, {"train": make.paired_groups("train", [[[0, 1, 2, 3]]])})
    policy, reference = tmp_path / "policy", tiny_models["qwen2"]
    perturbed(reference, size=0.2).save_pretrained(policy)
    tokenizer = AutoTokenizer.from_pretrained(reference)

    ours = RPOTrainer(
        str(policy), config(loss_type=loss_type), data, processing_class=tokenizer, ref_model=str(reference)
    )
    batch = next(iter(ours.get_train_dataloader()))
    arguments = trl.DPOConfig(
        output_dir=str(tmp_path / "trl"),
        use_cpu=True,
        bf16=False,
        beta=0.1,
        loss_type=[their_name],
        per_device_train_batch_size=4,
        train_sampling_strategy="sequential",
        report_to="none",
    )
    theirs = trl.DPOTrainer(
        str(policy),
        AutoModelForCausalLM.from_pretrained(reference),
        arguments,
        train_dataset=data.pairs["train"],
        processing_class=tokenizer,
    )
    their_batch = next(iter(theirs.get_train_dataloader()))
    order = torch.cat([batch["cell_win"][batch["cell_own"]], batch["cell_loss"][batch["cell_own"]]])
    (padded,) = replace(ours.data_collator, layout="padded", one_row=False)(list(ours.train_dataset))["pieces"]
    counted = torch.zeros_like(padded["input_ids"])
    counted.view(-1)[padded["source"] + 1] = 1
    order = torch.argsort(padded["rows"])[order]
    assert their_batch["input_ids"].tolist() == padded["input_ids"][order].tolist()
    assert their_batch["completion_mask"].tolist() == counted[order].tolist()

    loss, their_loss = ours.compute_loss(ours.model, batch), theirs.compute_loss(theirs.model, their_batch)
    assert abs(their_loss.item() - math.log(2)) > 0.01
    assert loss.item() == pytest.approx(their_loss.item(), abs=1e-6, rel=1e-6)
    gradients = [
        torch.autograd.grad(value, list(model.parameters()))
        for value, model in ((loss, ours.model), (their_loss, theirs.model))
    ]
    for mine, their in zip(*gradients, strict=True):
        assert torch.allclose(mine, their, atol=1e-6 * max(1, loss.item()))


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_order_of_groups_and_layout_change_nothing(tiny_models, uneven, config, loss_type):
    tokenizer = AutoTokenizer.from_pretrained(tiny_models["llama"])
    args = config(loss_type=loss_type)
    policy = perturbed(tiny_models["llama"], size=0.1)
    trainer = RPOTrainer(policy, args, uneven, processing_class=tokenizer, ref_model=str(tiny_models["llama"]))
    groups = list(trainer.train_dataset)
    first, turned = (
        replace(trainer.data_collator, layout=layout)([groups[number] for number in order])
        for layout, order in (("trees", (0, 1, 2, 3)), ("padded", (2, 0, 3, 1)))
    )
    assert first["cell_win"].tolist() != turned["cell_win"].tolist()
    losses = [trainer.compute_loss(policy, batch) for batch in (first, turned)]
    gradients = [
        torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(policy.parameters()))]) for loss in losses
    ]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5)
    assert torch.allclose(*gradients, rtol=1e-3, atol=1e-5 * gradients[0].abs().max())
    assert gradients[0].abs().max() > 1e-3


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_accumulation_normalises_over_the_window(tiny_models, uneven, config, loss_type):
    def step(batch_size: int) -> tuple[torch.Tensor, float]:
        args = config(
            loss_type=loss_type,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=4 // batch_size,
            train_sampling_strategy="sequential",
            max_steps=1,
            optim="sgd",
            learning_rate=0.1,
            max_grad_norm=0.0,
        )
        trainer = RPOTrainer(perturbed(tiny_models["qwen2"]), args, uneven, **common)
        trainer.train()
        return parameters(trainer.model), trainer.state.log_history[0]

    common = {
        "processing_class": AutoTokenizer.from_pretrained(tiny_models["qwen2"]),
        "ref_model": str(tiny_models["qwen2"]),
    }
    at_once, log_at_once = step(4)
    for batch_size in (1, 2):
        in_parts, log = step(batch_size)
        assert torch.allclose(at_once, in_parts, atol=1e-6)
        for name in ("loss", "rewards/margins", "rewards/accuracies", "logps/rejected"):
            assert log[name] == pytest.approx(log_at_once[name], abs=1e-5)
    moved = (at_once - parameters(perturbed(tiny_models["qwen2"]))).abs().max()
    assert moved > 1e-4  # else the comparison would be empty


def expected_metrics(trainer, dataset, loss_type):
    """Loss and metrics over all cells of all test groups, in float64 NumPy, from log-probs taken one by one."""
    groups = trainer.eval_dataset
    sequences, ratios, logps = groups.pairs.sequences, {}, {}
    rows, labels = dataset.pairs["test"].to_list(), response_labels(dataset, "test")
    starts = sequences.prompt_lengths * (loss_type != "joint")
    for number in range(len(sequences)):
        tokens, start = sequences[number], max(starts[number], 1)
        scores = trainer.model(torch.tensor(tokens[None].astype(np.int64))).logits[0].double().log_softmax(-1)
        logps[number] = sum(scores[p - 1, tokens[p]].item() for p in range(start, len(tokens)))
        ratios[number] = logps[number] - float(groups.ref_logps[number])
    lengths = groups.pairs.sequences.lengths - groups.pairs.sequences.prompt_lengths
    own, other, pairs, cross, contrasts = [], [], [], [], []
    for group in dataset.groups["test"]:
        delta = lipo_deltas(group, groups.pairs, ratios, labels)
        for i, win in enumerate(group["win_rows"]):
            weights = np.array(group["weight"][i])
            shares = weights[weights > 0] / weights.sum() if weights.any() else []
            contrasts += [np.exp(-np.sum(shares * np.log(shares)))] if len(shares) else []
            for j, loss in enumerate(group["loss_rows"]):
                if weights[j] == 0:
                    continue
                chosen, rejected = groups.pairs.chosen[win], groups.pairs.rejected[loss]
                margin = ratios[chosen] - ratios[rejected]
                cost = delta[i, j] * np.logaddexp(0, -0.1 * (weights[j] if loss_type == "rpo" else 1.0) * margin)
                if loss_type == "ipo":
                    cost = (ratios[chosen] / lengths[chosen] - ratios[rejected] / lengths[rejected] - 5) ** 2
                elif loss_type != "lipo":
                    cost /= delta[i, j]
                (own if i == j else other).append((cost, np.sqrt(rows[win]["weight"] * rows[loss]["weight"])))
                if i == j:
                    pairs.append((0.1 * margin, float(margin > 0), logps[chosen], 0.1 * ratios[rejected]))
                if rows[win]["prompt_id"] != rows[loss]["prompt_id"]:
                    cross.append(margin > 0)

    def mean(cells):
        costs, importance = np.array(cells).T
        return np.average(costs, weights=importance)

    assert len(cross) < len(own + other) - len(own)  # some other cells are of one prompt
    margins, accuracies, chosen, rejected = np.mean(pairs, axis=0)
    return {
        "eval_loss": {"dpo": mean(own), "ipo": mean(own), "diagonal": 0.8 * mean(own) + 0.2 * mean(other)}.get(
            loss_type, mean(own + other)
        ),
        "eval_rewards/margins": margins,
        "eval_rewards/accuracies": accuracies,
        "eval_logps/chosen": chosen,
        "eval_rewards/rejected": rejected,
        "eval_rewards/cross_prompt_accuracies": np.mean(cross),
        "eval_effective_contrasts": np.mean(contrasts),
    }


def lipo_deltas(group, pairs, ratios, labels):
    """By (i, j): what a group's cells matter to the ranking of all responses that stand in one of them."""
    cells = np.argwhere(np.array(group["weight"]) > 0).tolist()
    rows = {(side, place) for cell in cells for side, place in enumerate(cell)}
    sides = ((pairs.chosen, group["win_rows"]), (pairs.rejected, group["loss_rows"]))
    ratio = {(side, at): ratios[sides[side][0][sides[side][1][at]]] for side, at in rows}
    gain = {(side, at): 2 ** labels[side, sides[side][1][at]] for side, at in rows}
    discount = {item: 1 / np.log(2 + sum(other > ratio[item] for other in ratio.values())) for item in rows}
    return {(i, j): abs(gain[0, i] - gain[1, j]) * abs(discount[0, i] - discount[1, j]) for i, j in cells}


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_evaluation_is_exact_whatever_the_batches(tiny_models, uneven, config, loss_type):
    for batch_size in (1, 3, 8):
        trainer = RPOTrainer(
            perturbed(tiny_models["llama"]),
            config(loss_type=loss_type, per_device_eval_batch_size=batch_size),
            eval_dataset=uneven,
            processing_class=AutoTokenizer.from_pretrained(tiny_models["llama"]),
            ref_model=str(tiny_models["llama"]),
        )
        got = trainer.evaluate()
        for name, value in expected_metrics(trainer, uneven, loss_type).items():
            assert got[name] == pytest.approx(value, abs=1e-5), name
        assert {name for name in got if not name.startswith("eval_")} <= {"epoch"}


def test_evaluation_never_hands_out_logits(tiny_models, uneven, config):
    trainer = RPOTrainer(tiny_models["qwen2"], config(), eval_dataset=uneven)
    batch = next(iter(trainer.get_eval_dataloader()))
    loss, logits, labels = trainer.prediction_step(trainer.model, batch, prediction_loss_only=False)
    assert loss.dim() == 0
    assert logits is labels is None
    output = trainer.evaluation_loop(trainer.get_eval_dataloader(), "Evaluation")
    assert output.predictions is output.label_ids is None


class Watch(TrainerCallback):
    """Notes (step, epoch, view) at the start of each step."""

    def __init__(self):
        self.seen, self.dataset = [], None

    def on_step_begin(self, args, state, control, **kwargs):
        self.seen.append((state.global_step, int(state.epoch or 0), self.dataset.view))


def watched(model, args, data):
    watch = Watch()
    trainer = RPOTrainer(model, args, data, callbacks=[watch])
    watch.dataset = trainer.train_dataset
    batches, collate = [], trainer.data_collator

    class Noting(type(collate)):
        def __call__(self, groups):
            batches.append(set().union(*(group.completions for group in groups)))
            return super().__call__(groups)

    trainer.data_collator = Noting(**vars(collate))
    assert trainer.data_collator.layout == "trees"
    return trainer, watch, batches


@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
@pytest.mark.parametrize("stop", [3, 4, 6])
def test_resume_gives_the_losses_of_an_uninterrupted_run(tiny_models, echo, config, tmp_path, architecture, stop):
    """Four groups a view, so steps 0 to 3 are epoch 0, and a stop lies inside, at the border, and inside epoch 1."""
    model = tiny_models[architecture]
    settings = {"num_train_epochs": 3, "save_strategy": "steps", "save_steps": stop, "learning_rate": 1e-2}
    whole, watch, batches = watched(model, config(output_dir=str(tmp_path / "whole"), **settings), echo)
    whole.train()
    resumed, watch_again, batches_again = watched(model, config(output_dir=str(tmp_path / "again"), **settings), echo)
    assert resumed.reference_computed == 0
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{stop}"))

    losses = {entry["step"]: entry["loss"] for entry in whole.state.log_history if "loss" in entry}
    again = {entry["step"]: entry["loss"] for entry in resumed.state.log_history if "loss" in entry}
    assert sorted(losses) == list(range(1, 13))
    assert again == losses  # to the bit
    assert losses[12] < losses[1] - 0.01  # it moved, so equal losses say something
    assert torch.equal(parameters(whole.model), parameters(resumed.model))

    views = [view for _, _, view in watch.seen]
    assert views == [0] * 4 + [1] * 4 + [0] * 4
    assert [view for _, _, view in watch_again.seen] == views[stop:]
    assert batches_again == batches[stop:]


def test_each_epoch_trains_on_the_groups_of_its_view(tiny_models, echo, config):
    trainer, _, batches = watched(tiny_models["qwen2"], config(num_train_epochs=2), echo)
    trainer.train()
    views = []
    for view in (0, 1):
        trainer.train_dataset.set_view(view)
        views.append([frozenset(group.completions) for group in trainer.train_dataset])
    assert set(map(frozenset, batches[:4])) == set(views[0])
    assert set(map(frozenset, batches[4:])) == set(views[1])
    assert set(views[0]).isdisjoint(views[1])


@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
def test_saves_and_reloads(tiny_models, echo, config, tmp_path, architecture):
    trainer = RPOTrainer(tiny_models[architecture], config(max_steps=2), echo)
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    tokens = torch.arange(20)[None]
    assert torch.equal(reloaded(tokens).logits, trainer.model.eval()(tokens).logits)
    assert not torch.equal(parameters(reloaded), parameters(AutoModelForCausalLM.from_pretrained(tiny_models["qwen2"])))
    assert reloaded.config.tie_word_embeddings == (architecture == "qwen2")
    AutoTokenizer.from_pretrained(tmp_path / "saved")


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
@pytest.mark.parametrize("loss_type", sorted({*LOSS_TYPES} - {"lipo"}))
def test_held_out_accuracy_rises_on_a_task_that_can_be_learnt(tiny_models, make, config, architecture, loss_type):
    known, unknown = make.words[:10], make.words[10:]
    rows = {"train": make.echo_pairs(32, seed=1, words=known), "test": make.echo_pairs(12, seed=2, words=unknown)}
    groups = {split: make.paired_groups(split, [make.in_groups(len(rows[split]), 4)]) for split in rows}
    seen = {word for row in rows["train"] for word in row["prompt"][0]["content"].strip("?").split()}
    asked = {word for row in rows["test"] for word in row["prompt"][0]["content"].strip("?").split()}
    assert seen.isdisjoint(asked)  # held-out prompts share no word with those trained on
    args = config(loss_type=loss_type, num_train_epochs=3, learning_rate=5e-3)
    data = make.dataset(rows, groups)
    trainer = RPOTrainer(tiny_models[architecture], args, data, eval_dataset=data)
    assert trainer.evaluate()["eval_rewards/accuracies"] == 0.5
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_rewards/accuracies"] > 0.9
    assert after["eval_rewards/margins"] > 0.05


def test_dropout_is_off_unless_asked_for(tiny_models, echo, config):
    model = AutoModelForCausalLM.from_pretrained(tiny_models["qwen2"], attention_dropout=0.5)
    tokens = torch.arange(20)[None]
    model.train()
    assert not torch.equal(model(tokens).logits, model(tokens).logits)  # else the next line would be empty
    disable_dropout(model)
    assert torch.equal(model(tokens).logits, model(tokens).logits)
    assert model.config.attention_dropout == 0.5


def test_the_trainer_stills_dropout_unless_told_otherwise(tiny_models, echo, config):
    losses = []
    for disable in (True, False):
        model = AutoModelForCausalLM.from_pretrained(tiny_models["qwen2"], attention_dropout=0.5)
        trainer = RPOTrainer(model, config(max_steps=1, disable_dropout=disable), echo)
        trainer.train()
        losses.append(trainer.state.log_history[0]["loss"])
    assert losses[0] == pytest.approx(math.log(2), abs=1e-6)
    assert losses[1] != pytest.approx(math.log(2), abs=1e-6)


def test_the_reference_is_scored_without_dropout(tiny_models, echo, config, tmp_path):
    scored = []
    for name in ("one", "two"):
        model = AutoModelForCausalLM.from_pretrained(tiny_models["qwen2"], attention_dropout=0.5).train()
        args = config(disable_dropout=False, cache_dir=str(tmp_path / name))
        scored.append(RPOTrainer(model, args, echo).train_dataset.ref_logps)
    np.testing.assert_array_equal(*scored)


def test_a_line_of_the_log_is_about_the_steps_since_the_last_one(tiny_models, echo, config):
    trainer = RPOTrainer(tiny_models["qwen2"], config(max_steps=3, learning_rate=0.02, logging_steps=1), echo)
    steps = []
    inner = trainer.compute_loss

    def noting(model, inputs, **more):
        before = trainer._train_totals.clone()
        loss = inner(model, inputs, **more)
        steps.append(trainer._train_totals - before)
        return loss

    trainer.compute_loss = noting
    trainer.train()
    lines = [line for line in trainer.state.log_history if "loss" in line]
    assert len(lines) == 3
    for line, totals in zip(lines, steps, strict=True):
        assert line["rewards/margins"] == pytest.approx(float(totals[6 + 0] / totals[2]), abs=1e-6)


def test_a_loss_that_is_not_finite_stops_the_run(tiny_models, echo, config):
    trainer = RPOTrainer(tiny_models["qwen2"], config(max_steps=6, learning_rate=1e30, max_grad_norm=0), echo)
    with pytest.raises(TrainingError, match=r"the loss is .* at step \d: lower the learning rate"):
        trainer.train()


@pytest.mark.parametrize("saving", [{"save_strategy": "steps", "save_steps": 3}, {"save_strategy": "epoch"}])
def test_weights_that_are_not_finite_are_not_saved(tiny_models, echo, config, tmp_path, saving):
    """Neither a checkpoint, an evaluation nor save_model passes them by, wherever the log would have told of it later."""
    broken = {"max_steps": 9, "learning_rate": 1e30, "max_grad_norm": 0, "output_dir": str(tmp_path / "run")}
    trainer = RPOTrainer(tiny_models["qwen2"], config(logging_strategy="no", **broken, **saving), echo, echo)
    with pytest.raises(TrainingError, match=r"weights are not finite after step [34]: lower the learning rate"):
        trainer.train()
    with pytest.raises(TrainingError, match=r"the loss is .* at step [34]"):
        trainer.evaluate()
    with pytest.raises(TrainingError, match=r"weights are not finite after step [34]"):
        trainer.save_model()
    assert not list((tmp_path / "run").rglob("*.safetensors"))


def test_the_last_step_before_a_checkpoint_breaks_nothing_unseen(tiny_models, echo, config, tmp_path):
    args = config(max_steps=1, weight_decay=math.nan, save_strategy="steps", save_steps=1)
    trainer = RPOTrainer(tiny_models["qwen2"], args, echo)
    with pytest.raises(TrainingError, match="weights are not finite after step 1"):  # the loss was
        trainer.train()


def test_a_damaged_policy_is_refused_beside_a_sound_reference(tiny_models, echo, config):
    model = AutoModelForCausalLM.from_pretrained(tiny_models["qwen2"])
    with torch.no_grad():
        next(model.parameters())[0, 0] = math.nan
    with pytest.raises(TrainingError, match="log-probs that are not finite: its weights are damaged"):
        RPOTrainer(model, config(), echo, ref_model=str(tiny_models["qwen2"]))


def test_a_damaged_reference_is_refused_and_not_stored(tiny_models, echo, config, tmp_path, caplog):
    model = AutoModelForCausalLM.from_pretrained(tiny_models["qwen2"])
    with torch.no_grad():
        next(model.parameters())[0, 0] = math.nan
    with pytest.raises(TrainingError, match="log-probs that are not finite: its weights are damaged"):
        RPOTrainer(model, config(cache_dir=str(tmp_path)), echo)
    assert not list(tmp_path.rglob("*.arrow"))
    assert "slower" not in caplog.text  # no word on layouts, which are not at fault


def test_bfloat16_autocast_starts_near_log_two(tiny_models, echo, config):
    """On a machine without accelerator, too, where transformers asks for use_cpu."""
    trainer = RPOTrainer(tiny_models["qwen2"], config(bf16=True, use_cpu=False, max_steps=1), echo)
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(math.log(2), abs=2e-2)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"loss_type": "diagnal"}, "loss_type 'diagnal' is not known: did you mean 'diagonal'.*rpo, uniform, dpo"),
        ({"beta": 0.0}, "beta 0.0 cannot work: it must be greater than 0"),
        ({"beta": math.nan}, "beta nan cannot work"),
        ({"beta": "0.1"}, "beta '0.1' cannot work"),
        ({"diagonal_alpha": None}, "diagonal_alpha None cannot work"),
        ({"max_length": 64.5}, "max_length 64.5 cannot work"),
        ({"micro_batch_size": 2.5}, "micro_batch_size 2.5 cannot work"),
        ({"fp16": True}, "fp16 True cannot work: it needs a GPU"),
        ({"auto_find_batch_size": True}, "auto_find_batch_size True cannot work"),
        ({"temperature": 0.0}, "temperature 0.0 cannot work: it must be greater than 0"),
        ({"temperature": math.nan}, "temperature nan cannot work"),
        ({"normalize": "rows"}, "normalize 'rows' is not known: did you mean 'row'. it is one of row, sinkhorn, none"),
        ({"diagonal_alpha": 1.2}, "diagonal_alpha 1.2 cannot work: it is a share"),
        ({"max_length": 3}, "max_length 3 cannot work.*at least 4; none sets no limit"),
        ({"remove_unused_columns": True}, "remove_unused_columns True cannot work: a row is a whole contrast group"),
        ({"logging_nan_inf_filter": True}, "it shows a loss that is not finite as 0"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor 0.1 cannot work: there are no labels"),
        (
            {"train_sampling_strategy": "group_by_length"},
            "strategy 'group_by_length' cannot.*use random or sequential",
        ),
        ({"bf16_full_eval": True}, "for good; use bf16"),
        ({"dataloader_drop_last": True}, "would leave groups out of the evaluation"),
        ({"accelerator_config": {"dispatch_batches": True}}, "dispatch_batches cuts batches up; leave it off"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps 0 cannot work"),
        ({"learning_rate": math.inf}, "learning_rate inf cannot work"),
    ],
)
def test_config_refuses_what_cannot_work(config, settings, sentence):
    with pytest.raises(TrainingError, match=sentence):
        config(**settings)


def test_a_process_that_sees_several_gpus_is_refused(config, monkeypatch):
    """Transformers would wrap the model in DataParallel, which cuts each tensor of a batch along its rows."""
    monkeypatch.setattr(RPOConfig, "n_gpu", 2)
    with pytest.raises(
        TrainingError, match=r"n_gpu 2 cannot work: .*start a process a GPU .torchrun., or set CUDA_VISIBLE"
    ):
        config()


def test_paper_defaults(config):
    args = config()
    assert (args.beta, args.loss_type, args.diagonal_alpha, args.max_length) == (0.1, "rpo", 0.8, 1024)
    assert type(args)(output_dir=args.output_dir).learning_rate == 5e-7


def test_trainer_refuses_what_does_not_fit(tiny_models, make, echo, config, tmp_path):
    no_test = make.dataset({"train": make.echo_pairs(2, 0)}, {"train": make.paired_groups("train", [[[0, 1]]])})
    with pytest.raises(TrainingError, match="no split 'test', it has train"):
        RPOTrainer(tiny_models["qwen2"], config(), no_test, eval_dataset=no_test)
    with pytest.raises(TrainingError, match=r"model '.*nowhere' cannot be loaded \(.*\): give a folder"):
        RPOTrainer(tmp_path / "nowhere", config(), echo)
    for given in ("dataset", echo.rows, [{}], {"a": echo}):
        with pytest.raises(TrainingError, match=f"cannot train on a {type(given).__name__}: give what rpo_data.load"):
            RPOTrainer(tiny_models["qwen2"], config(), given)
    with pytest.raises(TrainingError, match="args are TrainingArguments: give an RPOConfig"):
        RPOTrainer(tiny_models["qwen2"], TrainingArguments(str(tmp_path / "out"), use_cpu=True), echo)
    with pytest.raises(TrainingError, match="persistent_workers keeps to the first of 2 views"):
        RPOTrainer(tiny_models["qwen2"], config(dataloader_persistent_workers=True, dataloader_num_workers=1), echo)
    small = AutoModelForCausalLM.from_pretrained(tiny_models["qwen2"])
    small.resize_token_embeddings(100)
    with pytest.raises(TrainingError, match="is beyond the model's 100 embeddings: use its own tokenizer"):
        RPOTrainer(small, config(), echo, processing_class=AutoTokenizer.from_pretrained(tiny_models["qwen2"]))
    with pytest.raises(TrainingError, match="is beyond the model's 100 embeddings: use its own tokenizer"):
        RPOTrainer(tiny_models["qwen2"], config(), echo, ref_model=small)


def test_a_batch_too_large_for_memory_is_one_sentence(tiny_models, echo, config, monkeypatch):
    def full(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    for size, sequences in ((None, 8), (3, 3)):
        trainer = RPOTrainer(str(tiny_models["qwen2"]), config(micro_batch_size=size), echo)
        monkeypatch.setattr("rpo_data.trainer.trainer.batch_logprobs", full)
        with pytest.raises(
            TrainingError, match=rf"over {sequences} sequences in rows of \d+ tokens does not fit in memory"
        ):
            trainer.train()
        monkeypatch.undo()


def test_a_reference_too_large_for_memory_is_one_sentence(tiny_models, echo, config, monkeypatch):
    """The trial of the layouts finds it, or the scoring."""

    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    model = AutoModelForCausalLM.from_pretrained(tiny_models["qwen2"])
    model.model.forward = full
    with pytest.raises(TrainingError, match=r"over 1 sequences in rows of \d+ tokens does not fit in memory"):
        RPOTrainer(model, config(), echo)
    trainer = RPOTrainer(tiny_models["qwen2"], config(), echo)
    trainer.model.model.forward = full
    groups = trainer.train_dataset
    with pytest.raises(TrainingError, match=r"over 8 sequences in rows of \d+ tokens does not fit in memory"):
        score_sequences(trainer.model, groups.pairs.sequences, np.arange(8), 8, trainer.data_collator)


def test_the_trial_of_the_largest_batch_leaves_no_trace(tiny_models, uneven, config):
    """On a GPU it comes before the first step. The groups have 4, 4, 3 and 1 pairs, so the last is not among the two."""
    weights, logs, tried = [], [], []

    class Trying(RPOTrainer):
        def get_batch_samples(self, *given):
            if not self._tried:
                self._try_largest()
                tried.append(len(calls))
                assert all(parameter.grad is None for parameter in self.model.parameters())
            return super().get_batch_samples(*given)

    for kind in (RPOTrainer, Trying):
        args = config(max_steps=3, per_device_train_batch_size=2, micro_batch_size=4)
        trainer, calls = kind(tiny_models["qwen2"], args, uneven), []
        trainer.model.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        trainer.train()
        weights.append(parameters(trainer.model))
        logs.append(
            [{name: value for name, value in line.items() if "/" in name} for line in trainer.state.log_history]
        )
    assert tried == [2 * 4]  # two passes over sixteen sequences, four at a time
    assert torch.equal(*weights)
    assert logs[0] == logs[1] != []
