"""Calls that nobody thought of, made from the OpenAPI document, against a running server.

`make fuzz-api` runs schemathesis over every operation three times: in open mode, in keys mode with
an administrator's key, and with a tenant's key and the ids of another tenant, which must be shown
nothing and find all it has unchanged. A case fails when the answer is a 5xx, a status or content
type that the document does not name, or a body of another shape; the server's own count of its
answers must have no 5xx, either. Seeded and bounded: --seed, --examples (per operation), --seconds
(per mode); --modes names some of the three.

The engine behind the server always answers well, so that no 5xx is the engine's.
"""

import argparse
import asyncio
import json
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import fuzz_tenants
import httpx

from testkit.scripted_engine import Answer, ScriptedEngine, SeenRequest, reply

CASES_MIN: Final = 2_000
READY_S: Final = 60.0
KNOWN_EACH: Final = 12  # ids of each kind, some of which the run itself deletes
CHECKS: Final = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)
FOREIGN_CHECK: Final = "nothing_of_another_tenant"
MODES: Final = ("open", "keys", "tenants")
MODEL: Final = "m"
CLOSED_MODEL: Final = "by-night"
RESPONSE: Final = {
    "id": "resp-1",
    "object": "response",
    "created_at": 1767225600,
    "status": "completed",
    "model": MODEL,
    "output": [
        {
            "type": "message",
            "id": "msg-1",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "ok", "annotations": []}],
        }
    ],
    "usage": {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7},
}
Json = dict[str, Any]


class ObligingEngine(ScriptedEngine):
    """Answers whatever it is asked, as a response where that is asked for, and forgets it."""

    def next_answer(self, request: SeenRequest) -> Answer:
        answer = super().next_answer(request)
        self.requests.clear()
        return [reply(RESPONSE)] if request.path.endswith("/responses") else answer


@dataclass(frozen=True, slots=True)
class Server:
    """A running `lowtide serve`; `headers` carry an administrator's key where one is needed."""

    address: str
    headers: Mapping[str, str]
    log: Path


@dataclass(slots=True)
class Outcome:
    """What one mode came to."""

    mode: str
    cases: int = 0
    failed: int = 0
    operations: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)


# ---- the server ---------------------------------------------------------------------------------


@asynccontextmanager
async def serving(folder: Path, mode: str, engine_url: str) -> AsyncIterator[Server]:
    """The server over a fresh `folder`; gone when the context is left."""
    config, log = folder / "lowtide.toml", folder / "server.log"
    opens = datetime.now(UTC) + timedelta(hours=12)
    config.write_text(
        f"[server]\nport = 0\ndata_dir = {json.dumps(str(folder / 'data'))}\n"
        f'[auth]\nmode = "{"open" if mode == "open" else "keys"}"\n'
        "[dispatch]\ncommit_interval_s = 0.1\n"
        f'[[replica]]\nurl = "{engine_url}"\nmodels = ["{MODEL}", "{CLOSED_MODEL}"]\n'
        f'[[model]]\nid = "{MODEL}"\ninput_price = 0.5\noutput_price = 1.5\n'
        f'[[model]]\nid = "{CLOSED_MODEL}"\n'
        f'hours = "{opens:%H:%M}-{opens + timedelta(minutes=1):%H:%M}"\n'
    )
    headers = {} if mode == "open" else bearer(await admin_key(config))
    with log.open("wb") as errors:
        server = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "lowtide", "serve", "--config", str(config), "--json"),
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
        )
    try:
        assert server.stdout is not None
        line = await asyncio.wait_for(server.stdout.readline(), READY_S)
        yield Server(json.loads(line)["address"], headers, log)
    finally:
        server.terminate()
        await server.wait()


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def admin_key(config: Path) -> str:
    """A key with every scope, made at the prompt as the first one always is."""
    scopes = ("--scopes", "read,submit,admin")
    command = ("keys", "create", "fuzz", *scopes, "--config", str(config), "--json")
    made = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lowtide", *command), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await made.communicate()
    return str(json.loads(said)["key"])


# ---- what calls can be about --------------------------------------------------------------------


async def known_ids(http: httpx.AsyncClient) -> dict[str, list[str]]:
    """Path parameter -> ids that exist: files with and without bytes, results, batches, tenants."""
    uploads = [await upload(http) for _ in range(KNOWN_EACH)]
    batches = [await ended_batch(http, file_id) for file_id in uploads[:3]]
    announced = await http.post("/v1/files?purpose=batch-api&file_name=later.jsonl")
    in_parts = [await begun(http) for _ in range(KNOWN_EACH)]
    files = [*uploads, *(each["output_file_id"] for each in batches)]
    organization = await made(http, "/v1/admin/organizations", name="Fuzz Limited")
    tenant = {"organization_id": organization}
    project = await made(http, "/v1/admin/projects", name="fuzz", **tenant)
    keys = [
        await made(http, "/v1/admin/keys", name=f"fuzz {n}", project_id=project)
        for n in range(KNOWN_EACH)
    ]
    return {
        "file_id": [*files, announced.headers["x-together-file-id"]],
        "upload_id": [upload_id for upload_id, _ in in_parts],
        "part_ids": [part_id for _, part_id in in_parts],
        "batch_id": [each["id"] for each in batches],
        "name": [MODEL],
        "organization_id": [organization],
        "project_id": [project],
        "key_id": keys,
        "input_file_id": uploads,
        "model": [MODEL],
    }


async def upload(http: httpx.AsyncClient) -> str:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
    line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": body}
    form = {"file": ("input.jsonl", json.dumps(line).encode())}
    sent = await http.post("/v1/files", data={"purpose": "batch"}, files=form)
    return str(sent.raise_for_status().json()["id"])


async def begun(http: httpx.AsyncClient) -> tuple[str, str]:
    """An upload in parts that could be completed, and its only part."""
    new: dict[str, str | int] = {
        "bytes": 2,
        "filename": "x",
        "mime_type": "text/jsonl",
        "purpose": "batch",
    }
    upload_id = await made(http, "/v1/uploads", **new)
    sent = await http.post(f"/v1/uploads/{upload_id}/parts", files={"data": b"{}"})
    return upload_id, str(sent.raise_for_status().json()["id"])


async def ended_batch(http: httpx.AsyncClient, file_id: str) -> Json:
    asked = {"input_file_id": file_id, "endpoint": "/v1/chat/completions"}
    batch = (await http.post("/v1/batches", json=asked)).raise_for_status().json()
    async with asyncio.timeout(READY_S):
        while batch["status"] != "completed":
            await asyncio.sleep(0.1)
            batch = (await http.get(f"/v1/batches/{batch['id']}")).raise_for_status().json()
    return dict(batch)


async def made(http: httpx.AsyncClient, path: str, **fields: str | int) -> str:
    return str((await http.post(path, json=fields)).raise_for_status().json()["id"])


def with_known(document: Json, known: Mapping[str, Sequence[str]]) -> Json:
    """The document, in which a parameter may also be an id that there is.

    The engine's own refusals are taken out: this engine has none, so each status must be ours.
    """
    for path in document["paths"].values():
        for operation in path.values():
            for wildcard in ("4XX", "5XX"):
                operation["responses"].pop(wildcard, None)
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "path" and parameter["name"] in known:
                    parameter["schema"] = _one_of(known[parameter["name"]])
            for content in operation.get("requestBody", {}).get("content", {}).values():
                properties = content["schema"].get("properties", {})
                for name in properties.keys() & known.keys():
                    one = _one_of(known[name])
                    is_list = properties[name].get("type") == "array"
                    properties[name] = {"type": "array", "items": one} if is_list else one
    return document


def _one_of(known: Sequence[str]) -> Json:
    return {"anyOf": [{"enum": list(known)}, {"type": "string"}]}


# ---- one mode -----------------------------------------------------------------------------------


async def fuzz(mode: str, arguments: argparse.Namespace, engine_url: str) -> Outcome:
    """Every operation of the document, in one mode."""
    if mode == "tenants":
        return await fuzz_two_tenants(arguments, engine_url)
    outcome = Outcome(mode)
    with tempfile.TemporaryDirectory(prefix="lowtide-fuzz-") as name:
        folder = Path(name)
        async with (
            serving(folder, mode, engine_url) as server,
            httpx.AsyncClient(
                base_url=server.address, headers=server.headers, trust_env=False, timeout=30
            ) as http,
        ):
            document = (await http.get("/openapi.json")).raise_for_status().json()
            (folder / "openapi.json").write_text(
                json.dumps(with_known(document, await known_ids(http)))
            )
            await run_schemathesis(folder, server, arguments, outcome)
            metrics = (await http.get("/metrics")).raise_for_status().text
        outcome.statuses.update(counted(metrics))
        judge(outcome, operations_of(document), server.log.read_text())
    return outcome


async def fuzz_two_tenants(arguments: argparse.Namespace, engine_url: str) -> Outcome:
    """Every operation with one tenant's key, about its own objects and those of another."""
    outcome = Outcome("tenants")
    with tempfile.TemporaryDirectory(prefix="lowtide-fuzz-") as name:
        folder = Path(name)
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(serving(folder, "tenants", engine_url))

            async def client(headers: Mapping[str, str]) -> httpx.AsyncClient:
                new = httpx.AsyncClient(
                    base_url=server.address, headers=headers, trust_env=False, timeout=30
                )
                return await stack.enter_async_context(new)

            admin = await client(server.headers)
            keys = [bearer(await fuzz_tenants.new_key(admin, n)) for n in ("odd", "other")]
            odd, other = [await client(each) for each in keys]
            own = await fuzz_tenants.belongings(odd, MODEL, CLOSED_MODEL, "of-the-odd-one")
            foreign = await fuzz_tenants.belongings(other, MODEL, CLOSED_MODEL, fuzz_tenants.MARKER)
            before = await fuzz_tenants.sample(other, foreign.paths)
            document = (await admin.get("/openapi.json")).raise_for_status().json()
            known = {n: [*own.known[n], *ids] for n, ids in foreign.known.items()}
            (folder / "openapi.json").write_text(json.dumps(with_known(document, known)))
            reported = {"marker": fuzz_tenants.MARKER, "ids": foreign.ids}
            (folder / "foreign.json").write_text(json.dumps(reported))
            caller = replace(server, headers=keys[0])
            await run_schemathesis(folder, caller, arguments, outcome)
            after = await fuzz_tenants.sample(other, foreign.paths)
            outcome.complaints += fuzz_tenants.differences(before, after)
            if (wrong := await fuzz_tenants.finish_upload(other, foreign.known)) is not None:
                outcome.complaints.append(wrong)
            metrics = (await admin.get("/metrics")).raise_for_status().text
        outcome.statuses.update(counted(metrics))
        judge(outcome, operations_of(document), server.log.read_text())
    return outcome


async def run_schemathesis(
    folder: Path, server: Server, arguments: argparse.Namespace, outcome: Outcome
) -> None:
    """Fill in cases and failures; its own words are among the complaints when there are any."""
    report = folder / "report.json"
    # Following links it may revoke the very key it calls with, so not in keys mode.
    phases = "examples,coverage,fuzzing" + (",stateful" if outcome.mode == "open" else "")
    checks, environment = CHECKS, dict(os.environ)
    if outcome.mode == "tenants":
        checks = (*CHECKS, FOREIGN_CHECK)
        environment["SCHEMATHESIS_HOOKS"] = "fuzz_tenant_check"
        environment["PYTHONPATH"] = str(Path(__file__).parent)
        environment["LOWTIDE_FUZZ_FOREIGN"] = str(folder / "foreign.json")
    command = [
        *("-m", "schemathesis.cli", "run", str(folder / "openapi.json"), "--url", server.address),
        *("--checks", ",".join(checks), "--phases", phases, "--continue-on-failure"),
        *("--seed", str(arguments.seed), "--max-examples", str(arguments.examples)),
        *("--no-shrink", "--warnings", "off", "--request-timeout", "30"),
        *("--report", "json", "--report-json-path", str(report)),
    ]
    for name, value in server.headers.items():
        command += ["--header", f"{name}: {value}"]
    run = await asyncio.create_subprocess_exec(
        *(sys.executable, *command),
        cwd=folder,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await asyncio.wait_for(run.communicate(), arguments.seconds)
    except TimeoutError:
        run.kill()
        await run.wait()
        outcome.complaints.append(f"not done after {arguments.seconds} seconds")
        return
    reported = json.loads(report.read_text()) if report.exists() else None
    if reported is not None:
        outcome.cases = reported["test_cases"]["generated"]
        outcome.failed = reported["test_cases"]["with_failures"] + reported["test_cases"]["errored"]
        outcome.operations = reported["operations"]["tested"]
    if run.returncode:
        outcome.complaints.append(said.decode(errors="replace"))


def operations_of(document: Json) -> int:
    return sum(len(path) for path in document["paths"].values())


def counted(metrics: str) -> Counter[str]:
    """Answers by status, as the server counted them."""
    found: Counter[str] = Counter()
    pattern = r'^lowtide_http_requests_total\{.*status="(\d+)"\} ([\d.e+]+)$'
    for status, count in re.findall(pattern, metrics, re.M):
        found[status] += int(float(count))
    return found


def judge(outcome: Outcome, operations: int, log: str) -> None:
    """Add what schemathesis cannot see."""
    for status, count in outcome.statuses.items():
        if status.startswith("5"):
            outcome.complaints.append(f"the server counted {count} answers of {status}")
    if "request failed" in log:
        outcome.complaints.append(f"the server's log has a failed request:\n{log[-4000:]}")
    if outcome.operations != operations:
        outcome.complaints.append(f"{outcome.operations} of {operations} operations were called")


# ---- all modes ----------------------------------------------------------------------------------


async def every_mode(arguments: argparse.Namespace) -> int:
    """Exit code: 0 when no case and no judgement failed."""
    async with ObligingEngine() as engine:
        outcomes = [await fuzz(mode, arguments, engine.url) for mode in arguments.modes]
    for outcome in outcomes:
        statuses = ", ".join(f"{s}: {n}" for s, n in sorted(outcome.statuses.items()))
        print(f"{outcome.mode}: {outcome.operations} operations, {outcome.cases} cases; {statuses}")
        for complaint in outcome.complaints:
            print(f"{outcome.mode}: {complaint}")
    cases = sum(outcome.cases for outcome in outcomes)
    failed = sum(max(outcome.failed, bool(outcome.complaints)) for outcome in outcomes)
    if cases < arguments.cases:
        print(f"{cases} cases are fewer than the {arguments.cases} asked for")
        failed = failed or 1
    print(f"{cases - failed} passed, {failed} failed")
    return min(1, failed)


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz the HTTP API from its own document.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--examples", type=int, default=40, help="generated cases per operation")
    parser.add_argument("--seconds", type=float, default=600.0, help="the most one mode may take")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--cases", type=int, default=CASES_MIN, help="fewer in all are a failure")
    return asyncio.run(every_mode(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
