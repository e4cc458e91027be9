"""Keep the texts that are not nearly the same as one that was kept before.

    python examples/cookbook/deduplicate.py reviews_made.csv reviews_kept.csv

Two texts are nearly the same when they share more than `ALIKE` of their sequences of three words
(the Jaccard index of these sets). Each text is compared with those that share a sequence with it,
not with all, so some hundred thousand rows take minutes. Texts that failed or were cut short are
dropped.
"""

import csv
import re
import sys
from collections import Counter, defaultdict
from pathlib import Path

ALIKE = 0.3
WORDS = 3


def sequences(text: str) -> set[str]:
    words = re.findall(r"\w+", text.lower())
    return {" ".join(words[i : i + WORDS]) for i in range(max(1, len(words) - WORDS + 1))}


class Kept:
    """The sequences of all texts that were kept, and which texts have them."""

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}
        self._texts_with: dict[str, list[str]] = defaultdict(list)

    def nearest(self, found: set[str]) -> tuple[str, float]:
        """The id of the text that shares most with these sequences, and how much."""
        shared = Counter(text for sequence in found for text in self._texts_with[sequence])
        alike = {t: n / (len(found) + self._sizes[t] - n) for t, n in shared.items()}
        return max(alike.items(), key=lambda item: item[1], default=("", 0.0))

    def add(self, text_id: str, found: set[str]) -> None:
        self._sizes[text_id] = len(found)
        for sequence in found:
            self._texts_with[sequence].append(text_id)


source, target = Path(sys.argv[1]), Path(sys.argv[2])
kept, dropped = Kept(), Counter[str]()
with source.open(newline="", encoding="utf-8") as read, target.open("w", newline="") as write:
    rows = csv.DictReader(read)
    assert rows.fieldnames is not None
    table = csv.DictWriter(write, rows.fieldnames)
    table.writeheader()
    for row in rows:
        found = sequences(row["answer"])
        nearest, alike = kept.nearest(found)
        if row["_error"]:
            dropped["failed"] += 1
        elif alike > ALIKE:
            dropped["nearly the same as one before"] += 1
            print(f"{row['id']} is like {nearest}: {alike:.0%} of their word sequences")
        else:
            kept.add(row["id"], found)
            table.writerow(row)
            dropped["kept"] += 1
print(", ".join(f"{count} {what}" for what, count in sorted(dropped.items())))
