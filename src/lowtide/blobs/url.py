"""Makes the setting `blob_url` into an adapter of the blobs port; called by wiring and `doctor`."""

from datetime import timedelta
from os import environ
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote, urlsplit

from lowtide import limits
from lowtide.blobs.folder.folder_blobs import FolderBlobs
from lowtide.core.reporting.shown_url import shown_url
from lowtide.ports.blobs import Blobs, BlobsUnavailable

if TYPE_CHECKING:
    from obstore.store import S3Config

_S3 = {"s3", "s3a"}
_AZURE = {"az", "azure", "adl", "abfs", "abfss"}
_KINDS = {**dict.fromkeys(_S3, "s3"), **dict.fromkeys(_AZURE, "az"), "gs": "gs"}


def open_blobs(url: str, folder: Path) -> Blobs:
    """The blobs under `url`: "file" is `folder`, `file:///path` a folder that machines may share;
    otherwise `s3://bucket/prefix`, `gs://`, `az://`.

    Credentials and endpoint come from the store's usual environment (AWS_..., GOOGLE_...,
    AZURE_...). Opens nothing yet: `probe` does. Raises ValueError for another kind of URL,
    BlobsUnavailable when the environment is refused.
    """
    own = folder_of(url, folder)
    if own is not None:
        return FolderBlobs(own)
    scheme = urlsplit(url).scheme
    if scheme not in _KINDS:
        raise ValueError(
            'blob_url is not known: use "file", file:///absolute/path, or s3://, gs:// or'
            " az:// and a bucket"
        )
    return _open_bucket(url, scheme)


def folder_of(url: str, folder: Path) -> Path | None:
    """The folder that `url` names, which for "file" is `folder`; None for anything else."""
    if url == "file":
        return folder
    scheme, host, path, _, _ = urlsplit(url)
    is_folder = scheme == "file" and not host and path.startswith("/")
    return Path(unquote(path)) if is_folder else None


def _open_bucket(url: str, scheme: str) -> Blobs:
    # Imported here: a laptop on a folder needs neither the memory nor the start-up time.
    from obstore.exceptions import BaseError
    from obstore.store import from_url

    from lowtide.blobs.bucket.bucket_environment import check_endpoints, s3_profile
    from lowtide.blobs.bucket.object_blobs import ObjectBlobs
    from lowtide.blobs.bucket.object_errors import first_line

    # How S3 itself publishes a staged blob only if its key is free; R2 has another, set by
    # environment.
    check_endpoints(_KINDS[scheme], environ)
    config: dict[str, str] = s3_profile(environ) if scheme in _S3 else {}
    if scheme in _S3 and "AWS_COPY_IF_NOT_EXISTS" not in environ:
        config["copy_if_not_exists"] = "multipart"
    try:
        store = from_url(
            url,
            config=cast("S3Config", config) or None,
            client_options={
                # Plain HTTP only where the operator's endpoint says http://, as a local MinIO does.
                "allow_http": True,
                "connect_timeout": timedelta(seconds=limits.CONNECT_TIMEOUT_S),
                "read_timeout": timedelta(seconds=limits.BLOB_REQUEST_READ_S),
                "timeout": timedelta(seconds=limits.BLOB_REQUEST_S),
            },
            retry_config={
                "max_retries": limits.BLOB_RETRIES_MAX,
                "retry_timeout": timedelta(seconds=limits.BLOB_REQUEST_READ_S),
            },
        )
    except (BaseError, ValueError) as error:
        raise BlobsUnavailable(
            f"cannot open blob_url {shown_url(url)}: {first_line(error)}"
        ) from error
    return ObjectBlobs(store, shown_url(url))
