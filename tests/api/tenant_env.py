"""An HTTP API that asks for keys, tenants with theirs, and a worker for each project."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec
from api_server import CATALOGUE, Answer, ApiServer, form, open_api_server

from lowtide.blobs.url import open_blobs
from lowtide.config import AuthSettings, LimitSettings, ServerSettings, Settings
from lowtide.core.accounts.catalogue import Catalogue
from lowtide.core.accounts.tenancy import OrganizationLimits
from lowtide.core.batches.batch import Batch
from lowtide.core.validation.planner import Planner
from lowtide.loops.batches.assemble import AssembleLoop
from lowtide.loops.batches.validate import ValidateLoop
from testkit.manual_worker import ManualWorker

CHAT: Final = "/v1/chat/completions"
EVERYTHING = ("read", "submit", "admin")


@dataclass
class Tenant:
    """An organization with one project and one key."""

    env: "Env"
    organization_id: str
    project_id: str
    key_id: str
    key: str
    worker: ManualWorker

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """A call with the tenant's key; a body that is no bytes is sent as JSON."""
        if body is not None and not isinstance(body, bytes):
            body = msgspec.json.encode(body)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.env.http_api.ask(
            method, path, body, {"authorization": f"Bearer {self.key}", **named}
        )

    def upload(self, content: bytes, purpose: str = "batch") -> Answer:
        body, kind = form([("purpose", None, purpose.encode()), ("file", "in.jsonl", content)])
        return self.ask("POST", "/v1/files", body, content_type=kind)

    def create(self, content: bytes, **fields: Any) -> Answer:
        """Upload, and a batch over it."""
        file_id = self.upload(content).json["id"]
        return self.ask(
            "POST", "/v1/batches", {"input_file_id": file_id, "endpoint": CHAT, **fields}
        )

    def change(self, spend_cap: Decimal | None = None, **limits: int) -> None:
        """Replace limits and cap, as an administrator would."""
        services = self.env.http_api.services
        self.env.http_api.run(
            services.tenants.change_organization(
                self.organization_id, bounds=OrganizationLimits(**limits), spend_cap=spend_cap
            )
        )
        services.allowance.forget()


@dataclass
class Env:
    """The HTTP API and what a test does behind it."""

    http_api: ApiServer
    catalogue: Catalogue = CATALOGUE

    def tenant(
        self,
        name: str = "acme",
        scopes: Sequence[str] = ("read", "submit"),
        organization_id: str | None = None,
    ) -> Tenant:
        """A new organization, unless one is named, with a new project and a new key."""
        tenants, run = self.http_api.services.tenants, self.http_api.run
        if organization_id is None:
            organization_id = run(tenants.create_organization(name)).id
        project = run(tenants.create_project(organization_id, name))
        made = run(tenants.create_key(project.id, name, scopes=scopes))
        blobs = open_blobs("file", self.http_api.folder / "blobs")
        worker = ManualWorker(
            self.http_api.store, blobs, self.http_api.clock, project.id, self.catalogue.prices
        )
        return Tenant(self, organization_id, project.id, made.key.id, made.credential, worker)

    def validate(self) -> None:
        """What the validate loop would do now."""
        self.http_api.run(self._validate())

    def assemble(self) -> None:
        self.http_api.run(self._assemble())

    def ended_batch(self, tenant: Tenant, requests: int = 3, model: str = "m") -> Batch:
        """A completed batch of the tenant whose last line failed."""
        batch = self.running_batch(tenant, requests, model)
        lines = list(range(1, requests + 1))
        run = self.http_api.run
        run(tenant.worker.lease(batch.id, [model]))
        run(tenant.worker.settle(batch.id, ok=lines[:-1], bad=lines[-1:]))
        self.assemble()
        ended: Batch = run(self.http_api.services.batches.get(tenant.project_id, batch.id))
        assert ended.status == "completed"
        return ended

    def running_batch(self, tenant: Tenant, requests: int = 3, model: str = "m") -> Batch:
        file = self.http_api.run(tenant.worker.upload(requests, model=model))
        asked = {"input_file_id": file.id, "endpoint": CHAT}
        batch_id = tenant.ask("POST", "/v1/batches", asked).json["id"]
        self.http_api.run(tenant.worker.plan({model: requests}))
        batch: Batch = self.http_api.run(
            self.http_api.services.batches.get(tenant.project_id, batch_id)
        )
        return batch

    async def _validate(self) -> None:
        http_api = self.http_api
        loop = ValidateLoop(
            "v",
            http_api.store.lifecycle,
            open_blobs("file", http_api.folder / "blobs"),
            http_api.clock,
            Planner(self.catalogue, lambda: http_api.services.allowance.defaults),
            http_api.services.allowance,
            lambda _: None,
        )
        await loop.tick(http_api.clock.now())

    async def _assemble(self) -> None:
        store, clock = self.http_api.store, self.http_api.clock
        blobs = open_blobs("file", self.http_api.folder / "blobs")
        await AssembleLoop("a", store.lifecycle, store.results, blobs, clock).tick(clock.now())


def line(number: int = 1, model: str = "m", text: str = "hello", **body: Any) -> bytes:
    """One input line."""
    messages = [{"role": "user", "content": text}]
    request = {"custom_id": f"r-{number}", "method": "POST", "url": CHAT}
    return (
        msgspec.json.encode({**request, "body": {"model": model, "messages": messages, **body}})
        + b"\n"
    )


@contextmanager
def open_house(folder: Path, limits: LimitSettings | None = None) -> Iterator[Env]:
    settings = Settings(
        server=ServerSettings(data_dir=folder),
        auth=AuthSettings(mode="keys"),
        limits=limits or LimitSettings(),
    )
    with open_api_server(folder, settings) as http_api:
        yield Env(http_api)
