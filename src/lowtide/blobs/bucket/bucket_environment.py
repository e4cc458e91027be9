"""What the environment says of a bucket, looked at before the bucket's library is: endpoints,
credentials, profiles.

`url.open_blobs` asks. The library panics on an endpoint that is no address, reads no profiles, and
asks the cloud's own machines where it finds no credentials; a person then reads of an address that
was never set. Invariant: no message has a credential in it.
"""

import configparser
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from lowtide.core.reporting.shown_url import shown_url
from lowtide.ports.blobs import BlobsUnavailable

_ENDPOINTS: Final = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AWS_PROXY_URL"),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
}
_OTHER_WAYS: Final = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
)
"""Variables that say where credentials are, and that the library reads itself."""
_ELSEWHERE: Final = ("credential_process", "sso_session", "sso_start_url", "role_arn")
"""Ways of a profile that need a program or another service."""
_KEYS: Final = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
    "region": "region",
    "endpoint_url": "endpoint",
}


def check_endpoints(kind: str, environ: Mapping[str, str]) -> None:
    """`kind`: s3, gs or az. Raises BlobsUnavailable for an endpoint that cannot be one."""
    for name in _ENDPOINTS.get(kind, ()):
        text = environ.get(name)
        if text and not _is_endpoint(text):
            raise BlobsUnavailable(
                f"{name} is no address: it must begin with http:// or https:// and name a host,"
                " as https://minio.example.org:9000."
            )


def _is_endpoint(text: str) -> bool:
    return text.startswith(("http://", "https://")) and not shown_url(text).startswith("(")


def s3_profile(environ: Mapping[str, str]) -> dict[str, str]:
    """Credentials, region and endpoint of the profile in ~/.aws, as the library wants them.

    Empty where the environment says by itself where credentials are, or there is no profile and
    none was named. Raises BlobsUnavailable for a named profile that is not there or cannot be used.
    """
    if any(environ.get(name) for name in _OTHER_WAYS):
        return {}
    named = environ.get("AWS_PROFILE") or environ.get("AWS_DEFAULT_PROFILE")
    name = named or "default"
    credentials = _ini(_file(environ, "AWS_SHARED_CREDENTIALS_FILE", "credentials"))
    config = _ini(_file(environ, "AWS_CONFIG_FILE", "config"))
    section = name if name == "default" else f"profile {name}"
    profile = {**config.get(section, {}), **credentials.get(name, {})}
    if not profile:
        if named:
            raise BlobsUnavailable(
                f"the profile {name!r} that AWS_PROFILE names is neither in ~/.aws/credentials nor"
                " in ~/.aws/config."
            )
        return {}
    if "aws_access_key_id" not in profile:
        way = next((key for key in _ELSEWHERE if key in profile), None)
        if way is not None:
            raise BlobsUnavailable(
                f"the profile {name!r} has its credentials from {way}, which Lowtide does not ask."
                f" Give them as variables: aws configure export-credentials --profile {name}"
                " --format env"
            )
    return {theirs: profile[ours] for ours, theirs in _KEYS.items() if ours in profile}


def _file(environ: Mapping[str, str], variable: str, name: str) -> Path | None:
    given = environ.get(variable)
    try:
        return Path(given or f"~/.aws/{name}").expanduser()
    except RuntimeError:  # this user has no home folder
        return None


def _ini(file: Path | None) -> Mapping[str, Mapping[str, str]]:
    """The sections of a file; none where there is no file."""
    if file is None:
        return {}
    parser = configparser.RawConfigParser()
    try:
        with file.open(encoding="utf-8") as stream:
            parser.read_file(stream)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise BlobsUnavailable(f"{file} cannot be read: {error.strerror}.") from None
    except (configparser.Error, UnicodeDecodeError):  # their texts quote lines of the file
        raise BlobsUnavailable(f"{file} is not written as the AWS tools write it.") from None
    return {section: dict(parser.items(section)) for section in parser.sections()}
