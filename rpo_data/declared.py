"""`dataset_info.json` of LLaMA-Factory: which files beside it are preference data, and what their columns are called.

Rules: data/README.md of github.com/hiyouga/LLaMA-Factory. An entry names its file, `formatting`, `ranking`, `columns` and
`tags`; columns that `columns` leaves out are not used. Before May 2024 `ranking` meant a list of answers, the best first.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rpo_data.errors import LogError
from rpo_data.records import Record

FILE_NAME = "dataset_info.json"

_ELSEWHERE = ("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")
_COLUMNS = {
    "prompt": "instruction", "query": "input", "response": "output", "history": "history",
    "messages": "conversations", "system": "system", "tools": "tools",
    "chosen": "chosen", "rejected": "rejected", "kto_tag": "kto_tag",
}  # fmt: skip
"""Key of `columns` -> what our shapes call the column."""

_DEFAULT = {key: _COLUMNS[key] for key in ("prompt", "query", "response", "messages")}
_FORMATS = {"alpaca": "alpaca", "sharegpt": "sharegpt", "openai": "sharegpt"}

_TAGS = {
    "role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt",
    "observation_tag": "observation", "function_tag": "function_call", "system_tag": "system",
}  # fmt: skip
_MESSAGE_COLUMNS = ("conversations", "chosen", "rejected")


@dataclass(frozen=True)
class Declared:
    """One file or folder that an entry declares.

    Attributes:
        entry: name of the entry.
        path: the file or folder.
        shape: name of its shape.
        columns: ours -> theirs.
        hidden: columns that the entry leaves out.
        tags: the entry's names of message keys and roles -> the usual ones.
    """

    entry: str
    path: Path
    shape: str
    columns: Mapping[str, str]
    hidden: tuple[str, ...]
    tags: Mapping[str, str]


def read_declared(file: Path) -> tuple[list[Declared], dict[str, Path | None]] | None:
    """What a `dataset_info.json` declares; None where it is not LLaMA-Factory's (the Hub's tools write one, too).

    Returns:
        The preference data, in order of the entries' names; and each entry that is left aside, with its file if it has one.

    Raises:
        LogError: an entry cannot be used; the sentence names it.
    """
    try:
        info = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise LogError(f"{FILE_NAME} cannot be read ({error}): mend it, or name the log files themselves") from error
    if not isinstance(info, dict) or not any(_declares(entry) for entry in info.values()):
        return None
    used, aside = [], {}
    for name in sorted(info):
        entry = info[name]
        if not _declares(entry):
            raise LogError(f"entry '{name}' of {FILE_NAME} names no file: add its file_name, or drop the entry")
        path = None if any(entry.get(key) for key in _ELSEWHERE) else _path(file, name, entry)
        columns = _texts(name, entry, "columns")
        if path is None or not (entry.get("ranking") is True or "kto_tag" in columns):
            aside[name] = path
        else:
            used.append(_declared(name, entry, path, columns))
    return used, aside


def as_declared(record: Record, hidden: tuple[str, ...], tags: Mapping[str, str], columns: Mapping[str, str]) -> Record:
    """A record without hidden columns, and with the usual keys and roles in its messages."""
    if not isinstance(record.data, dict):
        return record
    data = {name: value for name, value in record.data.items() if name not in hidden}
    for ours in _MESSAGE_COLUMNS if tags else ():
        theirs = columns.get(ours, ours)
        if theirs in data:
            data[theirs] = _usual(data[theirs], tags)
    return replace(record, data=data)


def _usual(value: Any, tags: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_usual(message, tags) for message in value]
    if not isinstance(value, dict):
        return value
    role, content = tags["role_tag"], tags["content_tag"]
    message = {key: kept for key, kept in value.items() if key not in (role, content)}
    if content in value:
        message["value"] = value[content]
    if role in value:
        roles = {tags[tag]: usual for tag, usual in _TAGS.items() if tag not in ("role_tag", "content_tag")}
        message["from"] = roles.get(value[role], value[role]) if isinstance(value[role], str) else value[role]
    return message


def _declares(entry: Any) -> bool:
    return isinstance(entry, dict) and any(
        entry.get(key) and isinstance(entry[key], str) for key in ("file_name", *_ELSEWHERE)
    )


def _path(file: Path, name: str, entry: Mapping[str, Any]) -> Path:
    path = file.parent / str(entry["file_name"])
    if not path.exists():
        raise LogError(
            f"entry '{name}' of {FILE_NAME} names {path.name}, which is not there: put it there, or drop the entry"
        )
    return path


def _declared(name: str, entry: Mapping[str, Any], path: Path, columns: Mapping[str, str]) -> Declared:
    formatting = entry.get("formatting", "alpaca")
    if formatting not in _FORMATS:
        raise LogError(f"entry '{name}' of {FILE_NAME} has the formatting {formatting}: write alpaca or sharegpt")
    missing = [side for side in ("chosen", "rejected") if side not in columns]
    ranked_lists = formatting == "alpaca" and len(missing) == 2
    if entry.get("ranking") is True and missing and not ranked_lists:
        raise LogError(f"entry '{name}' of {FILE_NAME} names no column for {missing[0]}: add it to its columns")
    shape = _FORMATS[formatting] if not missing else "alpaca_ranking"
    mapped = {_COLUMNS[key]: theirs for key, theirs in (columns or _DEFAULT).items() if key in _COLUMNS}
    tags = {tag: _texts(name, entry, "tags").get(tag, usual) for tag, usual in _TAGS.items()}
    return Declared(
        entry=name,
        path=path,
        shape=shape if entry.get("ranking") is True else "kto",
        columns={ours: theirs for ours, theirs in mapped.items() if ours != theirs},
        hidden=tuple(ours for ours in _COLUMNS.values() if ours not in mapped and ours not in mapped.values()),
        tags=tags if formatting != "alpaca" and tags != _TAGS else {},
    )


def _texts(name: str, entry: Mapping[str, Any], key: str) -> dict[str, str]:
    """An object of texts; a null says that there is none."""
    value = entry.get(key) or {}
    if not isinstance(value, dict) or not all(isinstance(text, (str, type(None))) for text in value.values()):
        raise LogError(f"entry '{name}' of {FILE_NAME} has {key} that are no object of names: mend it")
    return {part: text for part, text in value.items() if text is not None}
