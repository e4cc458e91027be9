"""Endpoints, credentials and profiles, looked at before a bucket is opened."""

from pathlib import Path

import pytest

from lowtide.blobs.bucket.bucket_environment import check_endpoints, s3_profile
from lowtide.blobs.url import open_blobs
from lowtide.ports.blobs import BlobsUnavailable

SECRET = "s3cr3t-v4lue"
CREDENTIALS = f"""
[default]
aws_access_key_id = id
aws_secret_access_key = {SECRET}

[work]
aws_access_key_id = work-id
aws_secret_access_key = {SECRET}
aws_session_token = token
"""
CONFIG = """
[default]
region = eu-central-1

[profile work]
region = us-west-2
endpoint_url = https://minio.example.org:9000

[profile sso]
sso_session = company
"""


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment whose ~/.aws has profiles."""
    (tmp_path / "credentials").write_text(CREDENTIALS)
    (tmp_path / "config").write_text(CONFIG)
    return {
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
    }


@pytest.mark.parametrize(
    ("kind", "name"),
    [("s3", "AWS_ENDPOINT"), ("s3", "AWS_ENDPOINT_URL"), ("az", "AZURE_STORAGE_ENDPOINT")],
)
@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1:9000",
        "minio",
        "http://",
        "ftp://h",
        "http://h:99999999",
        "http://h:9 ",
        "https://a b",
    ],
)
def test_an_endpoint_that_is_no_address_is_refused_by_its_variable(
    kind: str, name: str, text: str
) -> None:
    with pytest.raises(
        BlobsUnavailable, match=f"^{name} is no address: it must begin with http://"
    ):
        check_endpoints(kind, {name: text})


def test_sound_endpoints_and_empty_ones_pass() -> None:
    check_endpoints("s3", {"AWS_ENDPOINT": "", "AWS_ENDPOINT_URL": "http://127.0.0.1:9000"})
    check_endpoints("az", {"AWS_ENDPOINT": "minio"})


def test_an_endpoint_without_a_scheme_never_reaches_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT", "minio:9000")
    with pytest.raises(BlobsUnavailable, match="AWS_ENDPOINT is no address"):
        open_blobs("s3://bucket", tmp_path)


def test_the_default_profile_is_used_where_nothing_else_is_said(home: dict[str, str]) -> None:
    assert s3_profile(home) == {
        "access_key_id": "id",
        "secret_access_key": SECRET,
        "region": "eu-central-1",
    }


def test_a_named_profile_is_used_with_its_region_and_endpoint(home: dict[str, str]) -> None:
    assert s3_profile(home | {"AWS_PROFILE": "work"}) == {
        "access_key_id": "work-id",
        "secret_access_key": SECRET,
        "session_token": "token",
        "region": "us-west-2",
        "endpoint": "https://minio.example.org:9000",
    }


def test_credentials_in_the_environment_go_before_profiles(home: dict[str, str]) -> None:
    assert s3_profile(home | {"AWS_ACCESS_KEY_ID": "x", "AWS_PROFILE": "nowhere"}) == {}


@pytest.mark.parametrize(
    ("profile", "words"),
    [("nowhere", "'nowhere' that AWS_PROFILE names is neither"), ("sso", "from sso_session")],
)
def test_a_profile_that_cannot_be_used_is_named(
    home: dict[str, str], profile: str, words: str
) -> None:
    with pytest.raises(BlobsUnavailable, match=words):
        s3_profile(home | {"AWS_PROFILE": profile})


def test_no_profile_and_no_file_is_nothing(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "none")
    assert s3_profile({"AWS_SHARED_CREDENTIALS_FILE": nowhere, "AWS_CONFIG_FILE": nowhere}) == {}


@pytest.mark.parametrize("content", [SECRET, f"[a]\n{SECRET}\n{SECRET}", f"[a]\n=x {SECRET}"])
def test_a_broken_file_is_named_and_not_quoted(tmp_path: Path, content: str) -> None:
    file = tmp_path / "credentials"
    file.write_text(content)
    with pytest.raises(BlobsUnavailable, match="not written as") as refused:
        s3_profile({"AWS_SHARED_CREDENTIALS_FILE": str(file), "AWS_CONFIG_FILE": str(file)})
    assert SECRET not in str(refused.value)
