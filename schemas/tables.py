"""Arrow features of the published tables (format version 2). A row number is an int64, counted from 0 inside its split."""

from datasets import Features, Json, List, Value

FORMAT_VERSION = 2
SINCE_VERSION_2 = {"strength"}
"""Columns of `pairs` that version 1 does not have; it is read without them."""

MESSAGE = {
    "role": Value("string"),
    "content": Value("string"),  # null only where tool_calls is given
    "name": Value("string"),
    "tool_calls": Json(),
    "tool_call_id": Value("string"),
}

PAIRS = Features(
    {
        "pair_id": Value("string"),  # xxh3-128 of prompt, chosen and rejected, 32 hex digits
        "prompt_id": Value("string"),  # xxh3-128 of the prompt's messages, 32 hex digits
        "prompt": List(MESSAGE),
        "chosen": List(MESSAGE),
        "rejected": List(MESSAGE),
        "score_chosen": Value("float64"),  # as in the logs; null where the logs give none
        "score_rejected": Value("float64"),
        "strength": Value("float64"),  # how much better chosen is, in the log's own unit; null where it does not say
        "weight": Value("float32"),  # as in the logs, scaled to mean 1 over the dataset
        "annotator": Value("string"),
        "language": Value("string"),
        "source": Value("string"),  # name of the log file
        "source_row": Value("int64"),  # line (JSON lines, CSV) or record in it, counted from 1
        "flags": List(Value("string")),
    }
)

RESPONSES = Features(
    {
        "response_id": Value("string"),  # xxh3-128 of prompt and completion, 32 hex digits
        "prompt_id": Value("string"),
        "prompt": List(MESSAGE),
        "completion": List(MESSAGE),
        "label": Value("bool"),  # liked or disliked; null in scored mode, where score or rank decides
        "score": Value("float64"),  # as in the logs, higher is better; null where the logs give none
        "rank": Value("int64"),  # 1 is best among the responses of one record; null where the logs give none
        "weight": Value("float32"),
        "annotator": Value("string"),
        "language": Value("string"),
        "source": Value("string"),
        "source_row": Value("int64"),
        "flags": List(Value("string")),
    }
)

GROUPS = Features(
    {
        "group_id": Value("string"),  # split-view-number
        "view": Value("int32"),
        "win_rows": List(Value("int64")),  # rows of `pairs` or `responses`, same split
        "loss_rows": List(Value("int64")),
        "similarity": List(List(Value("float32"))),  # wins x losses: cosine of the two prompts
        "weight": List(List(Value("float32"))),  # wins x losses: 0 exactly where the cell is masked
    }
)

NEIGHBORS = Features(
    {
        "prompt_id": Value("string"),
        "neighbors": List(Value("int64")),  # rows of this table, same split, nearest first
        "similarity": List(Value("float32")),
    }
)

REJECTS = Features(
    {
        "code": Value("string"),  # see reasons.py
        "message": Value("string"),
        "file": Value("string"),
        "line": Value("int64"),  # line (JSON lines, CSV) or record, counted from 1; 0 where the whole file is meant
        "raw": Value("string"),  # the record as it stood in the log
    }
)


def vectors_features(dimension: int) -> Features:
    """Features of the `vectors` table for embeddings of this dimension (unit length, float32)."""
    return Features({"prompt_id": Value("string"), "vector": List(Value("float32"), length=dimension)})
