"""What `lint` reports: a table of findings, the figures behind them, and a verdict. `--json` prints exactly this."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from rpo_data.schemas.rules import Severity

FINDINGS_VERSION = 1

Verdict = Literal["OK", "MINOR", "MAJOR"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Example(_Frozen):
    """One place where a rule is broken."""

    file: str
    line: int = Field(description="Line (JSON lines, CSV) or record, counted from 1; 0 where the whole file is meant.")
    message: str = Field(description="What is wrong there, in one sentence.")
    text: str = Field(description="The start of the record or row, shortened.")


class Finding(_Frozen):
    """One rule that the logs break."""

    code: str
    severity: Severity
    count: int = Field(description="How many records, rows or other things (see `unit`) break the rule.")
    unit: Literal["file", "record", "row", "item", "column", "text"]
    share: float | None = Field(description="Of all records or rows; null where no share makes sense.")
    message: str = Field(description="What was found, with its figures.")
    advice: str = Field(description="What to do about it.")
    details: dict[str, int] = Field(default_factory=dict, description="The count by kind, where a rule has kinds.")
    examples: tuple[Example, ...] = ()


class FileSummary(_Frozen):
    """What one log file holds."""

    name: str
    shapes: dict[str, int] = Field(description="Records of each shape.")
    records: int
    rejected: int = Field(description="Records of which nothing can be used.")
    pairs: int
    ties: int
    labelled: int = Field(description="Responses that are liked or not.")
    scored: int = Field(description="Responses that have a score or a rank.")
    annotators: int
    languages: dict[str, int] = Field(description="Rows of each language; those of which nothing is sure are left out.")


class LengthBias(_Frozen):
    """Lengths of the two responses of a pair, in characters."""

    pairs: int
    chosen_mean: float
    rejected_mean: float
    gap: float = Field(description="How much longer chosen is on average, as a share of rejected's mean.")
    cohens_d: float | None = Field(
        description="Difference of the means in pooled standard deviations; null: no spread."
    )
    longer_wins: int
    shorter_wins: int
    win_rate: float | None = Field(description="Of the longer response; pairs of equal length do not count.")
    win_rate_interval: tuple[float, float] | None = Field(description="Wilson, 95 %.")


class SideBias(_Frozen):
    """How often something is seen in the better and in the worse responses."""

    better: int
    worse: int
    better_share: float
    worse_share: float
    difference: float
    interval: tuple[float, float] = Field(description="Of the difference: Newcombe, 95 %.")


class Rate(_Frozen):
    """A count out of another, with its Wilson 95 % interval."""

    count: int
    of: int
    share: float
    interval: tuple[float, float]


class GroupBias(_Frozen):
    """One file or annotator whose judgements differ from those of the others."""

    group: str
    by: Literal["file", "annotator"]
    what: Literal["longer_wins", "rejected_records"]
    here: Rate
    elsewhere: Rate


class Bias(_Frozen):
    """All figures of bias; null where the logs hold nothing to count."""

    length: LengthBias | None = None
    refusals: SideBias | None = None
    markdown: SideBias | None = None
    prompt_echo: SideBias | None = None
    liked: Rate | None = Field(default=None, description="Share of the labelled responses that are liked.")
    first_wins: Rate | None = Field(
        default=None,
        description="Pairs won by the response that stands first in the log, where a shape has such an order.",
    )
    groups: tuple[GroupBias, ...] = ()


class Findings(_Frozen):
    """The report of `lint`.

    >>> Findings(files=(), findings=(), bias=Bias(), records=0, rows=0).verdict
    'OK'
    """

    version: Literal[1] = 1
    files: tuple[FileSummary, ...]
    records: int
    rows: int = Field(description="Pairs, ties and responses that came of the records and broke no rule of their own.")
    findings: tuple[Finding, ...] = Field(description="MAJOR first, in each severity in the order of the rules.")
    bias: Bias
    verdict: Verdict = "OK"
    ignored_files: tuple[str, ...] = Field(default=(), description="Files left aside for their ending.")
    not_checked: dict[str, str] = Field(default_factory=dict, description="Rules that were not applied, and why.")
