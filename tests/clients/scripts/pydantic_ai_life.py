"""Pydantic AI: agents whose model requests go by the batch API of the OpenAI provider."""

import asyncio
import os
from datetime import timedelta

from checks import MODEL, SLOW_TEXTS, check, until_async
from pydantic_ai import Agent, ModelHTTPError
from pydantic_ai.capabilities import BatchModelRequests
from pydantic_ai.messages import ModelRequest
from pydantic_ai.models import openai as models
from pydantic_ai.models.batch import BatchRequest
from pydantic_ai.providers.openai import OpenAIProvider

provider = OpenAIProvider(base_url=os.environ["OPENAI_BASE_URL"], api_key="key")


async def batched(model: models.OpenAIResponsesModel) -> None:
    tick = timedelta(seconds=0.2)
    batching = BatchModelRequests(
        max_requests=5, max_wait=tick, poll_interval=tick, max_poll_interval=tick
    )
    agent = Agent(model, capabilities=[batching])
    texts = [f"text {n} with \u2028 and é" for n in range(7)]
    async with batching:
        results = await asyncio.gather(*(agent.run(text) for text in texts))
        check("each run has its own answer", [r.output for r in results] == [f"echo: {t}" for t in texts])  # fmt: skip # noqa: E501
        check("usage arrives", results[0].usage.input_tokens > 0)
        try:
            await agent.run("refuse not today")
        except ModelHTTPError as error:
            check(f"a refusal reaches its run: {error}", error.status_code == 400)
        else:
            check("a refusal reaches its run", False)


async def cancelled(model: models.OpenAIResponsesModel) -> None:
    """The model's own batch methods, and what it makes of a batch that was cancelled."""
    requests = [
        BatchRequest(custom_id=f"c{n}", messages=[ModelRequest.user_text_prompt(text)])
        for n, text in enumerate(SLOW_TEXTS)
    ]
    batch = await model.batch_create([await model.batch_encode(each) for each in requests])
    check("submitted", (batch.status, batch.request_count) == ("in_progress", len(requests)))
    await until_async(
        lambda: model.client.batches.retrieve(batch.id), lambda seen: seen.request_counts.completed
    )
    check("cancelling", (await model.batch_cancel(batch)).status in ("canceling", "ended"))
    ended = await until_async(
        lambda: model.batch_status(batch), lambda seen: seen.status == "ended"
    )
    results = {result.custom_id: result for result in await model.batch_results(ended)}
    check("a result for each request", len(results) == len(requests))
    answer = model.batch_decode(results["c0"], requests[0])
    check("what was done is kept", answer.text == "echo: quick")
    statuses = [result.status for name, result in results.items() if name != "c0"]
    check(f"the rest is cancelled: {set(statuses)}", set(statuses) == {"canceled"})


async def main() -> None:
    model = models.OpenAIResponsesModel(MODEL, provider=provider)
    await batched(model)
    await cancelled(model)


asyncio.run(main())
