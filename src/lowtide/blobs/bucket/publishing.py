"""The two ways in which a staged object becomes the object that readers see, both create-only.

`publish_by_copy` is how Amazon S3, GCS and Azure do it: the store copies, on the condition that the
key is free. Some stores take that condition and ignore it, or know no such copy (Ceph's gateway up
to version 16 at least), and honour it on a plain put: there `publish_by_put` reads the staged bytes
and puts them in one request, which costs the traffic twice and has S3's bound of 5 GiB. ObjectBlobs
finds out at start which of the two a bucket keeps. Both block: they run in threads.
"""

import http.client
import ssl
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeGuard
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError

from lowtide import limits

if TYPE_CHECKING:
    from obstore.store import ObjectStore, S3Store

Publish = Callable[["ObjectStore", str, str], None]
"""`(store, from, to)`. Raises AlreadyExistsError when the key is taken."""

_TAKEN: Final = frozenset({409, 412})  # 409: two such writes at once, and the other one won


def publish_by_copy(store: "ObjectStore", staging: str, key: str) -> None:
    obstore.copy(store, staging, key, overwrite=False)


def publish_by_put(store: "ObjectStore", staging: str, key: str) -> None:
    """Puts the staged bytes in one request of its own under a signed address, because obstore holds
    what it puts in memory.
    """
    if not can_put(store):
        raise OSError("no signed address to put to")
    refuse_taken(store, key)  # before all the bytes are sent; the condition decides
    staged = obstore.get(store, staging)
    lifetime = timedelta(seconds=limits.BLOB_REQUEST_S)
    url = urlsplit(obstore.sign(store, "PUT", key, lifetime))
    connection = _connect(url.scheme, url.netloc)
    try:
        connection.putrequest("PUT", f"{url.path}?{url.query}")
        connection.putheader("Content-Length", str(staged.meta["size"]))
        connection.putheader("If-None-Match", "*")
        connection.endheaders()
        for piece in staged.stream(min_chunk_size=limits.STREAM_BLOCK_BYTES):
            connection.send(memoryview(piece))
        answer = connection.getresponse()
        text = answer.read(limits.STREAM_BLOCK_BYTES)
    except http.client.HTTPException as error:
        raise OSError(f"no answer to the put: {error!r}") from error
    finally:
        connection.close()
    if answer.status in _TAKEN:
        raise AlreadyExistsError(key)
    if answer.status != 200:
        said = text.decode(errors="replace").replace("\n", " ")
        raise OSError(f"the put was answered {answer.status}: {said}")


def can_put(store: "ObjectStore") -> "TypeGuard[S3Store]":
    """Whether `publish_by_put` may be tried: only S3 and its like are known to need it."""
    from obstore.store import S3Store

    return isinstance(store, S3Store)


def refuse_taken(store: "ObjectStore", key: str) -> None:
    """Looks at the key beforehand, which saves the traffic when it is taken. Raises
    AlreadyExistsError.
    """
    try:
        obstore.head(store, key)
    except FileNotFoundError:
        return
    raise AlreadyExistsError(key)


def _connect(scheme: str, place: str) -> http.client.HTTPConnection:
    patience_s = limits.BLOB_REQUEST_READ_S
    if scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(place, timeout=patience_s, context=context)
    return http.client.HTTPConnection(place, timeout=patience_s)
