"""A column of texts as the bytes that compiled code reads."""

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
