"""The verbs on batches, over a real store."""

import msgspec
import pytest
from skipping_clock import SkippingClock

from lowtide import limits
from lowtide.config import Settings
from lowtide.core.accounts.catalogue import Catalogue, ModelEntry
from lowtide.core.batches.batch import BatchError
from lowtide.core.errors import LowtideError
from lowtide.core.files.file import File
from lowtide.ports.store import Store
from lowtide.service.accounts.quotas import Quotas
from lowtide.service.batches.batches import BatchService
from lowtide.service.batches.new_batch import NewBatch, OutputExpiry
from testkit.manual_worker import ManualWorker

P, U = "proj_default", "user_default"
CHAT = "/v1/chat/completions"


class Env:
    """A service, and what it woke."""

    def __init__(self, store: Store, clock: SkippingClock) -> None:
        self.woken: list[str] = []
        self._ids = 0
        self.verbs = BatchService(
            store,
            Catalogue([ModelEntry(id="test-model")]),
            clock,
            self._new_id,
            Quotas(store.tenants, store.ledger, clock, Settings().limits),
            self.woken.append,
        )

    def _new_id(self, prefix: str) -> str:
        self._ids += 1
        return f"{prefix}{self._ids:024d}"


@pytest.fixture
def env(store: Store, clock: SkippingClock) -> Env:
    return Env(store, clock)


def asked(file: File, **fields: object) -> NewBatch:
    return NewBatch(input_file_id=file.id, endpoint=CHAT, **fields)  # type: ignore[arg-type]


async def refusal(verbs: BatchService, new: NewBatch) -> LowtideError:
    with pytest.raises(LowtideError) as caught:
        await verbs.create(P, U, new)
    return caught.value


async def test_a_new_batch_is_validating_and_wakes_validation(
    env: Env, worker: ManualWorker, clock: SkippingClock
) -> None:
    file = await worker.upload(2)
    created = await env.verbs.create(P, U, asked(file, metadata={"a": "b"}, priority=3))
    batch = created.batch
    assert (batch.status, batch.dialect, batch.endpoint) == ("validating", "openai", CHAT)
    assert (batch.input_bytes, batch.metadata, batch.priority) == (file.bytes, {"a": "b"}, 3)
    assert (batch.expires_at - clock.now()).total_seconds() == 24 * 3600
    assert created.warning is None
    assert env.woken == ["validate"]
    assert await env.verbs.get(P, batch.id) == batch


async def test_the_purpose_of_the_input_decides_the_dialect(env: Env, worker: ManualWorker) -> None:
    file = await worker.upload(purpose="batch-api")
    assert (await env.verbs.create(P, U, asked(file))).batch.dialect == "together"


async def test_together_may_leave_the_endpoint_out(env: Env, worker: ManualWorker) -> None:
    file = await worker.upload(purpose="batch-api")
    created = await env.verbs.create(P, U, NewBatch(input_file_id=file.id))
    assert created.batch.endpoint == CHAT


async def test_a_window_of_days_is_taken(env: Env, worker: ManualWorker) -> None:
    created = await env.verbs.create(P, U, asked(await worker.upload(), completion_window="7d"))
    assert created.batch.completion_window_s == 7 * 86400


@pytest.mark.parametrize("name", ["model", "model_id"])
async def test_one_model_for_all_lines_has_to_be_there(
    env: Env, worker: ManualWorker, name: str
) -> None:
    error = await refusal(env.verbs, asked(await worker.upload(), **{name: "x"}))
    assert (error.code, error.param) == ("model_not_found", name)


async def test_a_file_that_is_missing_unknown_or_of_another_project_is_refused(
    env: Env, worker: ManualWorker
) -> None:
    error = await refusal(env.verbs, NewBatch(endpoint=CHAT))
    assert (error.code, error.param) == ("missing_required_parameter", "input_file_id")
    assert error.message == "Missing required parameter: 'input_file_id'."
    error = await refusal(env.verbs, NewBatch(input_file_id="file-x", endpoint=CHAT))
    assert (error.code, error.param) == ("file_not_found", "input_file_id")
    file = await worker.upload()
    with pytest.raises(LowtideError) as caught:
        await env.verbs.create("proj_other", U, asked(file))
    assert caught.value.code == "file_not_found"


async def test_a_file_without_content_or_with_results_is_refused(
    env: Env, store: Store, clock: SkippingClock
) -> None:
    pending = File(
        id="file-p",
        project_id=P,
        purpose="batch-api",
        filename="p.jsonl",
        status="pending",
        dialect="together",
        created_at=clock.now(),
    )
    await store.files.add(pending)
    error = await refusal(env.verbs, asked(pending))
    assert (error.code, error.param) == ("file_not_ready", "input_file_id")


async def test_the_results_of_a_batch_are_no_input(
    env: Env, worker: ManualWorker, store: Store
) -> None:
    created = await env.verbs.create(P, U, asked(await worker.upload(1)))
    await worker.plan()
    await worker.settle(created.batch.id, ok=[1])
    output = (await env.verbs.get(P, created.batch.id)).output_file_id
    assert output is not None
    error = await refusal(env.verbs, NewBatch(input_file_id=output, endpoint=CHAT))
    assert (error.code, error.param) == ("invalid_purpose", "input_file_id")


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"endpoint": None}, "missing_required_parameter", "endpoint"),
        ({"endpoint": "/v1/images"}, "invalid_value", "endpoint"),
        ({"completion_window": "soon"}, "invalid_request", "completion_window"),
        ({"completion_window": "30d"}, "invalid_request", "completion_window"),
        ({"metadata": {str(i): "x" for i in range(17)}}, "object_above_max_properties", "metadata"),
        ({"metadata": {"k" * 65: "x"}}, "property_name_above_max_length", "metadata"),
        ({"metadata": {"k": "x" * 513}}, "string_above_max_length", "metadata.k"),
        (
            {"output_expires_after": OutputExpiry("now", 3600)},
            "invalid_request",
            "output_expires_after",
        ),
        (
            {"output_expires_after": OutputExpiry("created_at", 3599)},
            "invalid_request",
            "output_expires_after",
        ),
        (
            {"output_expires_after": OutputExpiry("created_at", 2592001)},
            "invalid_request",
            "output_expires_after",
        ),
        ({"priority": limits.PRIORITY_MAX + 1}, "invalid_request", "priority"),
    ],
)
async def test_a_value_that_makes_no_sense_is_refused_by_name(
    env: Env, worker: ManualWorker, fields: dict[str, object], code: str, param: str
) -> None:
    file = await worker.upload()
    values: dict[str, object] = {"input_file_id": file.id, "endpoint": CHAT, **fields}
    error = await refusal(env.verbs, NewBatch(**values))  # type: ignore[arg-type]
    assert (error.code, error.param) == (code, param)
    assert env.woken == []


async def test_the_bounds_themselves_are_allowed(env: Env, worker: ManualWorker) -> None:
    metadata = {f"{i:02d}".ljust(64, "k"): "v" * 512 for i in range(16)}
    for seconds in (3600, 2592000):
        expiry = OutputExpiry("created_at", seconds)
        new = asked(await worker.upload(), metadata=metadata, output_expires_after=expiry)
        assert (await env.verbs.create(P, U, new)).batch.output_expires_after_s == seconds


async def test_an_unsupported_endpoint_names_the_supported_ones(
    env: Env, worker: ManualWorker
) -> None:
    file = await worker.upload()
    error = await refusal(env.verbs, NewBatch(input_file_id=file.id, endpoint="/v1/x"))
    for endpoint in (CHAT, "/v1/completions", "/v1/embeddings", "/v1/responses"):
        assert endpoint in error.message


async def test_a_create_without_an_answer_and_its_repetition_are_one_batch(
    env: Env, worker: ManualWorker
) -> None:
    new = asked(await worker.upload())
    first = await env.verbs.create(P, U, new)
    again = await env.verbs.create(P, U, new, repeat=True)
    assert again.batch.id == first.batch.id
    assert (first.existed, again.existed) == (False, True)


async def test_two_creates_that_repeat_nothing_are_two_batches(
    env: Env, worker: ManualWorker
) -> None:
    new = asked(await worker.upload())
    first, second = await env.verbs.create(P, U, new), await env.verbs.create(P, U, new)
    assert second.batch.id != first.batch.id
    assert not second.existed


async def test_a_client_that_says_it_repeats_gets_a_batch_answered_a_moment_ago(
    env: Env, worker: ManualWorker, clock: SkippingClock
) -> None:
    new = asked(await worker.upload())
    first = await env.verbs.create(P, U, new)
    await env.verbs.mark_answered(first.batch.id)
    assert (await env.verbs.create(P, U, new, repeat=True)).batch.id == first.batch.id
    await env.verbs.mark_answered(first.batch.id)
    clock.advance(limits.ANSWER_DOUBTED_S + 1)
    assert (await env.verbs.create(P, U, new, repeat=True)).batch.id != first.batch.id


async def test_a_file_past_its_expiry_is_refused_as_expired(
    env: Env, worker: ManualWorker, store: Store, clock: SkippingClock
) -> None:
    kept = await worker.upload()
    file = msgspec.structs.replace(kept, id="file-old", expires_at=clock.now())
    await store.files.add(file)
    with pytest.raises(LowtideError) as refused:
        await env.verbs.create(P, U, asked(file))
    assert (refused.value.code, refused.value.param) == ("file_expired", "input_file_id")
    assert "Upload it again" in refused.value.message


@pytest.mark.parametrize(
    "other", [{"priority": 1}, {"metadata": {"run": "2"}}, {"completion_window": "48h"}]
)
async def test_another_wish_is_never_taken_for_a_repetition(
    env: Env, worker: ManualWorker, other: dict[str, object]
) -> None:
    file = await worker.upload()
    first = await env.verbs.create(P, U, asked(file))
    second = await env.verbs.create(P, U, asked(file, **other), repeat=True)
    assert second.batch.id != first.batch.id


async def test_pages_walk_from_the_newest_to_the_oldest(
    env: Env, worker: ManualWorker, clock: SkippingClock
) -> None:
    ids = []
    for _ in range(5):
        ids.append((await env.verbs.create(P, U, asked(await worker.upload()))).batch.id)
        clock.advance(1)
    seen: list[str] = []
    after, more = None, True
    while more:
        page = await env.verbs.page(P, after=after, limit=2)
        seen += [batch.id for batch in page.batches]
        after, more = seen[-1], page.more
    assert seen == ids[::-1]


async def test_a_page_behind_an_unknown_batch_is_refused(env: Env) -> None:
    with pytest.raises(LowtideError) as caught:
        await env.verbs.page(P, after="batch_x", limit=2)
    assert (caught.value.code, caught.value.param) == ("invalid_request", "after")


async def test_cancel_stops_a_batch_and_wakes_who_must_know(env: Env, worker: ManualWorker) -> None:
    created = await env.verbs.create(P, U, asked(await worker.upload()))
    env.woken.clear()
    batch = await env.verbs.cancel(P, created.batch.id)
    assert batch.status == "cancelling"
    assert batch.cancelling_at is not None
    assert env.woken == ["dispatch", "assemble"]
    assert await env.verbs.cancel(P, batch.id) == batch


async def test_a_batch_that_ended_otherwise_cannot_be_cancelled(
    env: Env, worker: ManualWorker
) -> None:
    created = await env.verbs.create(P, U, asked(await worker.upload()))
    await worker.reject([BatchError("invalid_json_line", "no", 1)], 1)
    with pytest.raises(LowtideError) as caught:
        await env.verbs.cancel(P, created.batch.id)
    assert caught.value.code == "batch_ended"
    assert caught.value.message == "Cannot cancel a batch with status 'failed'."


async def test_the_batch_of_another_project_is_unknown(env: Env, worker: ManualWorker) -> None:
    created = await env.verbs.create(P, U, asked(await worker.upload()))
    for verb in (env.verbs.get, env.verbs.cancel):
        with pytest.raises(LowtideError) as caught:
            await verb("proj_other", created.batch.id)
        assert caught.value.code == "batch_not_found"
        assert created.batch.id in caught.value.message
