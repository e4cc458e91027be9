"""Uploads in parts on the wire: every refusal, what is sent again, keys, limits."""

import hashlib
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from api_server import Answer, ApiServer, form, open_api_server
from tenant_env import Env

from lowtide import limits
from lowtide.config import LimitSettings, ServerSettings, Settings

LINES = b'{"custom_id":"a"}\n{"custom_id":"b"}\n'
NEW = {"bytes": 36, "filename": "x.jsonl", "mime_type": "text/jsonl", "purpose": "batch"}
MULTIPART = {"file_name": "x.jsonl", "file_size": 36, "num_parts": 2, "purpose": "batch-api"}
Json = dict[str, Any]


def post(http_api: ApiServer, path: str, body: Any = None) -> Answer:
    return http_api.ask("POST", path, None if body is None else json.dumps(body))


def begin(http_api: ApiServer, **rest: Any) -> str:
    answer = post(http_api, "/v1/uploads", {**NEW, **rest})
    assert answer.status == 200, answer.body
    return str(answer.json["id"])


def add(http_api: ApiServer, upload_id: str, data: bytes) -> Answer:
    body, kind = form([("data", "upload", data)])
    return http_api.ask("POST", f"/v1/uploads/{upload_id}/parts", body, {"Content-Type": kind})


def complete(http_api: ApiServer, upload_id: str, *parts: str, **rest: Any) -> Answer:
    return post(http_api, f"/v1/uploads/{upload_id}/complete", {"part_ids": parts, **rest})


def whole(http_api: ApiServer) -> tuple[str, str]:
    """An upload whose only part is all of it; both ids."""
    upload_id = begin(http_api)
    return upload_id, add(http_api, upload_id, LINES).json["id"]


def initiate(http_api: ApiServer, **rest: Any) -> tuple[Json, list[str]]:
    """A multipart upload; the answer, and the paths of the addresses."""
    answer = post(http_api, "/v1/files/multipart/initiate", {**MULTIPART, **rest})
    assert answer.status == 200, answer.body
    assert [part["PartNumber"] for part in answer.json["parts"]] == [1, 2]
    assert all(part["Headers"] == {} for part in answer.json["parts"])
    assert all(part["URL"].startswith(http_api.url) for part in answer.json["parts"])
    return answer.json, [part["URL"].removeprefix(http_api.url) for part in answer.json["parts"]]


def end(
    http_api: ApiServer, begun: Json, *etags: str, step: str = "complete", **rest: Any
) -> Answer:
    parts = [{"part_number": n, "etag": etag} for n, etag in enumerate(etags, 1)]
    which = {"upload_id": begun["upload_id"], "file_id": begun["file_id"]}
    return post(http_api, f"/v1/files/multipart/{step}", {**which, "parts": parts, **rest})


def reported(answer: Answer) -> tuple[int, str | None, str | None]:
    return answer.status, answer.error["code"], answer.error["param"]


def files(http_api: ApiServer) -> list[Json]:
    return list(http_api.ask("GET", "/v1/files").json["data"])


# ---- OpenAI: beginning ----


@pytest.mark.parametrize("field", sorted(NEW))
def test_a_create_names_what_is_missing(http_api: ApiServer, field: str) -> None:
    body = {name: value for name, value in NEW.items() if name != field}
    assert reported(post(http_api, "/v1/uploads", body)) == (
        400,
        "missing_required_parameter",
        field,
    )


@pytest.mark.parametrize(
    ("wrong", "status", "code", "param"),
    [
        ({"bytes": 0}, 400, "invalid_request", "bytes"),
        ({"bytes": -1}, 400, "invalid_request", "bytes"),
        ({"bytes": "36"}, 400, "invalid_request", "bytes"),
        ({"bytes": limits.UPLOAD_BYTES_MAX + 1}, 413, "file_too_large", "bytes"),
        ({"bytes": 10**30}, 413, "file_too_large", "bytes"),
        ({"bytes": limits.FILE_BYTES + 1}, 413, "file_too_large", "file"),
        ({"purpose": "assistants"}, 400, "invalid_purpose", "purpose"),
        ({"filename": 7}, 400, "invalid_request", "filename"),
        (
            {"expires_after": {"anchor": "now", "seconds": 7200}},
            400,
            "invalid_request",
            "expires_after[anchor]",
        ),
        (
            {"expires_after": {"anchor": "created_at", "seconds": 60}},
            400,
            "invalid_request",
            "expires_after[seconds]",
        ),
    ],
)
def test_a_create_that_will_not_do_is_refused(
    http_api: ApiServer, wrong: Json, status: int, code: str, param: str
) -> None:
    assert reported(post(http_api, "/v1/uploads", {**NEW, **wrong})) == (status, code, param)


def test_an_upload_is_openais_object_by_every_mount(http_api: ApiServer) -> None:
    for mount in ("/v1", "/openai/v1", "/together/v1", ""):
        seen = post(http_api, f"{mount}/uploads", NEW).json
        assert set(seen) == {
            *("id", "object", "bytes", "created_at", "expires_at"),
            *("filename", "purpose", "status", "file"),
        }
        assert (seen["object"], seen["status"], seen["file"]) == ("upload", "pending", None)


# ---- OpenAI: parts ----


def test_a_part_without_its_field_is_refused(http_api: ApiServer) -> None:
    upload_id = begin(http_api)
    body, kind = form([("file", "upload", LINES)])
    path = f"/v1/uploads/{upload_id}/parts"
    answer = http_api.ask("POST", path, body, {"Content-Type": kind})
    assert reported(answer) == (400, "missing_required_parameter", "data")
    body, kind = form([("data", "upload", LINES), ("data", "upload", LINES)])
    assert (
        http_api.ask("POST", path, body, {"Content-Type": kind}).error["code"] == "invalid_request"
    )
    assert http_api.ask("POST", path, LINES).error["code"] == "invalid_request"
    assert http_api.blobs_on_disk() == []


def test_a_part_larger_than_the_whole_is_refused_and_leaves_nothing(http_api: ApiServer) -> None:
    upload_id = begin(http_api)
    assert reported(add(http_api, upload_id, LINES + b"x")) == (413, "file_too_large", "data")
    assert http_api.blobs_on_disk() == []


def test_a_part_above_64_mb_is_refused_before_it_is_read(http_api: ApiServer) -> None:
    upload_id = begin(http_api, bytes=limits.FILE_BYTES)
    answer = http_api.ask(
        "POST",
        f"/v1/uploads/{upload_id}/parts",
        b"",
        {
            "Content-Type": "multipart/form-data; boundary=x",
            "Content-Length": str(limits.UPLOAD_PART_BYTES_MAX + 10**6),
        },
    )
    assert reported(answer) == (413, "file_too_large", "data")


def test_parts_beyond_what_was_announced_are_refused(
    http_api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "UPLOAD_PART_BYTES_MAX", 36)
    upload_id = begin(http_api)
    for _ in range(2):
        assert add(http_api, upload_id, LINES).status == 200, "sent again after a broken answer"
    assert reported(add(http_api, upload_id, b"x")) == (400, "invalid_request", "data")
    assert len(http_api.blobs_on_disk()) == 2


def test_an_unknown_upload_is_not_found(http_api: ApiServer) -> None:
    for answer in (
        add(http_api, "upload_x", LINES),
        complete(http_api, "upload_x", "part_x"),
        post(http_api, "/v1/uploads/upload_x/cancel"),
    ):
        assert reported(answer) == (404, "upload_not_found", "upload_id")


# ---- OpenAI: completing ----


def test_a_completion_wants_parts_that_are_there_once_and_all_the_bytes(
    http_api: ApiServer,
) -> None:
    upload_id = begin(http_api)
    first, last = (add(http_api, upload_id, part).json["id"] for part in (LINES[:18], LINES[18:]))
    _, foreign = whole(http_api)
    refused = (400, "invalid_request", "part_ids")
    assert reported(complete(http_api, upload_id, first, foreign)) == refused
    assert reported(complete(http_api, upload_id, first, first)) == refused
    assert reported(complete(http_api, upload_id, first)) == refused
    assert "18 bytes" in complete(http_api, upload_id, first).error["message"]
    assert reported(complete(http_api, upload_id)) == refused
    missing = post(http_api, f"/v1/uploads/{upload_id}/complete", {})
    assert reported(missing) == (400, "missing_required_parameter", "part_ids")
    assert files(http_api) == []
    assert complete(http_api, upload_id, first, last).status == 200, "none of that ended it"


def test_a_wrong_md5_is_refused_and_the_upload_is_as_it_was(http_api: ApiServer) -> None:
    upload_id, part_id = whole(http_api)
    assert reported(complete(http_api, upload_id, part_id, md5="0" * 32)) == (
        400,
        "invalid_request",
        "md5",
    )
    assert files(http_api) == []
    assert len(http_api.blobs_on_disk()) == 1
    right = hashlib.md5(LINES).hexdigest().upper()
    assert complete(http_api, upload_id, part_id, md5=right).json["file"]["bytes"] == 36


def test_the_same_completion_again_has_the_same_answer_and_another_has_none(
    http_api: ApiServer,
) -> None:
    upload_id = begin(http_api)
    parts = [add(http_api, upload_id, LINES).json["id"] for _ in range(2)]
    first, again = (complete(http_api, upload_id, parts[0]) for _ in range(2))
    assert first.json == again.json
    other = complete(http_api, upload_id, parts[1])
    assert reported(other) == (400, "upload_closed", None)
    assert first.json["file"]["id"] in other.error["message"]
    assert reported(add(http_api, upload_id, LINES)) == (400, "upload_closed", None)
    assert reported(post(http_api, f"/v1/uploads/{upload_id}/cancel")) == (
        400,
        "upload_closed",
        None,
    )
    assert len(files(http_api)) == 1


def test_a_completion_repeated_after_its_file_was_deleted_is_told_so(http_api: ApiServer) -> None:
    upload_id, part_id = whole(http_api)
    file_id = complete(http_api, upload_id, part_id).json["file"]["id"]
    assert http_api.ask("DELETE", f"/v1/files/{file_id}").status == 200
    assert reported(complete(http_api, upload_id, part_id)) == (404, "file_not_found", "id")


def test_an_hour_after_its_creation_an_upload_is_over(http_api: ApiServer) -> None:
    upload_id, part_id = whole(http_api)
    http_api.clock.shift = timedelta(seconds=limits.UPLOAD_TTL_S)
    for answer in (
        add(http_api, upload_id, LINES),
        complete(http_api, upload_id, part_id),
        post(http_api, f"/v1/uploads/{upload_id}/cancel"),
    ):
        assert reported(answer) == (410, "upload_expired", None)


# ---- Together ----


def test_parts_are_put_to_signed_addresses_and_answered_with_their_md5(http_api: ApiServer) -> None:
    begun, (one, two) = initiate(http_api, checksum=hashlib.sha256(LINES).hexdigest())
    assert reported(end(http_api, begun, "a", "b")) == (400, "invalid_request", "parts")
    etags = []
    for path, data in ((two, LINES[20:]), (one, LINES[:20])):
        answer = http_api.ask("PUT", path, data)
        assert answer.status == 200
        assert answer.headers["etag"] == f'"{hashlib.md5(data).hexdigest()}"'
        etags.append(answer.headers["etag"])
    assert http_api.ask("GET", f"/v1/files/{begun['file_id']}").status == 404, "half visible"
    done = end(http_api, begun, etags[1].strip('"'), etags[0])
    assert done.status == 200
    file = done.json["file"]
    assert (file["id"], file["LineCount"], file["Processed"]) == (begun["file_id"], 2, True)
    assert end(http_api, begun, etags[1], etags[0]).json == done.json, (
        "asked again after a time-out"
    )
    assert http_api.ask("GET", f"/v1/files/{file['id']}/content").body == LINES


def test_a_part_put_again_replaces_the_first_and_the_old_etag_is_refused(
    http_api: ApiServer,
) -> None:
    begun, (one, two) = initiate(http_api)
    old = http_api.ask("PUT", one, b"x" * 20).headers["etag"]
    new = http_api.ask("PUT", one, LINES[:20]).headers["etag"]
    last = http_api.ask("PUT", two, LINES[20:]).headers["etag"]
    refused = end(http_api, begun, old, last)
    assert reported(refused) == (400, "invalid_request", "parts")
    assert "Part 1" in refused.error["message"]
    assert end(http_api, begun, new, last).status == 200


@pytest.mark.parametrize(
    ("wrong", "code", "param"),
    [
        ({"file_name": None}, "missing_required_parameter", "file_name"),
        ({"file_size": None}, "missing_required_parameter", "file_size"),
        ({"num_parts": None}, "missing_required_parameter", "num_parts"),
        ({"purpose": None}, "missing_required_parameter", "purpose"),
        ({"purpose": "fine-tune"}, "invalid_purpose", "purpose"),
        ({"num_parts": 0}, "invalid_request", "num_parts"),
        ({"num_parts": limits.MULTIPART_PARTS_MAX + 1}, "invalid_request", "num_parts"),
        ({"file_size": 0}, "invalid_request", "bytes"),
        ({"checksum": "abc"}, "invalid_request", "checksum"),
        ({"file_size": limits.FILE_BYTES + 1}, "file_too_large", "file"),
    ],
)
def test_an_initiate_that_will_not_do_is_refused(
    http_api: ApiServer, wrong: Json, code: str, param: str
) -> None:
    answer = post(http_api, "/v1/files/multipart/initiate", {**MULTIPART, **wrong})
    assert reported(answer) == (413 if code == "file_too_large" else 400, code, param)


def test_an_address_is_for_one_part_of_one_upload_in_its_time(http_api: ApiServer) -> None:
    begun, (one, two) = initiate(http_api)
    other, _ = initiate(http_api)
    query = one.partition("?")[2]
    for path in (
        two.partition("?")[0] + "?" + query,
        one.replace(begun["upload_id"], other["upload_id"]),
        one.partition("?")[0],
        f"/v1/uploads/signed/{begun['upload_id']}?{query}",
    ):
        assert http_api.ask("PUT", path, LINES).error["code"] == "upload_invalid", path
    http_api.clock.shift = timedelta(seconds=limits.UPLOAD_URL_TTL_S + 60)
    assert http_api.ask("PUT", one, LINES[:20]).status == 200, "50 GB take longer than an hour"
    http_api.clock.shift = timedelta(seconds=limits.MULTIPART_TTL_S + 1)
    assert reported(http_api.ask("PUT", two, LINES[20:])) == (410, "upload_expired", None)


def test_a_part_beyond_the_size_of_the_file_is_refused_and_leaves_nothing(
    http_api: ApiServer,
) -> None:
    _, (one, two) = initiate(http_api)
    assert reported(http_api.ask("PUT", one, LINES + b"x")) == (413, "file_too_large", "data")
    assert reported(http_api.ask("PUT", one, iter([LINES, b"x"]))) == (
        413,
        "file_too_large",
        "data",
    )
    assert http_api.ask("PUT", one, LINES).status == 200
    assert reported(http_api.ask("PUT", two, b"x")) == (400, "invalid_request", "data")
    assert len(http_api.blobs_on_disk()) == 1


def test_an_end_names_its_upload_and_its_file(http_api: ApiServer) -> None:
    begun, _ = initiate(http_api)
    for step in ("complete", "abort"):
        path = f"/v1/files/multipart/{step}"
        assert reported(post(http_api, path, {})) == (
            400,
            "missing_required_parameter",
            "upload_id",
        )
        for wrong in ({"upload_id": "upload_x"}, {"file_id": "file-x"}, {"file_id": None}):
            answer = end(http_api, begun, step=step, **wrong)
            assert reported(answer) == (404, "upload_not_found", "upload_id")


def test_an_aborted_upload_takes_no_parts_and_may_be_aborted_again(http_api: ApiServer) -> None:
    begun, (one, two) = initiate(http_api)
    etag = http_api.ask("PUT", one, LINES).headers["etag"]
    for _ in range(2):
        assert end(http_api, begun, step="abort").status == 200
    assert reported(http_api.ask("PUT", two, b"x")) == (400, "upload_closed", None)
    assert reported(end(http_api, begun, etag, etag)) == (400, "upload_closed", None)


# ---- keys, limits, the record ----


def test_another_tenants_upload_is_not_found(env: Env) -> None:
    mine, yours = env.tenant("mine"), env.tenant("yours")
    upload_id = mine.ask("POST", "/v1/uploads", NEW).json["id"]
    begun = mine.ask("POST", "/v1/files/multipart/initiate", MULTIPART).json
    which = {"upload_id": begun["upload_id"], "file_id": begun["file_id"], "parts": []}
    body, kind = form([("data", "upload", LINES)])
    for answer in (
        yours.ask("POST", f"/v1/uploads/{upload_id}/parts", body, content_type=kind),
        yours.ask("POST", f"/v1/uploads/{upload_id}/complete", {"part_ids": []}),
        yours.ask("POST", f"/v1/uploads/{upload_id}/cancel"),
        yours.ask("POST", "/v1/files/multipart/complete", which),
        yours.ask("POST", "/v1/files/multipart/abort", which),
    ):
        assert reported(answer) == (404, "upload_not_found", "upload_id")
    path = begun["parts"][0]["URL"].removeprefix(env.http_api.url)
    assert env.http_api.ask("PUT", path, LINES).status == 200, "the signature is the permission"


def test_uploading_in_parts_wants_the_scope_of_uploading(env: Env) -> None:
    reader = env.tenant(scopes=("read",))
    for path in ("/v1/uploads", "/v1/uploads/x/complete", "/v1/files/multipart/initiate"):
        assert reported(reader.ask("POST", path, NEW))[:2] == (403, "insufficient_scope")
    assert reported(post(env.http_api, "/v1/uploads", NEW))[:2] == (401, "missing_api_key")


def test_what_is_announced_counts_against_the_share_until_the_upload_ends(env: Env) -> None:
    tenant = env.tenant()
    tenant.change(stored_bytes=100)
    first = tenant.ask("POST", "/v1/uploads", {**NEW, "bytes": 70}).json["id"]
    for answer in (
        tenant.ask("POST", "/v1/uploads", NEW),
        tenant.ask("POST", "/v1/files/multipart/initiate", MULTIPART),
        tenant.upload(LINES),
    ):
        assert reported(answer) == (413, "storage_limit_exceeded", "file")
    assert tenant.ask("POST", f"/v1/uploads/{first}/cancel").status == 200
    assert tenant.ask("POST", "/v1/uploads", NEW).status == 200


@pytest.fixture
def large_api(tmp_path: Path) -> Iterator[ApiServer]:
    settings = Settings(
        server=ServerSettings(data_dir=tmp_path), limits=LimitSettings(file_bytes=2**40)
    )
    with open_api_server(tmp_path, settings) as running:
        yield running


def test_limits_raised_in_the_settings_hold_for_uploads_in_parts(large_api: ApiServer) -> None:
    assert post(large_api, "/v1/uploads", {**NEW, "bytes": limits.UPLOAD_BYTES_MAX}).status == 200
    initiate(large_api, file_size=50 * 2**30)
