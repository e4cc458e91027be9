"""What an engine gets of a body is the same for every caller, and no caller reaches another's."""

from typing import Any

import msgspec
import pytest

from lowtide.core.bodies.body_rules import RESERVED_FIELDS, BodyRules, cache_salt, rules_of

CHAT = "/v1/chat/completions"


def sent(rules: BodyRules, body: bytes, organization: str = "org_a", **rest: Any) -> Any:
    endpoint = rest.pop("endpoint", CHAT)
    return msgspec.json.decode(rules.body(body, endpoint, "m", organization, **rest))


@pytest.mark.parametrize("name", sorted(RESERVED_FIELDS))
def test_a_field_that_acts_on_other_callers_never_comes_from_a_caller(name: str) -> None:
    body = msgspec.json.encode({"model": "m", name: -1_000_000})
    assert sent(BodyRules(), body) == {"model": "m"}
    assert sent(rules_of(allow=frozenset({name})), body) == {"model": "m", name: -1_000_000}
    spelled = body.replace(name[:1].encode(), b"\\u%04x" % ord(name[0]), 2)
    assert name not in sent(BodyRules(), spelled), "escapes go round no rule"


def test_our_own_priority_is_sent_and_the_callers_is_not() -> None:
    body = b'{"model":"m","priority":-9}'
    assert sent(BodyRules(), body, set_fields={"priority": 100})["priority"] == 100


def test_a_body_without_such_fields_is_sent_byte_for_byte() -> None:
    body = b'{"model": "m", "n": 1.10, "messages": [{"role": "user", "content": "\xc3\xa9 \\n"}]}'
    assert BodyRules().body(body, CHAT, "m", "org_a") is body
    escaped = b'{"model": "m", "prompt": "\\u00e9"}'
    assert BodyRules().body(escaped, CHAT, "m", "org_a") == escaped


def test_nothing_is_stored_at_an_engine() -> None:
    body = b'{"model":"m","input":"x"}'
    assert sent(BodyRules(), body, endpoint="/v1/responses")["store"] is False
    assert sent(BodyRules(), b'{"model":"m","store":true}')["store"] is False
    assert sent(BodyRules(), b'{"model":"m","stor\\u0065":true}')["store"] is False
    assert "store" not in sent(BodyRules(), b'{"model":"m"}')
    refuses = rules_of(drop=frozenset({"store"}))
    assert "store" not in sent(refuses, b'{"model":"m","store":true}', endpoint="/v1/responses")


def test_two_organizations_never_have_one_salt_and_one_has_its_own_users_apart() -> None:
    rules = rules_of(isolates_cache=True)
    plain = b'{"model":"m"}'
    first, second = sent(rules, plain, "org_a"), sent(rules, plain, "org_b")
    assert first["cache_salt"] != second["cache_salt"]
    assert first == sent(rules, plain, "org_a")
    forged = msgspec.json.encode({"model": "m", "cache_salt": second["cache_salt"]})
    assert sent(rules, forged, "org_a")["cache_salt"] not in (
        first["cache_salt"],
        second["cache_salt"],
    )
    assert len({cache_salt("org_a", own) for own in (b"", b'"u1"', b'"u2"')}) == 3


@pytest.mark.parametrize(
    ("isolates", "takes_salt", "is_salted"),
    [(None, True, True), (None, False, False), (True, False, True), (False, True, False)],
)
def test_a_salt_goes_to_engines_that_are_known_to_take_it_or_said_to(
    isolates: bool | None, takes_salt: bool, is_salted: bool
) -> None:
    rules = rules_of(isolates_cache=isolates)
    assert ("cache_salt" in sent(rules, b'{"model":"m"}', takes_salt=takes_salt)) is is_salted
    embedding = sent(rules, b'{"model":"m"}', takes_salt=takes_salt, endpoint="/v1/embeddings")
    assert "cache_salt" not in embedding
