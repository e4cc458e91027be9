"""Compare the sentiment that a model gave to reviews with the stars that customers gave.

    python examples/cookbook/check_sentiment.py classified.csv

Rows of three stars are left out: they are neither positive nor negative.
"""

import csv
import sys
from pathlib import Path

with Path(sys.argv[1]).open(newline="", encoding="utf-8") as file:
    rows = [row for row in csv.DictReader(file) if row["stars"] != "3"]

answered = [row for row in rows if not row["_error"]]
wrong = [row for row in answered if (row["sentiment"] == "positive") != (int(row["stars"]) > 3)]
for row in wrong:
    print(f"{row['review_id']}  {row['stars']} stars, {row['sentiment']}: {row['review']}")
print(f"{len(answered) - len(wrong)} of {len(answered)} agree with the stars,", end=" ")
print(f"{len(rows) - len(answered)} have no answer")
