"""The recipe: every setting of a build, with its default. YAML keys and command line options carry the same names."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from rpo_data.schemas.rules import RULES

Mode = Literal["paired", "unpaired", "scored"]
"""What groups are made of: pairs, liked and disliked responses, or scored and ranked ones."""


class Recipe(BaseModel):
    """Settings of a build. An unknown key is an error.

    >>> Recipe(group_size=4).temperature
    'auto'
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: str = Field(default="auto", description="Shape of the logs: auto, or a name of docs/shapes.md.")
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="Columns of the logs under other names, ours=theirs: prompt=question,score_chosen=meta.score.",
    )
    license: dict[str, str] = Field(
        default_factory=dict,
        description="Licence of the logs, an id of the Hub, for its card: mit, or FILE=ID,FILE=ID (* stands for any text).",
    )
    ignore: tuple[str, ...] = Field(default=(), description="Rules of docs/lint.md that are not applied: CODE,CODE.")
    redact: bool = Field(default=False, description="Replace e-mail, phone, IP, card numbers and keys by their kind.")
    detect_language: bool = Field(default=False, description="Fill in the prompt's language where the logs do not.")
    mode: Literal["auto", Mode] = Field(
        default="auto",
        description="paired: groups of pairs; unpaired: of liked and disliked responses; scored: of scored or ranked "
        "ones; auto: unpaired where the logs hold nothing but liked and disliked responses, else paired.",
    )
    pairing: Literal["best_worst", "all"] = Field(
        default="best_worst", description="Which responses of a prompt that are scored, ranked or liked form pairs."
    )
    annotators: Literal["keep", "majority", "unanimous"] = Field(
        default="keep", description="Several annotators of one pair: keep each one's row, or merge them by vote."
    )
    conflicts: Literal["drop", "majority", "keep-and-mask"] = Field(
        default="drop", description="What becomes of rows that contradict each other."
    )
    duplicates: Literal["exact", "near", "semantic"] = Field(
        default="exact",
        description="Which duplicates are merged: the same text, also nearly the same text, also prompts alike in meaning.",
    )
    near_score: float = Field(
        default=0.9, gt=0, le=1, description="Share of shingles (Jaccard) from which two rows are nearly the same text."
    )
    tokenizer: str = Field(default="", description="Tokenizer for the truncation check: a folder or a Hub id.")
    max_length: int | None = Field(default=None, ge=1, description="Tokens that training will see of a row.")
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
    index: str = Field(
        default="auto",
        description="How neighbours are searched: auto, or a FAISS factory string such as Flat or IVF2000,Flat.",
    )
    min_recall: float = Field(
        default=0.95, gt=0, le=1, description="Share of the true neighbours that an inexact search must find."
    )
    group_size: int = Field(default=8, ge=1, description="Pairs, or responses, in a contrast group.")
    max_group: int = Field(
        default=64, ge=2, description="Unpaired mode: a group widens up to this where liked or disliked ones are rare."
    )
    absolute_margin: float = Field(
        default=0.0, ge=0, description="Scored mode: a cell counts where the win's score is at least so much higher."
    )
    relative_margin: float = Field(
        default=0.0, ge=0, lt=1, description="Scored mode: the same as a share of the win's score."
    )
    mix_scales: bool = Field(
        default=False,
        description="Scored mode: compare scores of several sources and annotators, and ranks of several records.",
    )
    views: int = Field(
        default=1, ge=1, description="Complete assignments of the data to groups; epoch e trains on e mod views."
    )
    strategy: Literal["nearest", "random", "cluster", "curriculum"] = Field(
        default="nearest",
        description="nearest: mined groups; random: the baseline; cluster: cheap; curriculum: views from far to near.",
    )
    min_score: float = Field(default=0.0, ge=-1, le=1, description="Lowest cosine of two prompts that a cell earns by.")
    max_score: float = Field(
        default=1.0, ge=-1, le=1, description="Highest one: nearer prompts are near-duplicates and earn nothing."
    )
    range_min: int = Field(default=0, ge=0, description="Nearest neighbours of each prompt that earn nothing.")
    range_max: int | None = Field(default=None, ge=1, description="Only so many nearest neighbours earn.")
    mix_languages: bool = Field(default=False, description="Let a group hold prompts of several languages.")
    seed: int = Field(default=0, ge=0, lt=2**32, description="Seed of every random choice.")
    temperature: float | tuple[float, ...] | Literal["auto"] = Field(
        default="auto", description="Softmax temperature of the weights, one for all views or T,T,... in turn, or auto."
    )
    normalize: Literal["row", "sinkhorn", "none"] = Field(
        default="row",
        description="row: each win's weights sum to 1; sinkhorn: each loss's are even, too; none: neither.",
    )
    scale: Literal["row1", "mean1"] = Field(
        default="row1", description="row1: as they are; mean1: mean 1, so that beta does not shrink with the group."
    )
    test_fraction: float = Field(
        default=0.02, ge=0, lt=1, description="Share of the prompts held out, by content hash."
    )
    duplicate_score: float = Field(
        default=0.95, gt=0, le=1.001, description="Prompts at least this similar never stand in different splits."
    )

    @field_validator("columns", mode="before")
    @classmethod
    def _columns_of_text(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        parts = [part.split("=", 1) for part in value.split(",") if part.strip()]
        if any(len(part) != 2 or not all(map(str.strip, part)) for part in parts):
            raise ValueError("must read ours=theirs,ours=theirs")
        return {ours.strip(): theirs.strip() for ours, theirs in parts}

    @field_validator("license", mode="before")
    @classmethod
    def _license_of_text(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        parts = [part.strip() for part in value.split(",") if part.strip()]
        named = [part.rpartition("=")[::2] if "=" in part else ("*", part) for part in parts]
        return {name.strip(): licence.strip() for name, licence in named}

    @field_validator("ignore", mode="before")
    @classmethod
    def _ignore_of_text(cls, value: object) -> object:
        return [code.strip() for code in value.split(",") if code.strip()] if isinstance(value, str) else value

    @field_validator("ignore")
    @classmethod
    def _rules_can_be_ignored(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for code in value:
            if code not in RULES or RULES[code].switch != "--ignore":
                free = ", ".join(sorted(name for name, rule in RULES.items() if rule.switch == "--ignore"))
                raise ValueError(f"'{code}' is no rule that can be ignored; these can: {free}")
        return tuple(sorted(set(value)))

    @model_validator(mode="after")
    def _length_and_tokenizer_together(self) -> "Recipe":
        if bool(self.tokenizer) != bool(self.max_length):
            raise ValueError("tokenizer and max_length are needed together")
        return self

    @field_validator("temperature", mode="before")
    @classmethod
    def _temperatures_of_text(cls, value: object) -> object:
        if not isinstance(value, str) or "," not in value:
            return value
        return [part.strip() for part in value.split(",") if part.strip()]

    @field_validator("temperature")
    @classmethod
    def _temperature_is_positive(cls, value: float | tuple[float, ...] | str) -> float | tuple[float, ...] | str:
        given = value if isinstance(value, tuple) else (value,)
        if not given or not all(isinstance(one, str) or 0 < one < float("inf") for one in given):
            raise ValueError("must be greater than 0, or auto")
        return value

    @model_validator(mode="after")
    def _bands_hold_something(self) -> "Recipe":
        if self.min_score > self.max_score:
            raise ValueError(f"min_score {self.min_score} is above max_score {self.max_score}")
        if self.range_max is not None and self.range_max > self.neighbors:
            raise ValueError(f"range_max {self.range_max} is above neighbors {self.neighbors}: raise neighbors")
        if self.range_min >= (self.range_max or self.neighbors):
            raise ValueError(f"range_min {self.range_min} leaves no neighbour: lower it")
        return self

    @model_validator(mode="after")
    def _scores_are_not_voted_on(self) -> "Recipe":
        if self.mode == "scored" and (self.annotators != "keep" or self.conflicts != "drop"):
            raise ValueError("annotators and conflicts have no meaning in scored mode, where scores decide: leave them")
        return self

    @field_validator("embedder")
    @classmethod
    def _embedder_is_named(cls, value: str) -> str:
        if not value or value == "column:":
            raise ValueError("must name a model, 'static', or 'column:NAME'")
        return value
