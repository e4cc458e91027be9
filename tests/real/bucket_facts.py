"""What a real gateway does with conditions, and what Lowtide makes of it at start.

Given to pytest by name (`make test-real`); `S3_ENDPOINT` says where. The facts are those of Ceph
16.2; another version may fail here, and then the page about deployment has news to tell.
"""

import secrets
from pathlib import Path
from typing import Any

import botocore.session  # type: ignore[import-untyped]
import pytest
import structlog
from botocore.exceptions import ClientError  # type: ignore[import-untyped]
from real_places import BUCKET

from lowtide import limits
from lowtide.blobs.url import open_blobs
from lowtide.ports.blobs import BlobExists

LARGE = b"x" * (limits.BLOB_PART_BYTES * 3)


@pytest.fixture
def s3() -> Any:
    import os

    return botocore.session.get_session().create_client(
        "s3",
        endpoint_url=os.environ["AWS_ENDPOINT"],
        region_name="us-east-1",
        aws_access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
    )


@pytest.fixture
def key() -> str:
    return f"facts/{secrets.token_hex(8)}"


def content(s3: Any, key: str) -> bytes:
    return bytes(s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())


def test_a_plain_put_honours_its_condition(s3: Any, key: str) -> None:
    s3.put_object(Bucket=BUCKET, Key=key, Body=b"first", IfNoneMatch="*")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"second", IfNoneMatch="*")
    assert content(s3, key) == b"first"


def test_the_end_of_an_upload_in_parts_ignores_its_condition(s3: Any, key: str) -> None:
    """Silently: it answers as if it had heeded it. This is what the probe at start is for."""
    s3.put_object(Bucket=BUCKET, Key=key, Body=b"first")
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
    where = {"Bucket": BUCKET, "Key": key, "UploadId": upload}
    etag = s3.upload_part(**where, PartNumber=1, Body=b"second")["ETag"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
    s3.complete_multipart_upload(**where, IfNoneMatch="*", MultipartUpload=parts)
    assert content(s3, key) == b"second"


async def test_the_probe_finds_the_way_that_holds_and_says_so(tmp_path: Path) -> None:
    blobs = open_blobs(f"s3://{BUCKET}/{secrets.token_hex(8)}", tmp_path)
    with structlog.testing.capture_logs() as logs:
        await blobs.probe()
    assert [log["event"] for log in logs] == ["bucket.publish_by_put"]
    async with blobs.write("large") as writer:
        await writer.write(LARGE)
    with pytest.raises(BlobExists):
        async with blobs.write("large") as writer:
            await writer.write(LARGE[::-1])
    assert await blobs.read("large") == LARGE
    assert [info.key async for info in blobs.list("")] == ["large"]
