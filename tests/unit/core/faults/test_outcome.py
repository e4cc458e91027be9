"""core/faults/outcome.py, core/faults/answer.py and core/faults/fault.py: what the wire gave, and
what it means."""

from typing import get_args

import pytest

from lowtide.core.faults.fault import FAULTS, STATUS_ROWS, Blame, FaultKind, fault_of_status
from lowtide.core.faults.outcome import (
    Failed,
    Interrupted,
    NoReply,
    NoReplyKind,
    Outcome,
    Rejected,
    Reply,
    Succeeded,
    Throttled,
    classify,
    error_message,
    final_failure,
)
from lowtide.core.usage import NO_USAGE, Usage

CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"
RESPONSES = "/v1/responses"
GOOD = b'{"choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":2,"completion_tokens":3}}'


def kind(outcome: Outcome) -> str | None:
    return outcome.kind if isinstance(outcome, Failed | Interrupted) else None


# ---- the table ----


@pytest.mark.parametrize("status", range(100, 1000))
def test_every_status_has_one_outcome_as_its_row_says(status: int) -> None:
    outcome = classify(Reply(status, b"{}"), CHAT)
    fault = FAULTS[fault_of_status(status)]
    expected: dict[Blame, type[Outcome]] = {
        "request": Rejected,
        "capacity": Throttled,
        "set-up": Failed,
        "health": Failed,
    }
    assert type(outcome) is expected[fault.blame]


def test_every_row_of_the_table_is_reached_and_says_what_to_do() -> None:
    reached = {row.kind for row in STATUS_ROWS}
    reached |= {"too_large", "background", "model", "page", "timeout", "unreachable", "cut"}
    assert reached == set(FAULTS) == set(get_args(FaultKind))
    for name, fault in FAULTS.items():
        if fault.blame != "request":
            assert fault.public_text and fault.remedy, name
            assert "://" not in fault.public_text


def test_every_way_to_get_no_answer_has_a_kind() -> None:
    expected = {"connect": Interrupted, "timeout": Failed, "broken": Failed, "oversize": Rejected}
    assert set(expected) == set(get_args(NoReplyKind))
    for how, outcome in expected.items():
        assert isinstance(classify(NoReply(how, "so"), CHAT), outcome)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (401, b'{"error":"Unauthorized"}', "credentials"),
        (402, b"", "payment"),
        (403, b"<html><title>403 Forbidden</title>", "forbidden"),
        (404, b'{"detail":"Not Found"}', "path"),
        (404, b"<html><center>404 Not Found</center>", "path"),
        (404, b'{"object":"error","message":"The model `x` does not exist.","code":404}', "model"),
        (404, b'{"error":{"message":"model \\"x\\" not found, try pulling it first"}}', "model"),
        (400, b'{"error":{"message":"Invalid model name passed in model=x"}}', "model"),
        (400, b'{"error":{"message":"API key not valid. Please pass a valid API key."}}',
         "credentials"),
        (429, b'{"error":{"message":"You exceeded","code":"insufficient_quota"}}', "quota"),
        (400, b"<title>400 The plain HTTP request was sent to HTTPS port</title>", "tls"),
        (400, b"Client sent an HTTP request to an HTTPS server.\n", "tls"),
        (501, b'{"error":{"message":"This server does not support embeddings."}}', "path"),
        (400, b'{"message":"The model does not support Chat Completions API"}', "path"),
        (407, b"", "credentials"),
        (301, b"", "redirect"),
        (424, b'{"error":"Request failed during generation","error_type":"generation"}',
         "server_error"),
        (500, b'{"error":{"message":"Context size has been exceeded."}}', "server_error"),
        (502, b"<title>502 Bad Gateway</title>", "gateway"),
        (504, b"<title>504 Gateway Time-out</title>", "proxy_timeout"),
        (520, b"", "gateway"),
        (524, b"", "proxy_timeout"),
        (526, b"", "tls"),
        (200, b"<html>", "page"),
    ],
)  # fmt: skip
def test_vendors_say_it_in_their_own_ways(status: int, body: bytes, expected: str) -> None:
    assert kind(classify(Reply(status, body), CHAT)) == expected


@pytest.mark.parametrize(
    ("detail", "expected"),
    [
        ("Connect call failed ('127.0.0.1', 1)", "unreachable"),
        ("Name or service not known", "unreachable"),
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)", "tls"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: unable to get issuer", "tls"),
        ("[SSL] record layer failure (_ssl.c:1006)", "tls"),
    ],
)
def test_a_connection_that_fails_over_tls_is_a_matter_of_set_up(detail: str, expected: str) -> None:
    assert classify(NoReply("connect", detail), CHAT) == Interrupted(detail, expected)  # type: ignore[arg-type]


def test_what_speaks_no_http_is_no_engine_and_no_crash() -> None:
    outcome = classify(NoReply("broken", "the engine spoke no HTTP: Expected HTTP/"), CHAT)
    assert kind(outcome) == "page"


@pytest.mark.parametrize("status", [429, 503, 529])
def test_back_pressure_keeps_the_wish_for_a_pause(status: int) -> None:
    expected = Throttled(f"the engine answered {status}", 7.5)
    assert classify(Reply(status, b"", 7.5), CHAT) == expected


@pytest.mark.parametrize("status", [400, 413, 422, 431])
def test_a_refusal_of_the_content_is_final_with_the_engines_own_words(status: int) -> None:
    body = b'{"error": {"message": "too long"}}'
    expected = Rejected("request_rejected", "too long", status, body)
    assert classify(Reply(status, body), CHAT) == expected


def test_a_refusal_in_html_keeps_the_status_its_title_and_no_body() -> None:
    outcome = classify(Reply(413, b"<title>413 Request Entity Too Large</title>"), CHAT)
    said = "a web page: 413 Request Entity Too Large"
    assert outcome == Rejected("request_rejected", said, 413, None)


def test_the_last_try_is_recorded_as_the_engine_put_it() -> None:
    last = Failed("server_error", "out of memory", 500, b"{}")
    assert final_failure(last) == Rejected("engine_error", "out of memory", 500, b"{}")
    late = Failed("timeout", "600 s")
    assert final_failure(late) == Rejected("timeout", "600 s")


# ---- 200 is not success by itself ----


def test_an_answer_is_a_success_with_its_bytes_and_usage() -> None:
    assert classify(Reply(200, GOOD), CHAT) == Succeeded(200, GOOD, Usage(2, 0, 3, 0))
    embedded = b'{"data":[{"embedding":[0.5]}],"error":null}'
    assert classify(Reply(200, embedded), EMBEDDINGS) == Succeeded(200, embedded, NO_USAGE)
    said = b'{"object":"response","status":"completed","error":null,"output":[{"type":"message"}]}'
    assert classify(Reply(200, said), RESPONSES) == Succeeded(200, said, NO_USAGE)


def test_a_response_whose_tokens_all_went_into_reasoning_is_an_answer() -> None:
    body = b'{"status":"incomplete","output":[],"usage":{"input_tokens":5,"output_tokens":64}}'
    assert isinstance(classify(Reply(200, body), RESPONSES), Succeeded)


@pytest.mark.parametrize("status", ["incomplete", "completed"])
def test_a_response_that_ran_into_its_bound_is_an_answer(status: str) -> None:
    body = b'{"status":"%b","output":[{"type":"reasoning"}]}' % status.encode()
    assert isinstance(classify(Reply(200, body), RESPONSES), Succeeded)


@pytest.mark.parametrize(
    ("endpoint", "body", "expected"),
    [
        (CHAT, b"", "bad_answer"),
        (CHAT, b" \n", "bad_answer"),
        (CHAT, b"[]", "bad_answer"),
        (CHAT, b'"ok"', "bad_answer"),
        (CHAT, b"{}", "bad_answer"),
        (CHAT, b'{"choices": [', "bad_answer"),
        (CHAT, b'{"choices": null}', "bad_answer"),
        (CHAT, b'{"choices": [], "usage": {}}', "bad_answer"),
        (CHAT, b'{"choices":[{"finish_reason":"abort"}]}', "bad_answer"),
        (CHAT, b'{"choices":[{"finish_reason":"error","error":{"code":502}}]}', "bad_answer"),
        (CHAT, b'{"error":{"message":"Provider returned error","code":502}}', "gateway"),
        (CHAT, b'{"error":{"message":"no","code":"401"}}', "credentials"),
        (CHAT, b'{"error":"boom"}', "server_error"),
        (CHAT, b'{"object":"error","message":"boom","code":500}', "server_error"),
        (CHAT, b"\xef\xbb\xbf<!DOCTYPE html>", "page"),
        (EMBEDDINGS, b'{"data":[]}', "bad_answer"),
        (EMBEDDINGS, b'{"choices":[]}', "bad_answer"),
        (RESPONSES, b'{"status":"failed","output":[],"error":{"code":"server_error"}}',
         "server_error"),
        (RESPONSES, b'{"status":"cancelled","output":[{}]}', "bad_answer"),
        (RESPONSES, b'{"status":"completed"}', "bad_answer"),
    ],
)  # fmt: skip
def test_a_2xx_without_an_answer_is_what_it_is(endpoint: str, body: bytes, expected: str) -> None:
    outcome = classify(Reply(200, body), endpoint)
    assert kind(outcome) == expected


def test_an_error_of_the_request_within_a_200_is_the_requests() -> None:
    body = b'{"error":{"message":"too long","code":400}}'
    assert classify(Reply(200, body), CHAT) == Rejected("request_rejected", "too long", 200, body)


@pytest.mark.parametrize("status", ["queued", "in_progress"])
def test_a_receipt_for_later_is_refused_with_what_to_do(status: str) -> None:
    body = b'{"id":"resp_1","status":"%b","output":[]}' % status.encode()
    outcome = classify(Reply(200, body), RESPONSES)
    assert isinstance(outcome, Rejected)
    assert "background" in outcome.message


@pytest.mark.parametrize(
    "usage", [b'"usage":7', b'"usage":{"prompt_tokens":"3"}', b'"usage":[]', b'"status":7']
)
def test_a_field_of_an_odd_type_is_no_reason_to_throw_an_answer_away(usage: bytes) -> None:
    body = b'{"choices":[{"finish_reason":"stop"}],%b}' % usage
    assert classify(Reply(200, body), CHAT) == Succeeded(200, body, NO_USAGE)


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (GOOD[:-1] + b',"logprob":NaN}', b'"logprob": null'),
        (GOOD[:-1] + b',"logprob":-Infinity}', b'"logprob": null'),
        (GOOD[:-1] + b',"text":"a\\ud83d"}', '"text": "a\ufffd"'.encode()),
        (GOOD[:-1] + b',"text":"a\nb"}', b'"text": "a\\nb"'),
        (b"\xef\xbb\xbf" + GOOD, b'"finish_reason"'),
    ],
)
def test_an_answer_that_is_nearly_json_is_read_kept_and_paid(body: bytes, kept: bytes) -> None:
    outcome = classify(Reply(200, body), CHAT)
    assert isinstance(outcome, Succeeded)
    assert kept in outcome.body
    assert outcome.usage == Usage(2, 0, 3, 0)
    assert isinstance(classify(Reply(200, outcome.body), CHAT), Succeeded)


# ---- the words of an engine ----


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": {"message": "m", "code": 3}}', "m"),
        (b'{"error": "m"}', "m"),
        (b'{"message": "m"}', "m"),
        (b'{"detail": "m"}', "m"),
        (b'{"error": {}}', None),
        (b'{"detail": [{"loc": 1}]}', None),
        (b'{"detail":[{"loc":["body","x"],"msg":"field required"}]}', "body.x: field required"),
        (b"{}", None),
        (b"\xff", None),
        (b"", None),
        (b'{"error":' * 200_000, None),
    ],
)
def test_the_human_sentence_is_found_in_the_usual_shapes(body: bytes, message: str | None) -> None:
    assert error_message(body) == message
