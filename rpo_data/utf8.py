"""A column of texts as the bytes that compiled code reads."""

import numba
import numpy as np
import polars as pl


def utf8_bytes(texts: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """The UTF-8 bytes of all texts, one after the other, null as empty.

    Returns:
        The bytes, uint8, read only; and where each text begins and the last one ends, int64 (texts + 1,).
    """
    arrow = texts.fill_null("").rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    _, ends, data = arrow.buffers()
    offsets = np.zeros(len(texts) + 1, dtype=np.int64)
    if len(texts):
        offsets[:] = np.frombuffer(ends, dtype=np.int64)[arrow.offset : arrow.offset + len(texts) + 1]
    return np.frombuffer(data or b"", dtype=np.uint8), offsets


@numba.njit(cache=True, nogil=True)
def mix(value: np.uint64) -> np.uint64:
    """The finaliser of MurmurHash3: every bit of the input moves every bit of the output."""
    value ^= value >> np.uint64(33)
    value *= np.uint64(0xFF51AFD7ED558CCD)
    value ^= value >> np.uint64(33)
    value *= np.uint64(0xC4CEB9FE1A85EC53)
    return value ^ (value >> np.uint64(33))
