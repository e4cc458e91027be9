"""As much of a Lowtide server as the Python client asks for, behind the real HTTP client.

`beat` is how time passes: each lets every batch that runs answer some more of its requests. What a
request is answered follows from `rule`, which gets the text of its prompt.
"""

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import httpx

from lowtide.cli.client.address import server_address
from lowtide.cli.client.http_client import HttpClient
from lowtide.cli.client.server_client import ServerClient

Json = dict[str, Any]
ADDRESS = "http://lowtide.test"
TERMINAL = ("completed", "failed", "cancelled")


def repeat(prompt: str) -> str | None:
    """The usual rule: an answer that repeats the prompt; None is a refusal."""
    return None if "bad" in prompt else f"re: {prompt}"


class BatchServer:
    """`per_beat`: how many requests of a batch a beat answers. `models`: those that it serves."""

    def __init__(self, rule: Callable[[str], str | None] = repeat, per_beat: int = 1_000) -> None:
        self.rule = rule
        self.per_beat = per_beat
        self.models = ["m"]
        self.files: dict[str, list[Json]] = {}
        self.batches: dict[str, Json] = {}
        self.lines: dict[str, list[bytes]] = {}
        self.asked: list[Json] = []
        self.cancelled: list[str] = []
        self.beats = 0
        self.stop_at: int | None = None  # the beat at which the person presses Ctrl-C
        self.is_dead = False

    def connect(self, server: str, api_key: str | None) -> ServerClient:
        """In the place of `cli.options.connect`."""
        transport = httpx.MockTransport(self.handle)
        http = HttpClient(
            server_address(server), api_key, transport=transport, sleep=lambda _: None
        )
        return ServerClient(http)

    def pause(self, *_: Any) -> None:
        """In the place of every wait."""
        self.beat()
        if self.beats == self.stop_at:
            raise KeyboardInterrupt

    def beat(self) -> None:
        self.beats += 1
        for batch in self.batches.values():
            if batch["status"] == "in_progress":
                self._answer(batch)

    # ---- HTTP ----

    def handle(self, request: httpx.Request) -> httpx.Response:
        if self.is_dead:
            raise httpx.ConnectError("refused")
        path = request.url.path.removeprefix("/openai/v1/").split("/")
        match request.method, path:
            case "GET", ["models"]:
                return _json({"data": [{"id": name} for name in self.models]})
            case "POST", ["files"]:
                return self._upload(request.read())
            case "POST", ["batches"]:
                return self._create(json.loads(request.read()))
            case "GET", ["batches"]:
                return _json({"data": list(self.batches.values())[::-1]})
            case "GET", ["batches", name] if name in self.batches:
                return _json(self.batches[name])
            case "POST", ["batches", name, "cancel"]:
                self.cancelled.append(name)
                self.batches[name]["status"] = "cancelled"
                return _json(self.batches[name])
            case "GET", ["files", name, "content"] if name in self.lines:
                offset = int(parse_qs(request.url.query.decode()).get("offset", ["0"])[0])
                return httpx.Response(200, content=b"".join(self.lines[name][offset:]))
        return _json({"error": {"code": "not_found", "message": f"no {path[-1]}"}}, 404)

    def _upload(self, form: bytes) -> httpx.Response:
        content = form.split(b"\r\n\r\n")[-1].rpartition(b"\r\n--")[0]
        name = f"file-{len(self.files)}"
        self.files[name] = [json.loads(line) for line in content.splitlines() if line]
        return _json({"id": name})

    def _create(self, body: Json) -> httpx.Response:
        name = f"batch_{len(self.batches)}"
        requests = self.files[body["input_file_id"]]
        batch = body | {
            "id": name,
            "status": "in_progress",
            "created_at": 1_700_000_000,
            "partial_output_file_id": f"{name}-output",
            "partial_error_file_id": f"{name}-errors",
            "request_counts": {"total": len(requests), "completed": 0, "failed": 0},
        }
        unknown = {each["body"]["model"] for each in requests} - set(self.models)
        if unknown:
            message = f"The model '{unknown.pop()}' is not available. Available: m."
            batch["status"] = "failed"
            batch["errors"] = {"data": [{"code": "model_not_found", "message": message}]}
        self.lines |= {f"{name}-output": [], f"{name}-errors": []}
        self.batches[name] = batch
        return _json(batch)

    def _answer(self, batch: Json) -> None:
        counts = batch["request_counts"]
        requests = self.files[batch["input_file_id"]]
        begun = counts["completed"] + counts["failed"]
        for request in requests[begun : begun + self.per_beat]:
            self.asked.append(request)
            text = self.rule(_prompt_of(request["body"]))
            side = "errors" if text is None else "output"
            counts["failed" if text is None else "completed"] += 1
            self.lines[f"{batch['id']}-{side}"].append(_line(request["custom_id"], text))
        if counts["completed"] + counts["failed"] == counts["total"]:
            batch["status"] = "completed"
            batch["output_file_id"] = batch["partial_output_file_id"]
            batch["error_file_id"] = batch["partial_error_file_id"]


def _prompt_of(body: Json) -> str:
    content = body["messages"][-1]["content"]
    return str(content if isinstance(content, str) else content[0]["text"])


def _line(custom_id: str, text: str | None) -> bytes:
    if text is None:
        body: Json = {"error": {"code": "refused", "message": "no"}}
    else:
        choice = {"message": {"content": text}, "finish_reason": "stop"}
        body = {"choices": [choice], "usage": {"total_tokens": 3}}
    response = {"status_code": 400 if text is None else 200, "body": body}
    return json.dumps({"custom_id": custom_id, "response": response}).encode() + b"\n"


def _json(value: Json, status: int = 200) -> httpx.Response:
    return httpx.Response(status, json=value)
