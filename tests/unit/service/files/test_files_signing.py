"""Signed upload permits and the secret that signs them."""

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qsl

import pytest

from lowtide.core.errors import LowtideError
from lowtide.service.files.signing import SECRET_FILE, UploadPermit, UploadSigner, load_secret

NOW = datetime(2026, 11, 21, tzinfo=UTC)
SIGNER = UploadSigner(b"secret", ttl_s=60)


def signed(checksum: str = "") -> tuple[UploadPermit, str]:
    fields = dict(parse_qsl(SIGNER.query("f", NOW, checksum)))
    permit = UploadPermit("f", int(fields["expires"]), fields.get("checksum", ""))
    return permit, fields["signature"]


@pytest.mark.parametrize("checksum", ["", "ab" * 32])
def test_a_permit_holds_until_its_last_second(checksum: str) -> None:
    permit, signature = signed(checksum)
    assert permit.checksum == checksum
    SIGNER.check(permit, signature, NOW + timedelta(seconds=59))
    with pytest.raises(LowtideError) as refused:
        SIGNER.check(permit, signature, NOW + timedelta(seconds=60))
    assert refused.value.code == "upload_expired"


def test_no_part_of_a_permit_can_be_changed() -> None:
    permit, signature = signed("ab" * 32)
    for forged, sign in [
        (UploadPermit("g", permit.expires, permit.checksum), signature),
        (UploadPermit("f", permit.expires + 1, permit.checksum), signature),
        (UploadPermit("f", permit.expires), signature),
        (permit, ""),
        (permit, "é" * 64),
    ]:
        with pytest.raises(LowtideError) as refused:
            SIGNER.check(forged, sign, NOW)
        assert refused.value.code == "upload_invalid"
    with pytest.raises(LowtideError):
        UploadSigner(b"other", ttl_s=60).check(permit, signature, NOW)


def test_the_secret_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    secret = load_secret(tmp_path)
    assert len(secret) == 32
    assert load_secret(tmp_path) == secret
    assert stat.S_IMODE((tmp_path / SECRET_FILE).stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == [SECRET_FILE], "no draft is left"  # noqa: PTH208


def test_of_two_processes_that_start_at_once_both_have_one_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def beaten(draft: Path, place: Path) -> None:
        Path(place).write_text("ab" * 32)
        link(draft, place)

    monkeypatch.setattr(os, "link", beaten)
    assert load_secret(tmp_path) == b"\xab" * 32
    assert [path.name for path in tmp_path.iterdir()] == [SECRET_FILE]
