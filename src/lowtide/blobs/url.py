"""From the setting `blob_url` to an adapter of the blobs port; called by wiring and `doctor`."""

from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from lowtide import limits
from lowtide.blobs.folder_blobs import FolderBlobs
from lowtide.ports.blobs import Blobs, BlobsUnavailable

_S3 = {"s3", "s3a"}
_BUCKETS = _S3 | {"gs", "az", "azure", "adl", "abfs", "abfss"}


def open_blobs(url: str, folder: Path) -> Blobs:
    """The blobs under `url`: "file" is `folder`, otherwise `s3://bucket/prefix`, `gs://`, `az://`.

    Credentials and endpoint come from the store's usual environment (AWS_..., GOOGLE_...,
    AZURE_...). Opens nothing yet: `probe` does. Raises ValueError for another kind of URL,
    BlobsUnavailable when the environment is refused.
    """
    if url == "file":
        return FolderBlobs(folder)
    scheme = urlsplit(url).scheme
    if scheme not in _BUCKETS:
        raise ValueError(
            f'blob_url {url!r} is not known: use "file", or s3://, gs:// or az:// and a bucket'
        )
    return _open_bucket(url, scheme)


def _open_bucket(url: str, scheme: str) -> Blobs:
    # Imported here: a laptop on a folder needs neither the memory nor the start-up time.
    from obstore.exceptions import BaseError
    from obstore.store import from_url

    from lowtide.blobs.object_blobs import ObjectBlobs

    try:
        store = from_url(
            url,
            # The way in which S3 itself publishes a staged blob only if its key is free.
            config={"copy_if_not_exists": "multipart"} if scheme in _S3 else None,
            client_options={
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
        raise BlobsUnavailable(f"cannot open blob_url {url!r}: {error}") from error
    return ObjectBlobs(store, url)
