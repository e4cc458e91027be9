"""Interactive calls in keys mode: who may call, and whose limits count.

The HTTP API has no engine here, so a call that is let through is answered with 503: the limits are
told and counted all the same.
"""

from pathlib import Path

import pytest
from api_server import Answer
from tenant_env import CHAT, Env, Tenant, open_house

from lowtide.config import LimitSettings

BODY = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
LET_THROUGH, REFUSED = 503, 429


def call(tenant: Tenant) -> Answer:
    return tenant.ask("POST", CHAT, BODY)


@pytest.mark.parametrize("path", ["chat/completions", "completions", "embeddings", "responses"])
def test_a_call_needs_a_key_that_may_submit(env: Env, path: str) -> None:
    nobody = env.http_api.ask("POST", f"/v1/{path}", b'{"model":"m"}')
    assert (nobody.status, nobody.error["code"]) == (401, "missing_api_key")
    reader = env.tenant(scopes=("read",)).ask("POST", f"/v1/{path}", BODY)
    assert (reader.status, reader.error["code"]) == (403, "insufficient_scope")
    submitter = env.tenant(scopes=("submit",)).ask("POST", f"/v1/{path}", BODY)
    assert (submitter.status, submitter.error["code"]) == (LET_THROUGH, "model_unavailable")


def test_each_key_has_a_limit_of_its_own(tmp_path: Path) -> None:
    with open_house(tmp_path, LimitSettings(live_requests_per_minute=1)) as env:
        first = env.tenant()
        second = env.tenant(organization_id=first.organization_id)
        assert [call(first).status for _ in range(2)] == [LET_THROUGH, REFUSED]
        assert [call(second).status for _ in range(2)] == [LET_THROUGH, REFUSED]


def test_an_organization_may_have_more_or_less_than_the_default(tmp_path: Path) -> None:
    with open_house(tmp_path, LimitSettings(live_requests_per_minute=2)) as env:
        usual, generous, frugal = (env.tenant(name) for name in ("usual", "more", "less"))
        generous.change(live_requests_per_minute=3, live_tokens_per_minute=5_000)
        frugal.change(live_requests_per_minute=1)
        counts = [
            [call(tenant).status for _ in range(4)].count(LET_THROUGH)
            for tenant in (usual, generous, frugal)
        ]
        assert counts == [2, 3, 1]
        reported = call(generous).headers
        assert reported["x-ratelimit-limit-tokens"] == "5000"
        assert reported["x-ratelimit-limit-requests"] == "3"
