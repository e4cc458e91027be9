"""The launch announcement's own code, as a user would run it.

With one word added: the endpoint. The announcement leaves it out, and no version of the client
accepts that (`create_batch() missing 1 required positional argument`).
"""

import time

from together import Together

client = Together()

file_resp = client.files.upload(file="batch_input.jsonl", purpose="batch-api")

batch = client.batches.create_batch(file_resp.id, "/v1/chat/completions")

while True:
    batch_stat = client.batches.get_batch(batch.id)
    if batch_stat.status == 'COMPLETED':  # fmt: skip
        break
    time.sleep(0.2)

client.files.retrieve_content(id=batch_stat.output_file_id, output="batch_output.jsonl")
