"""Run by test_processes.py under one or two processes: train one step with each loss, write what came out."""

import json
import sys
from pathlib import Path

import torch
from datasets import load_from_disk
from transformers import AutoModelForCausalLM, AutoTokenizer

from rpo_data.dataset import ContrastDataset
from rpo_data.errors import TrainingError
from rpo_data.pipelines.console import leave_processes
from rpo_data.schemas.manifest import Manifest
from rpo_data.trainer import RPOConfig, RPOTrainer

folder, out, batch_size, micro_batch_size = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
tables = [load_from_disk(str(folder / name)) for name in ("pairs", "groups", "neighbors")]
data = ContrastDataset(Manifest.model_validate_json((folder / "manifest.json").read_text()), *tables)
tokenizer = AutoTokenizer.from_pretrained(folder / "model")


def new_trainer(loss_type: str, **settings) -> RPOTrainer:
    defaults = dict(
        output_dir=str(out / "run"),
        cache_dir=str(out / "cache"),
        loss_type=loss_type,
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=batch_size,
        gradient_accumulation_steps=2,
        micro_batch_size=micro_batch_size or None,
        train_sampling_strategy="sequential",
        eval_on_start=True,
        max_steps=1,
        logging_steps=1,
        optim="sgd",
        learning_rate=0.1,
        max_grad_norm=0.0,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
    )
    args = RPOConfig(**defaults | settings)
    policy = AutoModelForCausalLM.from_pretrained(folder / "policy")
    return RPOTrainer(policy, args, data, data, processing_class=tokenizer, ref_model=str(folder / "model"))


def weights(trainer: RPOTrainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


results = {}
for loss_type in ("rpo", "diagonal", "lipo"):
    trainer = new_trainer(loss_type)
    trainer.train()
    results[loss_type] = {
        "before": trainer.state.log_history[0],
        "log": trainer.state.log_history[1],
        "reference": trainer.train_dataset.ref_logps.tolist(),
        "parameters": weights(trainer).tolist(),
    }
steps = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
best = {"load_best_model_at_end": True, "metric_for_best_model": "loss", "greater_is_better": True}  # so not the last
trainer = new_trainer("rpo", max_steps=3, **steps, **best)
trainer.train()
best_model = {
    "checkpoint": trainer.state.best_model_checkpoint,
    "losses": {entry["step"]: entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry},
    "after": trainer.evaluate()["eval_loss"],
    "weights": trainer.accelerator.gather(weights(trainer)[None]).tolist(),
}
unshared = new_trainer("rpo")
unshared.evaluate()
try:
    unshared.train()
    refused = None
except TrainingError as error:
    refused = str(error)
if trainer.is_world_process_zero():
    files = len(list((out / "cache").rglob("*.arrow")))
    processes = trainer.accelerator.num_processes
    result = {"losses": results, "best": best_model, "refused": refused, "files": files, "processes": processes}
    (out / "result.json").write_text(json.dumps(result))
del trainer, unshared
leave_processes()
