"""`GET /v1/admin/scale`: what KEDA and scripts poll."""

from typing import Any

import msgspec
from tenant_env import EVERYTHING, Env

from lowtide.api.objects.scale import ScaleList, ScaleObject


def test_each_model_is_told_and_one_by_itself_with_a_slash_in_its_name(env: Env) -> None:
    admin = env.tenant("root", scopes=EVERYTHING)
    listed = admin.ask("GET", "/v1/admin/scale")
    reported = msgspec.convert(listed.json, ScaleList)
    assert "m" in [each.model for each in reported.data]
    one: Any = admin.ask("GET", "/v1/admin/scale/m").json
    assert msgspec.convert(one, ScaleObject).replicas_wanted == 0
    assert one["trusted"] is False, "no worker reports"
    missing = admin.ask("GET", "/v1/admin/scale/meta-llama/none")
    assert (missing.status, missing.error["code"]) == (404, "model_not_found")


def test_it_needs_the_scope_admin(env: Env) -> None:
    submitter = env.tenant("acme")
    assert submitter.ask("GET", "/v1/admin/scale").error["code"] == "insufficient_scope"
    assert submitter.ask("GET", "/v1/admin/scale/m").error["code"] == "insufficient_scope"
