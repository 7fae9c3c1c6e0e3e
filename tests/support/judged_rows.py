"""Tables of judged rows, written as a person would say them, in the canonical order of `rpo_data.rows.identities`."""

import polars as pl
import xxhash
from hypothesis import strategies as st

IDS = ["pair_id", "prompt_id", "chosen_id", "rejected_id", "kind", "annotator", "language", "source"]


def judged(*lines: str) -> pl.DataFrame:
    """Rows of lines like "p A > B", "p A = B" or "p A > B by ann"; line n stands in log:n."""
    rows = []
    for number, line in enumerate(lines, 1):
        prompt, chosen, sign, rejected, *by = line.split()
        kind = "tie" if sign == "=" else "pair"
        rows.append(row(prompt, chosen, rejected, kind, by[1] if by else None, "log", number))
    return canonical(rows)


def row(prompt, chosen, rejected, kind, annotator, source, source_row) -> dict:
    return {
        "pair_id": f"{prompt} {chosen} {rejected}",
        "prompt_id": prompt,
        "chosen_id": chosen,
        "rejected_id": rejected,
        "kind": kind,
        "annotator": annotator,
        "source": source,
        "source_row": source_row,
    }


def hashed_row(prompt, chosen, rejected, kind, annotator, source, source_row) -> dict:
    """The same from real texts: each is stood for by the hash of what is left without outer blanks."""
    texts = (xxhash.xxh3_128_hexdigest(text.strip().encode()) for text in (prompt, chosen, rejected))
    return row(*texts, kind, annotator, source, source_row)


def canonical(rows: list[dict]) -> pl.DataFrame:
    """In canonical order; `position` is the place in the given list."""
    schema = dict.fromkeys(IDS, pl.String) | {"source_row": pl.Int64}
    frame = pl.DataFrame(rows, schema=schema | {"score_chosen": pl.Float64, "score_rejected": pl.Float64})
    unscored = pl.col("score_chosen").is_null()
    place = ["prompt_id", "pair_id", "annotator", unscored, "source", "source_row", "position"]
    return frame.with_row_index("position").sort(place, nulls_last=False)


def said(rows: pl.DataFrame) -> list[str]:
    """Rows as "p A > B", in their order."""
    signs = {"pair": ">", "tie": "="}
    return [f"{r['prompt_id']} {r['chosen_id']} {signs[r['kind']]} {r['rejected_id']}" for r in rows.to_dicts()]


def lines_of(rows: pl.DataFrame, left_out: list) -> tuple[list[int], dict[int, tuple[str, str]]]:
    """Lines that stay, and line -> (code, sentence) of those left out; a line left out twice is an error."""
    line = dict(rows.select("position", "source_row").iter_rows())
    gone: dict[int, tuple[str, str]] = {}
    for reason in left_out:
        for position, sentence in zip(reason.position, reason.sentence, strict=True):
            assert line[position] not in gone
            gone[line[position]] = (reason.code, sentence)
    return sorted(set(line.values()) - gone.keys()), gone


def codes(rows: pl.DataFrame, left_out: list) -> dict[int, str]:
    return {line: code for line, (code, _) in sorted(lines_of(rows, left_out)[1].items())}


@st.composite
def any_lines(
    draw, prompts="pqr", responses="ABCD", annotators=(None, None, "x", "y", "z"), kinds=("pair", "pair", "tie")
):
    """Up to 25 random judgements of few prompts and responses, as dicts for `canonical`."""
    rows = []
    for number in range(draw(st.integers(0, 25))):
        chosen, rejected = draw(st.permutations(responses))[:2]
        prompt, kind, by = (draw(st.sampled_from(choice)) for choice in (prompts, kinds, annotators))
        rows.append(row(prompt, chosen, rejected, kind, by, "log", number))
    return rows
