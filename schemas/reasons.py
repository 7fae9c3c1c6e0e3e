"""Why a record or a row is left out: code -> one sentence with what to do about it.

The codes stand in `rejects.parquet` and in the manifest; they are part of the format.
"""

REASONS: dict[str, str] = {
    # the file
    "empty_file": "the file holds no record",
    "truncated_file": "the compressed file ends too early: what came before was read, copy the file again for the rest",
    "corrupt_file": "the file cannot be read from here on: copy or export it again",
    # the record
    "broken_json": "not valid JSON",
    "broken_row": "the CSV row has more or fewer cells than the header",
    "duplicate_column": "the table has a column twice: rename or drop one of them",
    "invalid_utf8": "not valid UTF-8: export the logs as UTF-8",
    "line_too_long": "the line is longer than any record should be: is the file JSON lines?",
    "not_an_object": "the record is not a JSON object",
    "missing_column": "a column that this shape needs is not there",
    "missing_value": "a needed value is null",
    "wrong_type": "a value has a type that this shape does not allow",
    "no_turn_marker": "the dialogue does not go from '\\n\\nHuman:' turns to a last '\\n\\nAssistant:' turn",
    "lone_surrogate": "the text holds half of a surrogate pair, which no UTF-8 file can hold",
    "bad_vector": "the vector of this record cannot be used",
    # the row
    "prompts_differ": "chosen and rejected do not answer the same prompt",
    "empty_prompt": "the prompt is empty",
    "empty_response": "chosen or rejected is empty",
    "identical_responses": "chosen and rejected are the same text",
    "not_a_number": "a number is NaN or infinite: write null where it is not known",
    "too_long": "a text is longer than the limit",
    "conflict": "the same two responses to the same prompt are judged both ways: both rows are left out",
    "duplicate": "the same row stands earlier in the logs: merged into that one",
}

MERGED = "duplicate"
"""The one code that is no reject: the row lives on in the one it was merged into."""
