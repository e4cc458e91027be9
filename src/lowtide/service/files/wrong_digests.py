"""What uploads turned out to hold that were not what their clients said they are.

Kept by service/files/uploads_completion.py, because finding it out takes reading the whole upload:
who asks again with the same parts is refused at once. Per process, and bounded: what is forgotten
is found out again. Invariant: a right digest is never refused.
"""

import hashlib
from collections import OrderedDict

import msgspec

from lowtide import limits
from lowtide.core.errors import LowtideError
from lowtide.core.files.upload import Choice, Upload


class Found(msgspec.Struct, frozen=True):
    """Digests in hex of the parts put together; `md5` "": it was not asked for."""

    sha256: str
    md5: str


class WrongDigests:
    """The digests found at completions that failed, by upload and by the chosen parts."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, dict[str, Found]] = OrderedDict()
        self._failures: dict[str, int] = {}

    def check(self, upload: Upload, choice: Choice) -> None:
        """Raises LowtideError `invalid_request` where the digests are known to be others."""
        known = self._known.get(upload.id, {}).get(_parts_of(choice))
        if known is not None and (refusal := mismatch(upload, choice, known)) is not None:
            raise refusal

    def note(self, upload: Upload, choice: Choice, digests: Found) -> int:
        """Records a failed reading. Returns how many there were of this upload."""
        self._known.setdefault(upload.id, {})[_parts_of(choice)] = digests
        self._known.move_to_end(upload.id)
        self._failures[upload.id] = self._failures.get(upload.id, 0) + 1
        while len(self._known) > limits.WRONG_DIGESTS_MAX:
            self.forget(next(iter(self._known)))
        return self._failures.get(upload.id, 0)

    def forget(self, upload_id: str) -> None:
        """Forgets an upload that has ended."""
        self._known.pop(upload_id, None)
        self._failures.pop(upload_id, None)


def mismatch(upload: Upload, choice: Choice, digests: Found) -> LowtideError | None:
    """Why these are not the bytes that were meant."""
    if upload.checksum not in ("", digests.sha256):
        return _other_bytes("SHA-256", digests.sha256, "checksum")
    if choice.md5 and digests.md5 and choice.md5 != digests.md5:
        return _other_bytes("MD5", digests.md5, "md5")
    return None


def _parts_of(choice: Choice) -> str:
    parts = msgspec.structs.replace(choice, md5="")
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()


def _other_bytes(kind: str, digest: str, param: str) -> LowtideError:
    return LowtideError(
        "invalid_request",
        f"The parts put together have the {kind} {digest}, which is not the one that was given: a"
        " part is missing, changed or in another place. The upload is as it was; after"
        f" {limits.COMPLETION_FAILURES_MAX} such readings it is cancelled.",
        param,
    )
