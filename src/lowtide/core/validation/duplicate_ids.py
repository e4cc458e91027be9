"""Which lines of an input file give a custom_id that an earlier line has given already.

The validator passes in the ids block by block and asks once, after the last of them. A million ids
as Python strings in a set are 140 MB; here each is its text in one long buffer, five bytes beside
it, and a 64-bit fingerprint. Only ids whose fingerprints are equal are compared, and these by their
text: a fingerprint shared by chance costs time, never a result. Pure.
"""

from array import array
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import Final

import numpy as np
import numpy.typing as npt

from lowtide import limits

_DIGEST_MARK: Final = b"\xff"  # no byte of UTF-8: a digest is never taken for somebody's text

Lines = npt.NDArray[np.uint32]


class CustomIds:
    """The ids of one file with their line numbers, in file order."""

    def __init__(self, fingerprint: Callable[[str], int] = hash) -> None:
        """`fingerprint` fits 64 bits with a sign. Python's own is as fast as it gets, and no
        submitter can foresee it."""
        self._fingerprint = fingerprint
        self._fingerprints = array("q")
        self._lines = array("I")
        self._lengths = array("B")
        self._texts = bytearray()

    def add(self, custom_ids: Sequence[str], lines: Iterable[int]) -> None:
        """Adds the next ids, and as many line numbers: each above the one before."""
        texts = [custom_id.encode() for custom_id in custom_ids]
        if max(map(len, texts), default=0) > limits.CUSTOM_ID_BYTES_KEPT:
            texts = [_shortened(text) for text in texts]
        self._fingerprints.extend(map(self._fingerprint, custom_ids))
        self._lines.extend(lines)
        self._lengths.extend(map(len, texts))
        self._texts += b"".join(texts)

    def repeated(self) -> Lines:
        """The lines whose id an earlier line has, ascending."""
        fingerprints = np.array(self._fingerprints, np.int64)
        fingerprints.sort()
        again = fingerprints[1:][fingerprints[1:] == fingerprints[:-1]]
        if not len(again):
            return np.empty(0, np.uint32)
        places = np.array(self._alike(np.unique(again)), np.int64)
        lines: Lines = np.array(self._lines, np.uint32)[places]
        lines.sort()
        return lines

    def _alike(self, shared: npt.NDArray[np.int64]) -> "array[int]":
        """The places of those ids with these fingerprints that repeat the text of an earlier one.

        Fingerprint by fingerprint, so that what is remembered at once is most often one text.
        """
        fingerprints = np.array(self._fingerprints, np.int64)
        suspects = np.flatnonzero(np.isin(fingerprints, shared))
        suspects = suspects[np.argsort(fingerprints[suspects], kind="stable")]
        ends = np.cumsum(np.array(self._lengths, np.uint8), dtype=np.int64)
        alike, texts, last = array("q"), set[bytes](), None
        for place in map(int, suspects):
            if self._fingerprints[place] != last:
                texts.clear()
                last = self._fingerprints[place]
            end = int(ends[place])
            text = bytes(self._texts[end - self._lengths[place] : end])
            if text in texts:
                alike.append(place)
            else:
                texts.add(text)
        return alike


def _shortened(text: bytes) -> bytes:
    """What stands for an id: itself, or for a long one the digest that files are known by, too."""
    if len(text) <= limits.CUSTOM_ID_BYTES_KEPT:
        return text
    return _DIGEST_MARK + sha256(text).digest()


assert limits.CUSTOM_ID_BYTES_KEPT < 256, "a length is one byte"
