"""The operators' page says of every limit what a client sees: provoked here, one by one."""

import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from api_server import Answer
from tenant_env import CHAT, Env, Tenant, line

from lowtide.core.accounts.tenancy import OrganizationLimits

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "how-to" / "limits-and-money.md").read_text()
REFERENCE = (DOCS / "reference" / "cli.md").read_text()
ROWS = dict(re.findall(r"^\| `(\w+)` \| .+ \| ([^|]+) \|$", PAGE, re.M))


def answered(answer: Answer) -> str:
    return f"{answer.status} `{answer.error['code']}`"


def after_validation(env: Env, tenant: Tenant, content: bytes) -> str:
    created = tenant.create(content)
    env.validate()
    batch = tenant.ask("GET", f"/v1/batches/{created.json['id']}").json
    return f"batch `{batch['status']}`: `{batch['errors']['data'][0]['code']}`"


def second_live_call(env: Env, tenant: Tenant) -> Answer:
    """While a first one is on its way: what that reserved is given back only with its answer."""
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50}
    env.http_api.run(
        env.http_api.services.live.admit(
            CHAT, msgspec.json.encode(body), project_id=tenant.project_id, key_id=tenant.key_id
        )
    )
    return tenant.ask("POST", CHAT, body)


PROVOKED: dict[str, tuple[int, Callable[[Env, Tenant], str]]] = {
    "requests_per_batch": (1, lambda h, t: after_validation(h, t, line(1) + line(2))),
    "file_bytes": (10, lambda _, t: answered(t.upload(line()))),
    "enqueued_tokens_per_model": (1, lambda h, t: after_validation(h, t, line(text="a b " * 99))),
    "batches_per_hour": (0, lambda _, t: answered(t.create(line()))),
    "unfinished_batches": (0, lambda _, t: answered(t.create(line()))),
    "stored_bytes": (10, lambda _, t: answered(t.upload(line()))),
    "control_calls_per_minute": (0, lambda _, t: answered(t.ask("GET", "/v1/batches"))),
    "live_requests_per_minute": (1, lambda h, t: answered(second_live_call(h, t))),
    "live_tokens_per_minute": (60, lambda h, t: answered(second_live_call(h, t))),
}


@pytest.mark.parametrize("name", PROVOKED)
def test_a_client_sees_what_the_page_says(env: Env, name: str) -> None:
    bound, provoke = PROVOKED[name]
    tenant = env.tenant()
    tenant.change(**{name: bound})
    assert provoke(env, tenant) == ROWS[name]


def test_only_what_makes_work_wait_ends_in_no_error() -> None:
    """`test_limits_http.py` shows the reason for requests in flight; a weight decides whose turn
    it is."""
    silent = {name for name in OrganizationLimits.__struct_fields__ if ROWS[name] == "-"}
    assert silent == {"requests_in_flight", "weight"}
    assert silent | PROVOKED.keys() == set(OrganizationLimits.__struct_fields__)


def test_a_spend_cap_refuses_as_the_page_says(env: Env) -> None:
    tenant = env.tenant()
    tenant.change(spend_cap=Decimal("0.0001"))
    reported = after_validation(env, tenant, line(max_tokens=1000))
    assert reported == "batch `failed`: `spend_cap_exceeded`"
    tenant.change(spend_cap=Decimal(0))
    assert answered(tenant.create(line())) == "402 `spend_cap_exceeded`"
    assert "the batch is `failed` with `spend_cap_exceeded`" in PAGE
    assert "answers 402 `spend_cap_exceeded`" in PAGE


@pytest.mark.parametrize("command", re.findall(r"^(lowtide .+?)(?:  +#.*)?$", PAGE, re.M))
def test_a_command_of_the_page_is_there_with_its_options(command: str) -> None:
    """In the reference, which is made from the command line itself."""
    words = command.split()
    heads = [f"\n## `{' '.join(words[:count])}`\n" for count in (3, 2)]
    head = next(head for head in heads if head in REFERENCE)
    section = REFERENCE.partition(head)[2].partition("\n## ")[0]
    for option in (word for word in words if word.startswith("--")):
        assert f"`{option}`" in section, option
