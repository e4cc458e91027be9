"""Make a table of a folder of text files: one row for each, with its name and its text.

    python examples/cookbook/documents_to_rows.py examples/cookbook/invoices documents.jsonl

For PDF and scans, take the text out first, or send pictures of the pages (see the recipe on
images).
"""

import json
import sys
from pathlib import Path

TEXT_CHARS_MAX = 20_000  # some 5,000 tokens; longer documents are cut here, and the row says so

folder, target = Path(sys.argv[1]), Path(sys.argv[2])
with target.open("w", encoding="utf-8") as rows:
    for path in sorted(folder.rglob("*.txt")):
        text = path.read_text(encoding="utf-8")
        row = {
            "document": path.name,
            "text": text[:TEXT_CHARS_MAX],
            "is_cut": len(text) > TEXT_CHARS_MAX,
        }
        rows.write(json.dumps(row) + "\n")
