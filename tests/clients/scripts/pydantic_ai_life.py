"""Pydantic AI: agents whose model requests go by the batch API of the OpenAI provider."""

import asyncio
import os
from datetime import timedelta

from checks import MODEL, check
from pydantic_ai import Agent, ModelHTTPError
from pydantic_ai.capabilities import BatchModelRequests
from pydantic_ai.models import openai as models
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


asyncio.run(batched(models.OpenAIResponsesModel(MODEL, provider=provider)))
