"""Join the verdicts of a judge with the questions by their id, and count them by topic.

    python examples/cookbook/judge_report.py examples/cookbook/questions.csv graded.csv

As a check of the judge, the report also counts the answers that contain the reference word for
word.
"""

import csv
import sys
from collections import defaultdict
from pathlib import Path


def rows_by_id(path: str) -> dict[str, dict[str, str]]:
    with Path(path).open(newline="", encoding="utf-8") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


questions, graded = rows_by_id(sys.argv[1]), rows_by_id(sys.argv[2])
ungraded = sorted(questions.keys() - graded.keys())
assert not ungraded, f"the judge has not seen {ungraded}"

verdicts: dict[str, list[tuple[str, bool]]] = defaultdict(list)
for question_id, question in questions.items():
    grade = graded[question_id]
    contains = question["reference"].lower() in grade["answer"].lower()
    verdicts[question["topic"]].append((grade["judge_verdict"] or "none", contains))

print(f"{'topic':<12}{'questions':>10}{'correct':>10}{'no verdict':>12}{'word for word':>15}")
for topic, found in sorted(verdicts.items()):
    correct = sum(verdict == "correct" for verdict, _ in found)
    missing = sum(verdict == "none" for verdict, _ in found)
    exact = sum(contains for _, contains in found)
    print(f"{topic:<12}{len(found):>10}{correct:>10}{missing:>12}{exact:>15}")
