"""Instructor's batch processor: structured answers, read back into models."""

import json

from checks import MODEL, check, until
from instructor.batch import BatchProcessor
from pydantic import BaseModel


class Person(BaseModel):
    name: str
    age: int


people = [Person(name=f"Ada {n}", age=30 + n) for n in range(5)]
processor = BatchProcessor(f"openai/{MODEL}", Person)
messages = [[{"role": "user", "content": json.dumps(person.model_dump())}] for person in people]
for path in ("batch.jsonl", None):
    source = processor.create_batch_from_messages(messages, file_path=path)
    batch_id = processor.submit_batch(source, metadata={"from": "instructor"})
    until(
        lambda: processor.get_batch_status(batch_id),  # noqa: B023
        lambda seen: seen["status"] in ("completed", "failed"),
    )
    results = processor.get_results(batch_id)
    check("every line is a success", all(result.success for result in results))
    found = {result.custom_id: result.result for result in results}
    check("each is its own person", found == {f"request-{n}": p for n, p in enumerate(people)})
    listed = processor.list_batches(limit=5)
    check("the list begins with it", listed[0].id == batch_id)

slow = [[{"role": "user", "content": f"wait 40 {n}"}] for n in range(3)]
batch_id = processor.submit_batch(processor.create_batch_from_messages(slow))
check("cancelling", processor.cancel_batch(batch_id)["cancelling_at"])
until(lambda: processor.get_batch_status(batch_id), lambda seen: seen["status"] == "cancelled")
check("cancelled", True)
