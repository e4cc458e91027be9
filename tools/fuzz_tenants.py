"""Two tenants for fuzz_api.py: one whose calls are odd, and one that must notice nothing of them.

`belongings` makes what the second tenant has, one of each kind, finished and under way. `sample`
takes down how all of it looks to its owner; before and after the run this must be the same.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx

MARKER: Final = "kept-by-the-other-tenant"
WAITS_S: Final = 60.0
MOVES: Final = {"progress", "eta", "reason", "waiting_reasons"}
"""Fields of a batch that change by themselves while it waits."""


@dataclass(frozen=True, slots=True)
class Belongings:
    """Ids of one tenant by path parameter, and the addresses that only it can read."""

    known: Mapping[str, Sequence[str]]
    paths: Sequence[str]

    @property
    def ids(self) -> list[str]:
        return [each for ids in self.known.values() for each in ids]


async def new_key(admin: httpx.AsyncClient, name: str) -> str:
    """A key that reads and submits, for a new project of a new organization."""
    organization = await _made(admin, "/v1/admin/organizations", name=name)
    project = await _made(admin, "/v1/admin/projects", name=name, organization_id=organization)
    fields = {"name": name, "project_id": project, "scopes": ["read", "submit"]}
    made = (await admin.post("/v1/admin/keys", json=fields)).raise_for_status().json()
    return str(made["key"])


async def belongings(
    http: httpx.AsyncClient, model: str, waiting_model: str, marker: str
) -> Belongings:
    """Files, a batch that is done and one that waits, an upload in parts, a background response.

    `waiting_model`: its batches do not begin. `marker` stands in everything that is written.
    """
    done_input, spare = [await _upload(http, model, marker) for _ in range(2)]
    waiting_input = await _upload(http, waiting_model, marker)
    done = await _batch(http, done_input, marker, "completed")
    waiting = await _batch(http, waiting_input, marker, "in_progress")
    upload, part = await _upload_in_parts(http, marker)
    announced = await http.post(f"/v1/files?purpose=batch-api&file_name={marker}.jsonl")
    asked = {"model": model, "input": marker, "background": True}
    response = (await http.post("/v1/responses", json=asked)).raise_for_status().json()["id"]
    files = [done_input, waiting_input, spare, done["output_file_id"]]
    await _until(http, f"/v1/responses/{response}", "completed")
    paths = ["/v1/files", "/v1/batches", f"/v1/responses/{response}"]
    paths += [f"/v1/files/{each}{rest}" for each in files for rest in ("", "/content")]
    paths += [f"/v1/batches/{each['id']}" for each in (done, waiting)]
    known = {
        "file_id": [*files, announced.headers["x-together-file-id"]],
        "upload_id": [upload],
        "part_ids": [part],
        "batch_id": [done["id"], waiting["id"]],
        "response_id": [response],
        "input_file_id": [done_input, spare],
    }
    return Belongings(known, paths)


async def sample(http: httpx.AsyncClient, paths: Sequence[str]) -> dict[str, str]:
    """Each address with what it answers, without what moves by itself while a batch waits."""
    found = {}
    for path in paths:
        answer = await http.get(path)
        found[path] = f"{answer.status_code} {_steady(answer)}"
    return found


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    return [
        f"{path} of the other tenant was\n  {_around(was, now)}\nand is\n  {_around(now, was)}"
        for path, was in before.items()
        if (now := after[path]) != was
    ]


def _around(text: str, other: str) -> str:
    """The part of `text` in which it begins to differ from `other`."""
    pairs = enumerate(zip(text, other, strict=False))
    same = next((place for place, (one, two) in pairs if one != two), 0)
    return text[max(0, same - 200) : same + 400]


async def finish_upload(http: httpx.AsyncClient, known: Mapping[str, Sequence[str]]) -> str | None:
    """What is wrong with the upload in parts that was left open; None when its owner can end it."""
    (upload,), parts = known["upload_id"], list(known["part_ids"])
    answer = await http.post(f"/v1/uploads/{upload}/complete", json={"part_ids": parts})
    return None if answer.is_success else f"its open upload cannot be ended: {answer.text}"


def _steady(answer: httpx.Response) -> str:
    if not answer.headers.get("content-type", "").startswith("application/json"):
        return answer.text
    return json.dumps(_without(answer.json(), MOVES), sort_keys=True)


def _without(value: Any, names: set[str]) -> Any:
    if isinstance(value, dict):
        return {n: _without(v, names) for n, v in value.items() if n not in names}
    return [_without(each, names) for each in value] if isinstance(value, list) else value


async def _made(http: httpx.AsyncClient, path: str, **fields: str) -> str:
    return str((await http.post(path, json=fields)).raise_for_status().json()["id"])


async def _upload(http: httpx.AsyncClient, model: str, marker: str) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": marker}]}
    line = {"custom_id": marker, "method": "POST", "url": "/v1/chat/completions", "body": body}
    form = {"file": (f"{marker}.jsonl", json.dumps(line).encode())}
    sent = await http.post("/v1/files", data={"purpose": "batch"}, files=form)
    return str(sent.raise_for_status().json()["id"])


async def _upload_in_parts(http: httpx.AsyncClient, marker: str) -> tuple[str, str]:
    new = {"bytes": 2, "filename": marker, "mime_type": "text/jsonl", "purpose": "batch"}
    made = (await http.post("/v1/uploads", json=new)).raise_for_status().json()["id"]
    sent = await http.post(f"/v1/uploads/{made}/parts", files={"data": b"{}"})
    return str(made), str(sent.raise_for_status().json()["id"])


async def _batch(http: httpx.AsyncClient, file_id: str, marker: str, until: str) -> dict[str, Any]:
    asked = {
        "input_file_id": file_id,
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "metadata": {"of": marker},
    }
    batch = (await http.post("/v1/batches", json=asked)).raise_for_status().json()
    return await _until(http, f"/v1/batches/{batch['id']}", until)


async def _until(http: httpx.AsyncClient, path: str, status: str) -> dict[str, Any]:
    """The object, once it has the status; an engine's own answer has none, and is complete."""
    async with asyncio.timeout(WAITS_S):
        while True:
            found = (await http.get(path)).raise_for_status().json()
            if found.get("status", "completed") == status:
                return dict(found)
            await asyncio.sleep(0.1)
