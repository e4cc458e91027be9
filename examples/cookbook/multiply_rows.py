"""Repeat each row of a CSV, so that a model writes several texts for each.

python examples/cookbook/multiply_rows.py examples/cookbook/ideas.csv ideas_x3.csv 3
"""

import csv
import sys
from pathlib import Path

source, target, times = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
with source.open(newline="", encoding="utf-8") as read, target.open("w", newline="") as write:
    rows = csv.DictReader(read)
    assert rows.fieldnames is not None
    table = csv.DictWriter(write, ["id", *rows.fieldnames])
    table.writeheader()
    for number, row in enumerate(rows, 1):
        for time in range(1, times + 1):
            table.writerow({"id": f"{number}-{time}"} | row)
