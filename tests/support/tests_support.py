"""What several test files need."""

import polars as pl


def pair(number: int, **more) -> dict:
    """A small TRL preference record that passes every check."""
    return {"prompt": f"question {number}?", "chosen": f"good answer {number}", "rejected": f"bad {number}"} | more


def response_rows(*rows):
    """Rows (prompt, text, judgement) or (prompt, text, judgement, {other columns}), in canonical order."""
    frame = []
    for number, (prompt, text, judged, *more) in enumerate(rows):
        row = {"prompt_id": prompt, "chosen_id": text, "label": None, "score": None, "rank": None, "annotator": None}
        row |= {"source": "log", "source_row": number}
        row |= {"label": judged} if isinstance(judged, bool) else {"score": judged}
        frame.append(row | (more[0] if more else {}))
    schema = dict.fromkeys(("prompt_id", "chosen_id", "annotator", "source"), pl.String) | {
        "label": pl.Boolean, "score": pl.Float64, "rank": pl.Int64, "source_row": pl.Int64,
    }  # fmt: skip
    return pl.DataFrame(frame, schema=schema)
