"""Plain records of JSON lines, in one compiled pass over the bytes: their texts, and the places of all other lines.

A line is plain where it is an object of the wanted columns, each once and each a text, in any order, with nothing but one
blank behind a colon or comma; without control characters but tabs and line ends, halves of surrogate pairs, bytes that are no
UTF-8 (RFC 3629, section 4), and escapes that nobody needs and that could hide a turn marker. Its texts must be sound, too.
"""

from typing import Any, NamedTuple

import numba
import numpy as np
import polars as pl
import pyarrow as pa

from rpo_data.schemas.frames import MAX_CHARACTERS

PROMPT, CHOSEN, REJECTED = 0, 1, 2
SIDES = ("prompt", "chosen", "rejected")

_NEW_LINE, _RETURN, _BLANK, _COMMA, _COLON, _OPEN, _CLOSE, _SLASH, _U = (ord(c) for c in "\n\r ,:{}\\u")
_QUOTE, _BACKSLASH, _WIDE, _BAD = 1, 2, 3, 4
_KINDS = np.zeros(256, dtype=np.uint8)
_KINDS[:0x20] = _KINDS[0x7F] = _BAD
_KINDS[0x80:] = _WIDE
_KINDS[ord('"')], _KINDS[ord("\\")] = _QUOTE, _BACKSLASH
_SHORT = np.zeros(256, dtype=np.uint8)  # what the letter of a short escape stands for
_SHORT[[ord(letter) for letter in '"\\/nrt']] = [ord(meant) for meant in '"\\/\n\r\t']
_DIGITS = np.array([int(chr(byte), 16) if chr(byte) in "0123456789abcdefABCDEF" else -1 for byte in range(256)])
_LEAST = np.array([0, 0, 0xA0, 0x800, 0x10000])  # code points of so many bytes; 0x80 to 0x9f are control characters
_ONE, _THREE, _SEVEN, _EIGHT, _BYTE, _ONES = (np.uint64(n) for n in (1, 3, 7, 8, 0xFF, 0x0101010101010101))
_BLANKS, _HIGH, _DELETES, _QUOTES, _BACKSLASHES = (
    _ONES * np.uint64(byte) for byte in (0x20, 0x80, 0x7F, ord('"'), ord("\\"))
)
_HUMAN, _ASSISTANT = (np.frombuffer(word, dtype=np.uint8) for word in (b"\n\nHuman:", b"\n\nAssistant:"))


class Plain(NamedTuple):
    """What `read_plain` finds.

    `texts` has the columns line (counted from 1), prompt, chosen, rejected, all of them stripped; `others` the number, start
    and end of each line that is not plain, shape (others, 3).
    """

    texts: pl.DataFrame
    others: np.ndarray
    lines: int


def read_plain(block: bytes, columns: tuple[str, ...]) -> Plain:
    r"""Read whole lines, the last of which may lack its end.

    Args:
        block: the lines.
        columns: chosen and rejected, where both are dialogues that differ in their last answers alone; or prompt, chosen and
            rejected.

    >>> read_plain(b'{"prompt": "Why?", "chosen": "So.", "rejected": " No"}\n{}\n', SIDES).texts.row(0)
    (1, '\n\nHuman: Why?', 'So.', 'No')
    """
    size = len(block)
    data = np.frombuffer(block if block.endswith(b"\n") else block + b"\n", dtype=np.uint8)
    words = np.frombuffer(data, dtype=np.uint64, count=size // 8)
    names = [np.frombuffer(f'"{name}":'.encode(), dtype=np.uint8) for name in SIDES]
    wanted = np.array([name in columns for name in SIDES])
    lines = block.count(b"\n") + (size > 0 and not block.endswith(b"\n"))
    text = np.empty((3, size), dtype=np.uint8)
    ends = np.zeros((3, lines + 1), dtype=np.int64)
    numbers, others = np.empty(lines, dtype=np.int64), np.empty((lines, 3), dtype=np.int64)
    plain = _read(data, words, tuple(names), wanted, text, ends, numbers, others)
    others = others[: lines - plain]
    others[:, 2] = np.minimum(others[:, 2], size)
    sides = {side: _strings(text[place], ends[place, : plain + 1]) for place, side in enumerate(SIDES)}
    return Plain(pl.DataFrame({"line": numbers[:plain], **sides}), others, lines)


def _strings(text: np.ndarray, ends: np.ndarray) -> pl.Series:
    """The texts between the ends, nothing copied."""
    column = pl.from_arrow(pa.LargeStringArray.from_buffers(len(ends) - 1, pa.py_buffer(ends), pa.py_buffer(text)))
    assert isinstance(column, pl.Series)
    return column


@numba.njit(cache=True, nogil=True)
def _read(
    data: np.ndarray,
    words: np.ndarray,
    names: tuple[np.ndarray, ...],
    wanted: np.ndarray,
    text: np.ndarray,
    ends: np.ndarray,
    numbers: np.ndarray,
    others: np.ndarray,
) -> int:
    """Fill in the texts of each side, one behind the other, their ends, line numbers, other lines; how many are plain."""
    decoded = np.empty(len(data), dtype=np.uint8)  # the texts of one line
    breaks = np.empty(len(data) // 2 + 1, dtype=np.int64)  # where line ends are in `decoded`
    spans = np.empty((3, 4), dtype=np.int64)  # of each side: start and end in `decoded`, start and end in `breaks`
    start: Any = np.int64(0)  # a bare 0 would be another type to the compiler
    plain = rest = 0
    for line in range(1, len(numbers) + 1):
        at, good = _record(data, words, start, names, wanted, decoded, breaks, spans)
        good = good and (_preference(decoded, spans) if wanted[PROMPT] else _dialogues(decoded, breaks, spans))
        if good:
            for side in range(3):
                to = ends[side, plain]
                if side == PROMPT and wanted[PROMPT]:
                    to = _copy(_HUMAN, 0, len(_HUMAN), text[side], to)
                    text[side, to] = _BLANK
                    to += 1
                ends[side, plain + 1] = _copy(decoded, spans[side, 0], spans[side, 1], text[side], to)
            numbers[plain] = line
            plain += 1
        while data[at] != _NEW_LINE:
            at += 1
        if not good:
            others[rest, 0], others[rest, 1], others[rest, 2] = line, start, at + 1
            rest += 1
        start = at + 1
    return plain


@numba.njit(cache=True, nogil=True)
def _copy(source: np.ndarray, start: int, end: int, target: np.ndarray, to: int) -> int:
    for at in range(start, end):
        target[to + at - start] = source[at]
    return to + end - start


# -- the grammar: each function stops at the line's end at the latest, since that fits nowhere -----------------------------


@numba.njit(cache=True, nogil=True)
def _record(
    data: np.ndarray,
    words: np.ndarray,
    at: int,
    names: tuple[np.ndarray, ...],
    wanted: np.ndarray,
    decoded: np.ndarray,
    breaks: np.ndarray,
    spans: np.ndarray,
) -> tuple[int, bool]:
    """Decode the texts of the line that starts here: how far it could be read, and whether that is its end."""
    if data[at] != _OPEN:
        return at, False
    spans[:] = -1
    to, noted, sides = np.int64(0), np.int64(0), wanted.sum()
    for number in range(sides):
        if number:
            if data[at] != _COMMA:
                return at, False
            at += 1 if data[at + 1] == _BLANK else 0
        at += 1
        side = _side(data, at, names)
        if side < 0 or not wanted[side] or spans[side, 0] >= 0:
            return at, False
        at += len(names[side])
        at += 1 if data[at] == _BLANK else 0
        if _KINDS[data[at]] != _QUOTE:
            return at, False
        spans[side, 0], spans[side, 2] = to, noted
        at, to, noted = _text(data, words, at + 1, decoded, to, breaks, noted)
        if to < 0:
            return at, False
        spans[side, 1], spans[side, 3] = to, noted
    if data[at] != _CLOSE:
        return at, False
    at += 1
    at += 1 if data[at] == _RETURN else 0
    return at, data[at] == _NEW_LINE


@numba.njit(cache=True, nogil=True)
def _side(data: np.ndarray, at: int, names: tuple[np.ndarray, ...]) -> int:
    """The side whose name, quotes and colon stand here, or -1."""
    for side in range(3):
        if _starts(data, at, len(data), names[side]):
            return side
    return -1


@numba.njit(cache=True, nogil=True)
def _starts(data: np.ndarray, at: int, end: int, word: np.ndarray) -> bool:
    if end - at < len(word):
        return False
    return _same(data, at, word, 0, len(word))


@numba.njit(cache=True, nogil=True)
def _same(one: np.ndarray, at: int, other: np.ndarray, place: int, size: int) -> bool:
    for step in range(size):  # noqa: SIM110 (the compiler knows no generators)
        if one[at + step] != other[place + step]:
            return False
    return True


@numba.njit(cache=True, nogil=True)
def _text(
    data: np.ndarray, words: np.ndarray, at: int, decoded: np.ndarray, to: int, breaks: np.ndarray, noted: int
) -> tuple[int, int, int]:
    """Decode a text whose opening quote is behind us: places behind its closing quote, its last byte (or -1), its breaks."""
    while True:
        at, to = _copy_run(data, words, at, decoded, to)
        kind = _KINDS[data[at]]
        if kind == _QUOTE:
            return at + 1, to, noted
        if kind == _WIDE:
            size = _decode(data, at)[1]
            if size == 0:
                return at, -1, noted
            to = _copy(data, at, at + size, decoded, to)
            at += size
            continue
        if kind != _BACKSLASH:
            return at, -1, noted
        byte = _SHORT[data[at + 1]]
        if byte == _NEW_LINE:
            breaks[noted] = to
            noted += 1
        if byte:
            decoded[to] = byte
            at += 2
            to += 1
            continue
        point, size = _long_escape(data, at)
        if size == 0:
            return at, -1, noted
        to = _encode(point, decoded, to)
        at += size


@numba.njit(cache=True, nogil=True)
def _copy_run(data: np.ndarray, words: np.ndarray, at: int, decoded: np.ndarray, to: int) -> tuple[Any, Any]:
    """Copy up to the next byte that does not stand for itself.

    Eight are looked at together (Mycroft's test for a zero byte), which may see one where there is none, never the reverse.
    """
    source: Any = np.uint64(at)  # unsigned: no index from behind
    target: Any = np.uint64(to)
    count = np.uint64(len(words))
    while _KINDS[data[source]] == 0:
        if source & _SEVEN == 0 and source >> _THREE < count:
            word = words[source >> _THREE]
            found = (word - _BLANKS) | word
            found |= ((word ^ _QUOTES) - _ONES) | ((word ^ _BACKSLASHES) - _ONES) | ((word ^ _DELETES) - _ONES)
            if found & _HIGH == 0:
                for _ in range(8):
                    decoded[target] = word & _BYTE
                    word >>= _EIGHT
                    target += _ONE
                source += _EIGHT
                continue
        decoded[target] = data[source]
        source += _ONE
        target += _ONE
    end: Any = np.int64(source)
    return end, np.int64(target)


@numba.njit(cache=True, nogil=True)
def _decode(data: np.ndarray, at: int) -> tuple[int, int]:
    """Code point and size of the character of several bytes that starts here; a size of 0 where it is none or not plain."""
    lead: Any = np.int64(data[at])
    size = 0 if lead < 0xC2 or lead > 0xF4 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    point = lead & (0x7F >> size)
    for place in range(1, size):
        byte: Any = np.int64(data[at + place])
        if byte & 0xC0 != 0x80:
            return 0, 0
        point = point << 6 | byte & 0x3F
    half = 0xD800 <= point <= 0xDFFF
    if size == 0 or half or point < _LEAST[size] or point > 0x10FFFF or point == 0xFFFE or point == 0xFFFF:
        return 0, 0
    return point, size


@numba.njit(cache=True, nogil=True)
def _long_escape(data: np.ndarray, at: int) -> tuple[int, int]:
    r"""Code point and size of the escape, or two, with digits (\u) that starts here; a size of 0 where it is none or not plain.

    Plain are those of what is neither a letter or colon of ASCII, nor a control character, nor half of a surrogate pair.
    """
    if data[at + 1] != _U:
        return 0, 0
    point = _four_digits(data, at + 2)
    if 0xD800 <= point <= 0xDBFF and data[at + 6] == _SLASH and data[at + 7] == _U:
        low = _four_digits(data, at + 8)
        return 0x10000 + ((point - 0xD800) << 10) + (low - 0xDC00), 12 if 0xDC00 <= low <= 0xDFFF else 0
    plain = 0x20 <= point < 0x40 and point != _COLON
    plain = plain or 0xA0 <= point < 0xD800 or 0xE000 <= point < 0xFFF0
    return point, 6 if plain else 0


@numba.njit(cache=True, nogil=True)
def _four_digits(data: np.ndarray, at: int) -> int:
    """The hexadecimal number that starts here, or -1."""
    number = 0
    for place in range(at, at + 4):
        digit = _DIGITS[data[place]]
        if digit < 0:
            return -1
        number = number << 4 | digit
    return number


@numba.njit(cache=True, nogil=True)
def _encode(point: int, target: np.ndarray, to: int) -> int:
    """Write a code point as UTF-8; the place behind it."""
    size = 1 if point < 0x80 else 2 if point < 0x800 else 3 if point < 0x10000 else 4
    if size == 1:
        target[to] = point
        return to + 1
    for place in range(size - 1, 0, -1):
        target[to + place] = 0x80 | point & 0x3F
        point >>= 6
    target[to] = (0xF00 >> size) & 0xFF | point
    return to + size


# -- what the texts must be; `spans` are cut to what is kept of them -------------------------------------------------------


@numba.njit(cache=True, nogil=True)
def _preference(text: np.ndarray, spans: np.ndarray) -> bool:
    """Whether prompt and answers hold words and the answers differ."""
    _strip(text, spans[PROMPT])
    size = spans[PROMPT, 1] - spans[PROMPT, 0]
    return 0 < size <= MAX_CHARACTERS - len(_HUMAN) - 1 and _answers(text, spans)


@numba.njit(cache=True, nogil=True)
def _dialogues(text: np.ndarray, breaks: np.ndarray, spans: np.ndarray) -> bool:
    """Whether both are human and assistant in turn, each turn one blank and then words, and alike but for the last answer.

    Both are cut behind the last assistant marker of chosen. An answer may have outer blanks.
    """
    start, end = spans[CHOSEN, 0], spans[CHOSEN, 1]
    turn, human, last = start, True, -1  # turn: where the words of the present one begin; human: whose marker is next
    for place in range(spans[CHOSEN, 2], spans[CHOSEN, 3]):
        at = breaks[place]
        if at + 1 >= end or text[at + 1] != _NEW_LINE:
            continue
        right, wrong = (_HUMAN, _ASSISTANT) if human else (_ASSISTANT, _HUMAN)
        if _starts(text, at, end, right):
            if not (at == start or (turn > start and _is_tidy(text, turn, at))):
                return False
            turn, human, last = at + len(right), not human, at
        elif _starts(text, at, end, wrong):
            return False
    head = turn - start
    behind = spans[REJECTED, 0] + head
    if not human or last < 0 or behind > spans[REJECTED, 1]:
        return False
    if not _same(text, spans[REJECTED, 0], text, start, head):
        return False
    for place in range(spans[REJECTED, 2], spans[REJECTED, 3]):
        at = breaks[place]
        if at >= behind and _is_marker(text, at, spans[REJECTED, 1]):
            return False
    spans[PROMPT, 0], spans[PROMPT, 1], spans[CHOSEN, 0], spans[REJECTED, 0] = start, last, turn, behind
    return last - start <= MAX_CHARACTERS and _answers(text, spans)


@numba.njit(cache=True, nogil=True)
def _is_marker(text: np.ndarray, at: int, end: int) -> bool:
    return _starts(text, at, end, _HUMAN) or _starts(text, at, end, _ASSISTANT)


@numba.njit(cache=True, nogil=True)
def _is_tidy(text: np.ndarray, start: int, end: int) -> bool:
    """Whether this is one blank and then words, without other blanks around them."""
    if end - start < 2 or text[start] != _BLANK:
        return False
    span = np.array([start + 1, end])
    _strip(text, span)
    return span[0] == start + 1 and span[1] == end


@numba.njit(cache=True, nogil=True)
def _answers(text: np.ndarray, spans: np.ndarray) -> bool:
    """Whether both answers hold words, not too many, and differ."""
    for side in (CHOSEN, REJECTED):
        _strip(text, spans[side])
        if not 0 < spans[side, 1] - spans[side, 0] <= MAX_CHARACTERS:
            return False
    size = spans[CHOSEN, 1] - spans[CHOSEN, 0]
    as_long = size == spans[REJECTED, 1] - spans[REJECTED, 0]
    return not (as_long and _same(text, spans[CHOSEN, 0], text, spans[REJECTED, 0], size))


@numba.njit(cache=True, nogil=True)
def _strip(text: np.ndarray, span: np.ndarray) -> None:
    """Cut white space (Unicode's property) from both ends of a text."""
    while span[0] < span[1]:
        point, size = _character(text, span[0])
        if not _is_space(point):
            break
        span[0] += size
    while span[0] < span[1]:
        at = span[1] - 1
        while text[at] & 0xC0 == 0x80:
            at -= 1
        if not _is_space(_character(text, at)[0]):
            break
        span[1] = at


@numba.njit(cache=True, nogil=True)
def _character(text: np.ndarray, at: int) -> tuple[int, int]:
    point: Any = np.int64(text[at])
    return (point, 1) if point < 0x80 else _decode(text, at)


@numba.njit(cache=True, nogil=True)
def _is_space(point: int) -> bool:
    if point < 0x80:
        return point == _BLANK or 9 <= point <= 13
    few = point == 0xA0 or point == 0x1680 or point == 0x202F or point == 0x205F or point == 0x3000
    return few or 0x2000 <= point <= 0x200A or 0x2028 <= point <= 0x2029
