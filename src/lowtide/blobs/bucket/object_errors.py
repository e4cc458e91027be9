"""Translates obstore's exceptions to the port's, for ObjectBlobs and its writer;
named only here.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from lowtide.ports.blobs import BlobExists, BlobNotFound, BlobsFull, BlobsUnavailable

# obstore has no error of its own for these; the texts are S3 error codes and HTTP 507.
_FULL = ("QuotaExceeded", "InsufficientStorage", "507 Insufficient Storage", "XMinioStorageFull")

# Where clouds keep what their own machines are given: asked when there are no credentials.
_OF_THE_CLOUD = ("http://169.254.169.254", "http://metadata.google.internal", "token request")


@contextmanager
def translated(key: str, place: str) -> Iterator[None]:
    """Raises what obstore raises inside as a BlobError that says what to do."""
    try:
        yield
    except FileNotFoundError as error:
        raise BlobNotFound(f"no blob {key}") from error
    except (AlreadyExistsError, PreconditionError) as error:
        raise BlobExists(f"{key} exists already") from error
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise BlobsUnavailable(
            f"{place} refuses us at {key}: {first_line(error)} Check the credentials and that they"
            " allow reading, writing, listing and deleting there."
        ) from error
    except (BaseError, OSError) as error:
        text = str(error)
        if any(mark in text for mark in _OF_THE_CLOUD):
            raise BlobsUnavailable(
                f"there are no credentials for {place}, and this machine has no role in a cloud"
                " that would give some. For s3:// set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY,"
                " or AWS_PROFILE; for gs:// GOOGLE_SERVICE_ACCOUNT; for az:// AZURE_STORAGE_ACCOUNT"
                "_KEY."
            ) from error
        if any(mark in text for mark in _FULL):
            raise BlobsFull(f"no room for {key} in {place}: raise its quota") from error
        raise BlobsUnavailable(
            f"{place} failed at {key}: {first_line(error)}."
            " Check blob_url and the way to the store."
        ) from error


def first_line(error: Exception) -> str:
    """The first line of the message; obstore adds a dump of its internals below it."""
    return (str(error).splitlines() or [type(error).__name__])[0]
