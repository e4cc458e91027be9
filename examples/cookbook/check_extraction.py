"""Show what was extracted, and which values do not stand in the document that they come from.

    python examples/cookbook/check_extraction.py extracted.jsonl

A value that is not in its text was made up or changed by the model. The check needs no second
model.
"""

import json
import sys
from pathlib import Path

FIELDS = ("number", "seller", "date", "total", "currency")


def is_in(value: object, text: str) -> bool:
    """Whether the text has this value; a number also with two decimals, as amounts are written."""
    spellings = [f"{value:.2f}", f"{value:g}"] if isinstance(value, float | int) else [str(value)]
    return any(spelling.lower() in text.lower() for spelling in spellings)


for row in map(json.loads, Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()):
    if row["_error"]:
        print(f"{row['document']}: no answer: {row['_error']}")
        continue
    doubtful = [name for name in FIELDS if not is_in(row[name], row["text"])]
    print(f"{row['document']}: " + ", ".join(str(row[name]) for name in FIELDS))
    for name in doubtful:
        print(f"    {name}: {row[name]!r} is not in the document")
