"""Run by test_views_in_processes.py: three epochs over two views, whole or from a checkpoint; writes what each step saw."""

import json
import sys
from pathlib import Path

import torch
from datasets import load_from_disk
from transformers import TrainerCallback

from rpo_data.dataset import ContrastDataset
from rpo_data.pipelines.console import leave_processes
from rpo_data.schemas.manifest import Manifest
from rpo_data.trainer import RPOConfig, RPOTrainer

data, model, out, batch_size, checkpoint = sys.argv[1:6]


class Watch(TrainerCallback):
    """Notes the view at each step, on this process."""

    seen: list[int] = []  # noqa: RUF012

    def on_step_begin(self, args, state, control, **kwargs):
        self.seen.append(trainer.train_dataset.view)


args = RPOConfig(
    output_dir=out,
    cache_dir=str(Path(out).parent / "cache"),
    per_device_train_batch_size=int(batch_size),
    num_train_epochs=3,
    save_steps=3,
    logging_steps=1,
    learning_rate=1e-2,
    use_cpu=True,
    report_to="none",
)
tables = [load_from_disk(str(Path(data, name))) for name in ("pairs", "groups", "neighbors")]
dataset = ContrastDataset(Manifest.model_validate_json(Path(data, "manifest.json").read_text()), *tables)
trainer = RPOTrainer(model, args, dataset, callbacks=[Watch()])
trainer.train(resume_from_checkpoint=None if checkpoint == "none" else checkpoint)
losses = {entry["step"]: entry["loss"] for entry in trainer.state.log_history if "loss" in entry}
rank = trainer.accelerator.process_index
weights = torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()]).tolist()
processes = trainer.accelerator.num_processes
result = {"views": Watch.seen, "losses": losses, "weights": weights, "processes": processes}
Path(out, f"rank-{rank}.json").write_text(json.dumps(result))
trainer = None
leave_processes()
