"""The rules: code -> what it means, how grave it is, and how a build is told to keep what breaks it.

The codes stand in `rejects.parquet`, in the manifest and in the report of `lint`; they are part of the format.
"""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["MAJOR", "MINOR"]


@dataclass(frozen=True)
class Rule:
    """One rule; `switch` is what makes a build keep what breaks it, empty where nothing is left that could be kept."""

    severity: Severity
    reason: str
    switch: str = ""


RULES: dict[str, Rule] = {
    # the file
    "empty_file": Rule("MAJOR", "the file holds no record"),
    "truncated_file": Rule(
        "MAJOR", "the compressed file ends too early: what came before was read, copy the file again for the rest"
    ),
    "corrupt_file": Rule("MAJOR", "the file cannot be read from here on: copy or export it again"),
    # the record
    "broken_json": Rule("MINOR", "not valid JSON"),
    "broken_row": Rule("MINOR", "the CSV row has more or fewer cells than the header"),
    "duplicate_column": Rule("MAJOR", "a table has a column twice, or an object a key: rename or drop one of them"),
    "invalid_utf8": Rule("MINOR", "not valid UTF-8: export the logs as UTF-8"),
    "line_too_long": Rule("MINOR", "the line is longer than any record should be: is the file JSON lines?"),
    "not_an_object": Rule("MINOR", "the record is not a JSON object"),
    "unknown_shape": Rule(
        "MINOR", "the record has no shape that is known: map its columns or name its shape", "--columns"
    ),
    "ambiguous_shape": Rule("MINOR", "two shapes claim the record: say which with --format", "--format"),
    "missing_column": Rule("MINOR", "a column that this shape needs is not there", "--columns"),
    "missing_value": Rule("MINOR", "a needed value is null"),
    "wrong_type": Rule("MINOR", "a value has a type that this shape does not allow"),
    "no_turn_marker": Rule(
        "MINOR", "the dialogue does not go from '\\n\\nHuman:' turns to a last '\\n\\nAssistant:' turn"
    ),
    "no_judgement": Rule("MINOR", "no response is compared, labelled, scored or ranked"),
    "unknown_judgement": Rule("MINOR", "the judgement is none of those that the shape knows"),
    "lone_surrogate": Rule("MINOR", "the text holds half of a surrogate pair, which no UTF-8 file can hold"),
    "bad_vector": Rule("MINOR", "the vector of this record cannot be used"),
    # the row
    "prompts_differ": Rule("MINOR", "chosen and rejected do not answer the same prompt"),
    "empty_prompt": Rule("MINOR", "the prompt is empty"),
    "empty_response": Rule("MINOR", "chosen or rejected is empty"),
    "identical_responses": Rule("MINOR", "chosen and rejected are the same text"),
    "not_a_number": Rule("MINOR", "a number is NaN or infinite: write null where it is not known"),
    "bad_weight": Rule("MINOR", "a weight is not above 0"),
    "too_long": Rule("MINOR", "a text is longer than the limit", "--ignore"),
    "roles_out_of_order": Rule("MINOR", "a role is unknown or stands where it cannot", "--ignore"),
    "prompt_ends_with_assistant": Rule("MINOR", "the prompt ends with an assistant turn", "--ignore"),
    "no_assistant_turn": Rule("MINOR", "chosen or rejected does not end in an assistant turn", "--ignore"),
    "control_characters": Rule("MINOR", "a text holds control characters", "--ignore"),
    "collapsed": Rule("MINOR", "chosen and rejected are the same after truncation", "--ignore"),
    # several rows
    "tie": Rule("MINOR", "the two responses are judged equal: kept for masks and votes, never trained on"),
    "no_pair": Rule("MINOR", "no other response to this prompt is judged on the same scale"),
    "not_paired": Rule("MINOR", "stands in no pair under the pairing rule", "--pairing all"),
    "no_label": Rule("MINOR", "neither liked nor disliked, as unpaired mode needs it", "--mode scored"),
    "no_score": Rule("MINOR", "neither scored nor ranked, as scored mode needs it", "--mode unpaired"),
    "no_counterpart": Rule("MINOR", "no group has another response that it could be contrasted with"),
    "outvoted": Rule("MINOR", "more annotators judge it otherwise", "--annotators keep"),
    "no_majority": Rule("MINOR", "its annotators are split evenly", "--annotators keep"),
    "not_unanimous": Rule("MINOR", "its annotators do not all agree", "--annotators keep"),
    "conflict": Rule(
        "MAJOR",
        "one response, or two against each other, to the same prompt are judged both ways",
        "--conflicts keep-and-mask",
    ),
    "cycle": Rule("MAJOR", "the judgements of one prompt go in a circle", "--conflicts keep-and-mask"),
    "near_conflict": Rule(
        "MAJOR",
        "the same responses to a near-identical prompt are judged the other way",
        "--conflicts keep-and-mask",
    ),
    "bridges_splits": Rule(
        "MINOR", "the prompt belongs to train and to test prompts of the previous build", "no --previous"
    ),
    "no_contrast": Rule("MINOR", "contradicted, and so is every row it could share a group with"),
    "duplicate": Rule("MINOR", "the same row stands earlier in the logs: merged into that one"),
    "near_duplicate": Rule("MINOR", "nearly the same row as another one: merged into that one", "--duplicates exact"),
    # what only lint reports
    "type_changes": Rule("MINOR", "a column holds values of different JSON types", "always kept"),
    "text_both_sides": Rule(
        "MINOR", "one response is chosen here and rejected there: legitimate across prompts", "always kept"
    ),
    "scores_disagree": Rule("MINOR", "the rejected response has the higher score", "always kept"),
    "length_bias": Rule("MINOR", "the length of a response tells which one is better", "always kept"),
    "label_imbalance": Rule("MINOR", "liked or disliked responses are rare", "always kept"),
    "refusals": Rule("MINOR", "refusals stand more often on one side", "always kept"),
    "markdown": Rule("MINOR", "markdown stands more often on one side", "always kept"),
    "prompt_echo": Rule("MINOR", "responses that repeat the question stand more often on one side", "always kept"),
    "position_bias": Rule(
        "MINOR", "the response that stands first in the record wins more or less often than half", "always kept"
    ),
    "source_bias": Rule(
        "MINOR", "in one file or for one annotator longer responses win much more or less often", "always kept"
    ),
    "personal_data": Rule(
        "MINOR", "a text holds e-mail, phone, IP or card numbers, or keys: --redact replaces them", "always kept"
    ),
    "mixed_languages": Rule(
        "MINOR", "the prompts are in several languages: --detect-language keeps groups apart", "always kept"
    ),
    "contamination": Rule("MAJOR", "a text shares a run of 13 words with an evaluation set", "no --eval"),
    # rows merged into others
    "semantic_duplicate": Rule(
        "MINOR", "the same row as one whose prompt means the same: merged into that one", "--duplicates near"
    ),
}

MERGED = ("duplicate", "near_duplicate", "semantic_duplicate")
"""The codes that are no rejects: the row lives on in the one it was merged into."""
