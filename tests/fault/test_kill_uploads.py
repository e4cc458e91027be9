"""A server that is killed while it takes parts, and while it puts them together."""

import asyncio
import hashlib
from pathlib import Path

import pytest
from served_child import Served, served

from testkit.patience import PATIENCE_S
from testkit.scripted_engine import ScriptedEngine

PARTS = 4
PART = bytes(range(256)) * 4096 * 12
"""Twelve MiB: putting four of them together takes long enough to be met in the middle."""
NEW = {
    "bytes": PARTS * len(PART),
    "filename": "x.jsonl",
    "mime_type": "text/jsonl",
    "purpose": "batch",
}


async def begin(server: Served) -> str:
    return str((await server.http.post("/v1/uploads", json=NEW)).json()["id"])


async def send(server: Served, upload_id: str) -> str:
    sent = await server.http.post(f"/v1/uploads/{upload_id}/parts", files={"data": PART})
    assert sent.status_code == 200, sent.text
    return str(sent.json()["id"])


async def complete(server: Served, upload_id: str, parts: list[str]) -> dict[str, object]:
    asked = {"part_ids": parts, "md5": hashlib.md5(PART * PARTS).hexdigest()}
    answer = await server.http.post(f"/v1/uploads/{upload_id}/complete", json=asked)
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["file"])


def staged(folder: Path) -> int:
    """Bytes of blobs that are being written."""
    return sum(path.stat().st_size for path in (folder / "data" / "blobs" / ".tmp").glob("*"))


async def has_staged(folder: Path, size: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if staged(folder) >= size:
                return
            await asyncio.sleep(0.001)


async def files(server: Served) -> list[str]:
    return [file["id"] for file in (await server.http.get("/v1/files")).json()["data"]]


async def test_killed_amid_a_part_and_amid_completion_it_loses_nothing_that_was_answered(
    tmp_path: Path,
) -> None:
    async with ScriptedEngine() as engine:
        async with served(tmp_path, engine) as server:
            upload_id = await begin(server)
            parts = [await send(server, upload_id) for _ in range(PARTS - 1)]
            sending = asyncio.create_task(send(server, upload_id))
            await has_staged(tmp_path, 256 * 1024)
            await server.kill()
            with pytest.raises(Exception):  # noqa: B017 - whatever a cut connection raises
                await sending
        left = staged(tmp_path)
        async with served(tmp_path, engine) as server:
            assert await files(server) == []
            parts.append(await send(server, upload_id))
            completing = asyncio.create_task(complete(server, upload_id, parts))
            await has_staged(tmp_path, left + len(PART))
            await server.kill()
            with pytest.raises(Exception):  # noqa: B017
                await completing
        async with served(tmp_path, engine) as server:
            assert await files(server) == [], "half visible"
            file = await complete(server, upload_id, parts)
            assert await files(server) == [file["id"]]
            got = await server.http.get(f"/v1/files/{file['id']}/content")
            assert hashlib.sha256(got.content).digest() == hashlib.sha256(PART * PARTS).digest()
            assert await complete(server, upload_id, parts) == file, "asked again"
