"""Run by test_fsdp.py: train, save, resume; under FSDP2 in two processes (`sharded`), or plainly in one (`whole`)."""

import json
import sys
from pathlib import Path

import torch
from accelerate import DistributedType, PartialState
from datasets import load_from_disk
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.distributed import DistributedConfig

from rpo_data.dataset import ContrastDataset
from rpo_data.errors import TrainingError
from rpo_data.pipelines.console import leave_processes
from rpo_data.schemas.manifest import Manifest
from rpo_data.trainer import RPOConfig, RPOTrainer

folder, out, sharded = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "sharded"
tables = [load_from_disk(str(folder / name)) for name in ("pairs", "groups", "neighbors")]
data = ContrastDataset(Manifest.model_validate_json((folder / "manifest.json").read_text()), *tables)


class TryingTrainer(RPOTrainer):
    """Tries the largest batch first, which elsewhere a GPU alone does; the other runs do not."""

    def get_batch_samples(self, *given):
        if sharded and not self._tried:
            self._try_largest()
        return super().get_batch_samples(*given)


def new_trainer(name: str, model, *, on_cpu: bool = False, **settings) -> RPOTrainer:
    args = RPOConfig(
        output_dir=str(out / name),
        cache_dir=str(out / "cache"),
        fsdp=sharded,
        fsdp_config={"version": 2},
        per_device_train_batch_size=1 if sharded else 2,
        per_device_eval_batch_size=1,
        gradient_accumulation_steps=2,
        eval_on_start=True,
        num_train_epochs=2,
        save_steps=3,
        logging_steps=1,
        learning_rate=1e-2,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        **settings,
    )
    if sharded and not on_cpu:  # accelerate (1.15) shards on accelerators alone: let it take this CPU for one
        PartialState().distributed_type = DistributedType.MULTI_GPU
    tokenizer = AutoTokenizer.from_pretrained(folder / "llama")
    return TryingTrainer(model, args, data, data, processing_class=tokenizer)


def whole(tensor: torch.Tensor) -> list[float]:
    full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return full.detach().flatten().tolist()


def outcome(trainer: RPOTrainer) -> dict:
    weights = {name: whole(parameter) for name, parameter in trainer.model.named_parameters()}
    return {"log": trainer.state.log_history, "weights": weights}


def shards(trainer: RPOTrainer) -> dict[str, tuple]:
    """By the name of each parameter in shards: how many there are, what each is cut along, elements here, elements in all."""
    parts = {name: p for name, p in trainer.model.named_parameters() if isinstance(p, DTensor)}
    return {
        name: (p.device_mesh.size(), repr(p.placements), p.to_local().numel(), p.numel()) for name, p in parts.items()
    }


def refusal(model=None, *, evaluate: bool = False, **settings) -> str:
    try:
        trainer = new_trainer("refused", model or str(folder / "llama"), **settings)
        if evaluate:
            trainer.evaluate()
    except TrainingError as error:
        return str(error)
    return "not refused"


results: dict = {"runs": {}}
for model in ("llama", "qwen2"):
    for share in (True, False):
        name = f"{model}-{share}"
        trainer = new_trainer(name, str(folder / model), share_prompts=share)
        assert (trainer.data_collator.layout == "trees") == share
        trainer.train()
        trainer.evaluate()
        trainer.save_model()
        again = new_trainer(name, str(folder / model), share_prompts=share)
        again.train(resume_from_checkpoint=str(out / name / "checkpoint-3"))
        results["runs"][name] = {"all": outcome(trainer), "again": outcome(again), "shards": shards(trainer)}
results["processes"] = trainer.accelerator.num_processes
results["kind"] = trainer.accelerator.distributed_type.value
if sharded:
    in_shards = AutoModelForCausalLM.from_pretrained(
        folder / "llama", distributed_config=DistributedConfig(fsdp_size=2)
    )
    results["refused"] = [
        refusal(in_shards),
        refusal(on_cpu=True),
        refusal(micro_batch_size=2),
        refusal(evaluate=True),
    ]
Path(out, f"rank-{trainer.accelerator.process_index}.json").write_text(json.dumps(results))
del trainer, again
leave_processes()
