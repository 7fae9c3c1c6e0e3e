"""RPOTrainer: transformers.Trainer over contrast groups. Overrides of public hooks only; checkpoints and resume are stock."""

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedType
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainerCallback, TrainerState
from transformers.trainer_utils import EvalLoopOutput

from rpo_data.dataset import ContrastDataset
from rpo_data.errors import TrainingError
from rpo_data.model_card import model_card
from rpo_data.reference_store import open_store, store_owner
from rpo_data.trainer.adapters import add_adapters
from rpo_data.trainer.collator import GroupCollator
from rpo_data.trainer.config import RPOConfig
from rpo_data.trainer.data import GroupDataset, check_loss
from rpo_data.trainer.layouts import fit_layout
from rpo_data.trainer.logprobs import batch_logprobs, piece_logprobs, refused_where_memory_is_full
from rpo_data.trainer.loss import batch_losses, cell_counts, mean_of_cells
from rpo_data.trainer.metrics import TOTALS, group_totals, mean_loss, mean_metrics
from rpo_data.trainer.models import disable_dropout, load_model, load_tokenizer, model_id, padding_token
from rpo_data.trainer.reference import reference_logprobs
from rpo_data.trainer.tokenize import Progress, tokenize_pairs

_SHARE_BY_DDP = (DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


class ViewSwitch(TrainerCallback):
    """Epoch e trains on view e mod views; transformers makes the epoch's iterator after this hook, on resume too."""

    def __init__(self, dataset: GroupDataset) -> None:
        self.dataset = dataset

    def on_epoch_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Switch the view."""
        self.dataset.set_view(int(state.epoch or 0) % self.dataset.views)


class RPOTrainer(Trainer):
    """Train a policy on the contrast groups of a dataset (arXiv 2402.10958).

    The reference is scored here, before training and before any checkpoint is loaded, and kept on disk; the loss is the
    mean over all cells of an optimiser step, over accumulation and ranks; evaluation gives exact means, never logits.

    Args:
        model: policy, or a folder or Hub id of one (loaded in float32).
        args: settings; the defaults where None.
        train_dataset: its train split is used.
        eval_dataset: its test split is used; may be the same object.
        processing_class: tokenizer; the model's own where None.
        ref_model: reference, or a folder or Hub id of one; the model as it is now where None. It is not kept.
        callbacks: as in Trainer.
        optimizers: as in Trainer.
        progress: called with (stage, done, total) while tokenising and scoring the reference.
        peft_config: adapters to train, such as a peft.LoraConfig; the reference is then the model with them off.

    Raises:
        TrainingError: a model cannot be loaded or is sharded, a split is missing, tokenizer and model do not fit, or a
            setting does not go with several processes.
    """

    def __init__(
        self,
        model: PreTrainedModel | str | Path,
        args: RPOConfig | None = None,
        train_dataset: ContrastDataset | None = None,
        eval_dataset: ContrastDataset | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        ref_model: PreTrainedModel | str | Path | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        progress: Progress | None = None,
        peft_config: Any = None,
    ) -> None:
        args = args or RPOConfig()
        progress = None if getattr(args, "process_index", 0) else progress  # the main process speaks for all
        if not isinstance(args, RPOConfig):
            raise TrainingError(f"args are {type(args).__name__}: give an RPOConfig, which takes the same settings")
        if getattr(model, "is_distributed_loading_by_transformers", False):
            raise TrainingError("the model is in shards already: load it without distributed_config, and set fsdp")
        for data in (train_dataset, eval_dataset):
            if data is not None:
                check_loss(data, args.loss_type)
        name = str(model) if isinstance(model, (str, Path)) else model.config._name_or_path
        model = load_model(model) if isinstance(model, (str, Path)) else model
        reference = load_model(ref_model) if isinstance(ref_model, (str, Path)) else ref_model
        tokenizer = processing_class or load_tokenizer(name)
        owner = None if peft_config else store_owner(args.cache_dir)  # adapters may change what the base is called
        if owner:
            found = model_id(model if reference is None else reference)
            open_store(args.cache_dir, owner if owner.startswith(found) else found)  # refuses another model's
        if args.disable_dropout:
            disable_dropout(model)
        train = None if train_dataset is None else _group_dataset(train_dataset, "train", tokenizer, args, progress)
        test = None if eval_dataset is None else _group_dataset(eval_dataset, "test", tokenizer, args, progress)
        for groups in filter(None, (train, test)):
            for one in filter(None, (model, reference)):
                _check_vocabulary(groups, one)
        if peft_config is not None:
            model = add_adapters(model, peft_config, args.seed)
        size, joint = args.micro_batch_size, args.loss_type == "joint"
        collator = GroupCollator(padding_token(tokenizer), micro_batch_size=size, count_prompts=joint)
        callbacks = [*([] if train is None else [ViewSwitch(train)]), *(callbacks or [])]
        how = {"processing_class": tokenizer, "callbacks": callbacks, "optimizers": optimizers}
        super().__init__(model, args, collator, train, test, **how)
        self.loss_is_scaled_for_ga = True  # compute_loss divides by the cells of the whole window
        _check_distribution(args, self.accelerator.distributed_type)
        with self._on_device(self.model):
            self.data_collator: GroupCollator = self._fit_layout(collator, self.model)
        self._train_totals = torch.zeros(len(TOTALS), device=args.device)
        self._eval_totals: list[Tensor] = []
        self._tried = False
        self.manifest = getattr(train_dataset or eval_dataset, "manifest", None)
        reference = self.model if reference is None else reference
        with self._on_device(reference), nullcontext() if peft_config is None else self.model.disable_adapter():
            self._score_reference(reference, progress)

    def create_optimizer(self, *args: Any) -> Any:
        """Stock, for a model that has something to train."""
        if not any(weight.requires_grad for weight in self.model.parameters()):
            raise TrainingError("the model is frozen: merge_and_unload its adapters, or load with is_trainable=True")
        return super().create_optimizer(*args)

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Tensor]], Tensor | None]:
        """The batches of one optimiser step, and their own and other cells (`cell_counts`) on all ranks, shape (2,)."""
        if self.state.global_step >= self.state.max_steps:
            return [], None  # resumed at its very end, stock transformers would take one step too many
        if not self._tried and device.type == "cuda":
            self._try_largest()
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if not batches:
            return batches, None
        counts = [cell_counts(batch["cell_own"], batch["cell_importance"]) for batch in batches]
        return batches, self.accelerator.reduce(torch.stack(counts).sum(dim=0).to(device), "sum")

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | None = None
    ) -> Tensor:
        """Stock for a batch of one piece; of several, two passes, so that memory goes with a piece and not with the batch.

        All log-probs without gradients; d loss / d log-prob; then piece by piece, as by the chain rule
        d loss / d parameters = sum of (d loss / d log-prob) * (d log-prob / d parameters).
        """
        with refused_where_memory_is_full(inputs["pieces"]):
            if len(inputs["pieces"]) == 1:
                return super().training_step(model, inputs, num_items_in_batch)
            return self._step_in_pieces(model, inputs, num_items_in_batch)

    def _try_largest(self) -> None:
        """Forward and backward of the largest batch, for nothing: what memory cannot hold shows before the first step.

        Gradients are shared as in a step: what FSDP2 has not shared yet, no zero_grad reaches.
        """
        self._tried, totals = True, self._train_totals.clone()
        groups, device = self.train_dataset, self.args.device
        batch = self.data_collator(groups.largest(self.args.per_device_train_batch_size))
        counts = cell_counts(batch["cell_own"], batch["cell_importance"]).to(device)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            self.training_step(self.model_wrapped, batch, counts)
        self.model_wrapped.zero_grad()
        self._train_totals = totals

    def _step_in_pieces(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | None) -> Tensor:
        model.train()
        if hasattr(self.optimizer, "train"):  # as stock: schedule-free optimizers
            self.optimizer.train()
        inputs = self._prepare_inputs(inputs)
        cuda = [self.args.device] if self.args.device.type == "cuda" else []
        with torch.no_grad(), torch.random.fork_rng(cuda), self.compute_loss_context_manager():
            logps = batch_logprobs(model, inputs["pieces"])  # the second pass draws the same dropout
        inputs["logps"] = logps.requires_grad_()
        loss: Any = self.compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
        (gradient,) = torch.autograd.grad(loss, logps)
        for number, piece in enumerate(inputs["pieces"], start=1):
            last = number == len(inputs["pieces"])
            with nullcontext() if last else self.accelerator.no_sync(model):
                with self.compute_loss_context_manager():
                    part = (gradient[piece["rows"]] * piece_logprobs(model, piece)).sum()
                self.accelerator.backward(part)
        return loss.detach()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """This batch's part of the mean over the cells of the window (of the batch, where no window is given).

        Raises:
            TrainingError: several processes train without sharing gradients.
        """
        _check_gradients_are_shared(model, self.accelerator)
        logps, losses, totals = self._score(model, inputs)
        own, importance = inputs["cell_own"], inputs["cell_importance"]
        counts = cell_counts(own, importance) if num_items_in_batch is None else num_items_in_batch
        loss = mean_of_cells(losses, own, importance, counts, self.args.loss_type, self.args.diagonal_alpha)
        if num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # DDP averages gradients over ranks, this mean sums them
        if model.training:
            self._train_totals += totals.sum(dim=0)
        return (loss, {"logps": logps.detach()}) if return_outputs else loss

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor, None, None]:
        """The batch's loss, never logits; its sums are kept, without the groups that fill up the last batch of ranks."""
        with torch.no_grad(), self.compute_loss_context_manager():
            _, _, totals = self._score(model, self._prepare_inputs(inputs))
        self._eval_totals.append(self.accelerator.gather_for_metrics(totals).cpu())
        loss = mean_loss(totals.sum(dim=0), self.args.loss_type, self.args.diagonal_alpha)
        return torch.tensor(loss, device=self.args.device), None, None

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Stock loop; then the loss and metrics are replaced by exact means over all cells and pairs.

        Raises:
            TrainingError: fsdp has not sharded the model yet, which it does together with the optimizer.
        """
        if self.is_fsdp_enabled and self.optimizer is None:
            raise TrainingError("under fsdp evaluate() cannot run before train(): set eval_on_start=True instead")
        self._eval_totals = []
        output = super().evaluation_loop(dataloader, description, True, ignore_keys, metric_key_prefix)
        totals = torch.cat(self._eval_totals).double().sum(dim=0)
        exact = {"loss": mean_loss(totals, self.args.loss_type, self.args.diagonal_alpha), **mean_metrics(totals)}
        _check_finite(exact["loss"], self.state.global_step)
        output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in exact.items()})
        return output

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Stock, with the metrics of all pairs since the last training log."""
        if "loss" in logs:
            _check_finite(logs["loss"], self.state.global_step)
            logs.update(mean_metrics(self.accelerator.reduce(self._train_totals, "sum")))
            self._train_totals = torch.zeros_like(self._train_totals)
        super().log(logs, start_time)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Stock, but for trained weights that are not finite; a checkpoint is saved by it, too."""
        trained = [weight.detach() for weight in self.model.parameters() if weight.requires_grad]
        shards = [weight.to_local() if hasattr(weight, "to_local") else weight for weight in trained]  # under FSDP2
        if not all(bool(shard.isfinite().all()) for shard in shards):
            step = self.state.global_step
            raise TrainingError(f"weights are not finite after step {step}: lower the learning rate, or clip gradients")
        super().save_model(output_dir, _internal_call)

    def create_model_card(self, **metadata: Any) -> None:
        """Write README.md into the output folder (`model_card`); the metadata are those of Trainer.create_model_card."""
        if self.is_world_process_zero():
            page = model_card(self.model, self.args, self.state, self.manifest, **metadata)
            Path(self.args.output_dir, "README.md").write_text(page, encoding="utf-8")

    def _score(self, model: nn.Module, inputs: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probs (S,), cell losses (C,), and the sums for loss and metrics (G, 15), detached."""
        logps = inputs["logps"] if "logps" in inputs else batch_logprobs(model, inputs["pieces"])
        losses = batch_losses(logps, inputs, self.args.beta, self.args.loss_type)
        return logps, losses, group_totals(losses.detach(), logps.detach(), inputs, self.args.beta)

    def _fit_layout(self, collator: GroupCollator, model: PreTrainedModel) -> GroupCollator:
        groups = self.train_dataset or self.eval_dataset
        return fit_layout(collator, model, groups[0], self.args.share_prompts) if groups else collator

    @contextmanager
    def _on_device(self, model: PreTrainedModel) -> Iterator[None]:
        """A reference, or under fsdp the policy, on the device for a while: shards are made from where the model was."""
        home = model.device
        moves = home != self.args.device and (self.is_fsdp_enabled or self.place_model_on_device)
        if moves:
            model.to(self.args.device)
        yield
        if moves:
            model.to(home)

    def _score_reference(self, reference: PreTrainedModel, progress: Progress | None) -> None:
        collator = self.data_collator
        if reference is not self.model:
            collator = self._fit_layout(collator, reference)
        precision = self.accelerator.mixed_precision
        name = model_id(reference) + ("" if precision == "no" else f"-{precision}")
        store = open_store(self.args.cache_dir, name)
        self.reference_id, self.reference_folder, self.reference_computed = store.model, store.folder, 0
        for groups in filter(None, (self.train_dataset, self.eval_dataset)):
            size = 2 * groups.group_size * self.args.per_device_eval_batch_size
            groups.ref_logps, computed = reference_logprobs(
                reference, groups, store, self.accelerator, collator, size, progress
            )
            self.reference_computed += computed


def _check_finite(loss: float, step: int) -> None:
    if not math.isfinite(loss):
        raise TrainingError(f"the loss is {loss} at step {step}: lower the learning rate, or clip gradients")


def _group_dataset(
    data: ContrastDataset, split: str, tokenizer: PreTrainedTokenizerBase, args: RPOConfig, progress: Progress | None
) -> GroupDataset:
    if split not in data.splits:
        raise TrainingError(f"the dataset has no split '{split}', it has {', '.join(data.splits)}: build it with one")
    if args.dataloader_persistent_workers and data.views > 1:
        raise TrainingError(f"dataloader_persistent_workers keeps to the first of {data.views} views: leave it off")
    names = ["pair_id", "prompt", "chosen", "rejected"] if data.paired else ["response_id", "prompt", "completion"]
    rows, what = data.rows[split].select_columns(names), "pairs" if data.paired else "responses"
    joint = args.loss_type == "joint"
    pairs = tokenize_pairs(rows, tokenizer, args.max_length, what=what, joint=joint, progress=progress)
    return GroupDataset(data, split, pairs, args)


def _check_vocabulary(groups: GroupDataset, model: PreTrainedModel) -> None:
    highest, size = int(groups.pairs.sequences.tokens.max(initial=0)), len(model.get_input_embeddings().weight)
    if highest >= size:
        raise TrainingError(f"token {highest} is beyond the model's {size} embeddings: use its own tokenizer")
    longest = int(groups.pairs.sequences.lengths.max(initial=0))
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit and longest > limit:
        raise TrainingError(f"a sequence has {longest} tokens, the model takes {limit}: set max_length to that or less")


def _check_distribution(args: RPOConfig, kind: DistributedType) -> None:
    if args.fsdp and kind == DistributedType.MULTI_CPU:
        raise TrainingError("fsdp does not work on CPUs, accelerate would train with DDP instead: leave it out")
    if args.micro_batch_size is not None and kind not in (DistributedType.NO, *_SHARE_BY_DDP):
        raise TrainingError(f"micro_batch_size does not work under {kind.value}: leave it out, or train with DDP")


def _check_gradients_are_shared(model: nn.Module, accelerator: Accelerator) -> None:
    """Accelerate (1.15) leaves a model unwrapped that it prepared for evaluation first, and says nothing."""
    ddp = accelerator.distributed_type in _SHARE_BY_DDP and accelerator.num_processes > 1
    if model.training and ddp and not isinstance(model, DistributedDataParallel):
        raise TrainingError("evaluate() before train() leaves gradients unshared: set eval_on_start=True instead")
