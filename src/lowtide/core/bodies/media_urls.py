"""URLs in request bodies that an engine would fetch: found, and held to the operator's rule.

Validation asks about each line's body, for batches and flex calls, and the service of live calls.
Pure. Lowtide itself fetches none of them; the rule is for what engines reach from where they stand.
Invariants: every member counts that an engine may read, also where its name is given twice or
spelled with escapes; a URL that programs read in several ways counts as one of another host.

Which members: those whose name ends in url, urls, uri or uris (`image_url`, `url` within it,
`file_url`, a tool's `server_url`), and those of media whose text begins with a scheme. Below
`metadata` there are none, since no engine reads it.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Final, Literal

import msgspec

from lowtide.limits import MEDIA_WORK_MAX

MediaSetting = Literal["pass", "refuse"] | tuple[str, ...]
"""`pass`: bodies go on as they are. A list: only URLs of these hosts. `refuse`: none but data:."""

_MARKS: Final = (b"url", b"uri", b"image", b"audio", b"video", b"file", b'data"', b"\\u")
"""What every body has that has such a member; most have none, and cost no parse."""
_URL_NAME: Final = re.compile(r"ur[il]s?\s*\Z", re.IGNORECASE)
_MEDIA_NAME: Final = re.compile(r"(?:image|audio|video|file|data)s?\s*\Z", re.IGNORECASE)
_SCHEME: Final = re.compile(r"\s*[a-z][a-z0-9+.-]*:", re.IGNORECASE)

_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9])?"
_HOST: Final = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:.]+\])"
_HOST_SETTING: Final = re.compile(rf"{_HOST}(?::[1-9][0-9]{{0,4}})?")
_URL: Final = re.compile(rf"(https?)://({_HOST})(?::([1-9][0-9]{{0,4}}))?(?:/[!-\[\]-~]*)?", re.I)
"""No user, no backslash, no blank, no character beyond ASCII, and a slash after the host: programs
disagree on where the host ends in anything else."""
_OWN_PORTS: Final = {"http": "80", "https": "443"}

_NONE_TAKEN: Final = (
    "'{name}' has a URL, and this server sends none to its engines: put the content itself there,"
    " as a data: URL."
)
_NOT_THAT: Final = (
    "'{name}' has a URL of a host that this server's operator does not allow, or one that can be"
    " read in several ways: use https://host/path with an allowed host, or a data: URL."
)
_TOO_MUCH: Final = (
    "The request body has more values than this server looks through for URLs: make it smaller."
)
_UNREADABLE: Final = "The request body cannot be looked through for URLs: it is no plain JSON."


def is_host(text: str) -> bool:
    """Whether it can stand in the list: a name or an address in lower case, perhaps with a port."""
    return _HOST_SETTING.fullmatch(text) is not None


class MediaRule(msgspec.Struct, frozen=True):
    """Which URLs may be there. `hosts` None: none but data: URLs."""

    hosts: frozenset[str] | None

    def refusal(self, body: bytes) -> tuple[str, str] | None:
        """The name of a member whose URL may not be there, and a sentence; None when there is none.
        A body that cannot be looked through has one, too: this comes after other checks of it.
        """
        lowered = body.lower()
        if not any(mark in lowered for mark in _MARKS):
            return None
        if _work(body) > MEDIA_WORK_MAX:
            return "body", _TOO_MUCH
        decoder = json.JSONDecoder(object_pairs_hook=self._judged, parse_int=float, strict=False)
        try:
            decoded = decoder.decode(body.decode(errors="replace"))
        except (ValueError, RecursionError):
            return "body", _UNREADABLE
        name = next(_refused(decoded), None)
        if name is None:
            return None
        return name, (_NONE_TAKEN if self.hosts is None else _NOT_THAT).format(name=name)

    def _judged(self, members: list[tuple[str, Any]]) -> "_Judged":
        """An object, of which only the first bad member stays. Called from the inside out."""
        for name, value in members:
            if name == "metadata":
                continue
            bad = next(_refused(value), None)
            if bad is None and not all(map(self._may_stand, _texts(value, name))):
                bad = name
            if bad is not None:
                return _Judged(bad)
        return _FINE

    def _may_stand(self, url: str) -> bool:
        if url.startswith("data:"):
            return True
        if self.hosts is None or (matched := _URL.fullmatch(url)) is None:
            return False
        scheme, host, port = matched[1].lower(), matched[2].lower(), matched[3]
        own = port is None or port == _OWN_PORTS[scheme]
        return (own and host in self.hosts) or f"{host}:{port or _OWN_PORTS[scheme]}" in self.hosts


class _Judged(msgspec.Struct, frozen=True):
    """An object of the body; `refused` names a member of it or below it."""

    refused: str | None


_FINE: Final = _Judged(None)


def _work(body: bytes) -> int:
    """How many values the body may have at most. An object counts for five."""
    return body.count(b",") + body.count(b"[") + 5 * body.count(b"{")


def _refused(value: object) -> Iterator[str]:
    """Names of what was refused within a value."""
    if isinstance(value, _Judged):
        if value.refused is not None:
            yield value.refused
    elif isinstance(value, list):
        for item in value:
            yield from _refused(item)


def _texts(value: object, name: str) -> Iterator[str]:
    """What a member of this name has an engine fetch."""
    is_url = _URL_NAME.search(name) is not None
    if not is_url and _MEDIA_NAME.search(name) is None:
        return
    for text in value if isinstance(value, list) else (value,):
        if isinstance(text, str) and (is_url or _SCHEME.match(text)):
            yield text


def media_rule(setting: MediaSetting) -> MediaRule | None:
    """The rule that a setting stands for; None where everything passes."""
    if setting == "pass":
        return None
    return MediaRule(None if setting == "refuse" else frozenset(setting))
