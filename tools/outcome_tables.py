"""The page on outcomes, from the table in core/faults/fault.py."""

from markdown_table import table


def outcomes_page(made: str) -> str:
    """docs/reference/outcomes.md: what comes back from an engine, whose fault that is, and what
    follows; the statuses; the words that tell more."""
    from lowtide.core.faults.fault import FAULTS, QUIRKS, STATUS_ROWS

    parts = [
        "# What engines answer, and what follows",
        made,
        "Every call to an engine, of a batch or live, ends as one of these kinds. *judged*: it may"
        " also be the request's own fault. It is, if another call to the same endpoint of the same"
        " model on the same replica succeeds afterwards; where there is none, one token of our own"
        " shows it. Until then no try is charged"
        " ([how](../decisions/0010-whose-fault.md)).",
        table(
            ("kind", "what comes back", "at fault", "what follows", "what the operator is told"),
            [
                [
                    f"`{kind}`",
                    fault.seen,
                    fault.blame + (", judged" if fault.judged else ""),
                    _follows(fault.blame, fault.judged),
                    f"The engine {fault.public_text}. {fault.remedy}" if fault.public_text else "-",
                ]
                for kind, fault in FAULTS.items()
            ],
        ),
        "## Statuses",
        "The first row that holds a status counts. A 2xx is a success if its body holds what its"
        " endpoint promises; an error object in it counts as its own `code`.",
        table(
            ("status", "kind", "whose"),
            [
                [
                    str(r.first) if r.first == r.last else f"{r.first} to {r.last}",
                    f"`{r.kind}`",
                    r.who,
                ]
                for r in STATUS_ROWS
            ],
        ),
        "## Words that tell more",
        table(
            ("with status", "words", "kind", "whose"),
            [
                [
                    ", ".join(map(str, sorted(quirk.statuses))),
                    "; ".join(quirk.words),
                    f"`{quirk.kind}`",
                    quirk.who,
                ]
                for quirk in QUIRKS
            ],
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _follows(blame: str, judged: bool) -> str:
    match blame:
        case "request":
            return "error file at once, with the engine's words"
        case "capacity":
            return "tried again after a pause, costs no try; the window shrinks"
        case "set-up":
            return "lines are held and the replica tried with a token of our own until it works"
        case _ if judged:
            return "tried again; held while nothing succeeds, a try where others succeed"
        case _:
            return "tried again when the replica is back, costs no try"
