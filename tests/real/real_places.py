"""Leads existing suites to a real PostgreSQL and a real bucket: pytest's `-p real_places`.

`S3_ENDPOINT` is where the bucket `lowtide` is made; the suite of blobs looks there itself. With
`E2E_PLACES=real` each end-to-end test has a fresh database on the tests' PostgreSQL, and a prefix
of its own in the bucket, instead of SQLite and a folder.
"""

import os
import secrets
from collections.abc import Iterator

import pytest

BUCKET = "lowtide"


def pytest_configure() -> None:
    """Children of the tests, such as `lowtide worker`, find the bucket by the same environment."""
    os.environ |= {
        "AWS_ENDPOINT": os.environ["S3_ENDPOINT"],
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }


@pytest.fixture(autouse=True)
def real_places(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if os.environ.get("E2E_PLACES") == "real":
        import product_env

        places = {
            "database_url": request.getfixturevalue("postgres_url"),
            "blob_url": f"s3://{BUCKET}/{secrets.token_hex(8)}",
        }
        monkeypatch.setattr(product_env, "PLACES", places)
    yield
