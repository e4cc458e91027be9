"""Search passages by their embeddings.

    python examples/cookbook/search_vectors.py vectors.parquet 'what does a batch cost' \
        http://127.0.0.1:9001/v1 word-counts

The question is embedded by the same engine and model as the passages, with a live call. The
nearest passages are those whose vectors point in the most similar direction (cosine similarity).
"""

import sys

import httpx
import numpy as np
import pyarrow.parquet as pq

NEAREST = 3

path, question, url, model = sys.argv[1:5]
table = pq.read_table(path).to_pylist()
embedded = [row for row in table if row["embedding"] is not None]
vectors = np.array([row["embedding"] for row in embedded])
vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

answer = httpx.post(f"{url}/embeddings", json={"model": model, "input": question}, timeout=60)
asked = np.array(answer.raise_for_status().json()["data"][0]["embedding"])
alike = vectors @ (asked / np.linalg.norm(asked))

for place in np.argsort(-alike)[:NEAREST]:
    print(f"{alike[place]:.2f}  {embedded[place]['id']}  {embedded[place]['text']}")
