"""The recipe: every setting of a build, with its default. YAML keys and command line options carry the same names."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator


class Recipe(BaseModel):
    """Settings of a build. An unknown key is an error.

    >>> Recipe(group_size=4).temperature
    'auto'
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["auto", "hh", "preference"] = Field(
        default="auto", description="Shape of the logs: auto, hh, preference."
    )
    embedder: str = Field(
        default="all-MiniLM-L6-v2",
        description="Sentence-transformers name or path, 'static', or 'column:NAME' for vectors in the logs.",
    )
    embed_text: Literal["dialogue", "last_user"] = Field(
        default="dialogue",
        description="What is embedded: the whole dialogue or the last user turn. Long texts keep their end.",
    )
    prompt_prefix: str = Field(
        default="", description="Text put before each prompt, for models that want one ('query: ')."
    )
    device: str = Field(default="auto", description="Where the embedder runs: auto, cpu, cuda, cuda:1, ...")
    dtype: Literal["float32", "float16", "bfloat16"] = Field(
        default="float32", description="Number type of the embedder."
    )
    neighbors: int = Field(default=32, ge=1, description="Nearest prompts kept for each prompt.")
    group_size: int = Field(default=8, ge=1, description="Pairs in a contrast group.")
    views: int = Field(
        default=1, ge=1, description="Complete assignments of the data to groups; epoch e trains on e mod views."
    )
    strategy: Literal["nearest", "random"] = Field(
        default="nearest", description="nearest: mined groups; random: the baseline."
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="Seed of every random choice.")
    temperature: float | Literal["auto"] = Field(
        default="auto", description="Softmax temperature of the weights, or auto."
    )
    test_fraction: float = Field(
        default=0.02, ge=0, lt=1, description="Share of the prompts held out, by content hash."
    )
    duplicate_score: float = Field(
        default=0.95, gt=0, le=1.001, description="Prompts at least this similar never stand in different splits."
    )

    @field_validator("temperature")
    @classmethod
    def _temperature_is_positive(cls, value: float | str) -> float | str:
        if isinstance(value, (int, float)) and not 0 < value < float("inf"):
            raise ValueError("must be greater than 0, or auto")
        return value

    @field_validator("embedder")
    @classmethod
    def _embedder_is_named(cls, value: str) -> str:
        if not value or value == "column:":
            raise ValueError("must name a model, 'static', or 'column:NAME'")
        return value
