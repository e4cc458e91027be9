"""What all organizations share in a process, and how it is divided: a part of the page of limits.

Read by generated_docs.py. Each row names the bounds by their names in limits.py.
"""

from collections.abc import Sequence
from typing import Final

SHARED_HEADING: Final = "## What organizations share, and how it is divided"
SHARED_ABOUT: Final = (
    "One process serves all organizations. Where a row says *in turns*, whoever comes anew waits"
    " for at most one unit of each other organization's work; where it says *as many as are free*,"
    " one organization alone gets half, beside k greedy ones there is always a share of 1/(k + 1)"
    " free for the next."
)
SHARED: Final[Sequence[Sequence[str]]] = [
    (
        "engines",
        "in turns by weight, in units of work ([how](../decisions/0005-turns-and-deadlines.md));"
        " `requests_in_flight` bounds one organization",
        "its batches wait",
    ),
    (
        "places at a replica",
        "each place that comes free goes to the organization that holds the fewest there over its"
        " weight, so a unit is one request; nobody keeps a place free. Who has waited there for"
        " `PREEMPT_AFTER_S` with less than half of its share is given the youngest calls of those"
        " above theirs, `PREEMPT_PART` of the places at a time; these run again later"
        " ([how](../decisions/0018-places-taken-back.md)). What a worker has leased ahead is all"
        " organizations': within `SUPPLY_LOOK_S` of its announcement about `SUPPLY_LOW` requests of"
        " who has nothing ready are added, up to `SUPPLY_AHEAD` requests of all. Urgent batches go"
        " first",
        "its batches wait, and some calls of theirs begin again",
    ),
    (
        "batches that have not ended",
        "`limits.unfinished_batches` for each organization, counted in the transaction that adds"
        " one; background responses are such batches",
        "429 with Retry-After",
    ),
    (
        "calls other than interactive ones",
        "a token bucket for each organization, `limits.control_calls_per_minute`; a list takes one"
        " more for each `CONTROL_ROWS_PER_CALL` rows",
        "429 with Retry-After",
    ),
    (
        "validation",
        "in turns, by bytes of input; a unit is one file. A second place takes only files of up to"
        " `TASK_SHORT_BYTES`. `BLANK_LINES_MAX`, `BODY_FIELDS_MAX` and `BODY_OBJECTS_MAX` bound"
        " what a file costs",
        "its batches stay `validating`",
    ),
    (
        "assembly of results",
        "in turns, by bytes of input; a unit is one batch. A second place as for validation",
        "its batches stay `finalizing`",
    ),
    (
        "completions of uploads",
        "in turns; half of `COMPLETIONS_AT_ONCE` for one organization; a wrong digest is read once,"
        " and `COMPLETION_FAILURES_MAX` of them end the upload",
        "its completions wait; 400 at once for a digest known to be wrong",
    ),
    ("dry runs", "in turns; half of `DRY_RUNS_AT_ONCE` for one organization", "its dry runs wait"),
    (
        "places of live calls",
        "as many as are free of `LIVE_IN_FLIGHT_MAX`, at each replica",
        "429 with Retry-After; 503 where nothing is free for anybody",
    ),
    (
        "connections of callers",
        "as many as are free of a quarter of the files that the process may open; callers without a"
        " key have the bounds `UNAUTHENTICATED_*`, and the oldest of them goes when room is short."
        " A trusted proxy's are not divided",
        "429 with Retry-After",
    ),
    (
        "connections to an engine",
        "where calls wait for one, it goes to the organization that holds the fewest; a unit is"
        " one call",
        "its calls wait",
    ),
    ("places of flex calls", "as many as are free of `FLEX_HELD_MAX`", "429 with Retry-After"),
    (
        "memory of bodies",
        "as many bytes as are free of `JSON_BODIES_BYTES_MAX`; files pass in blocks of"
        " `STREAM_BLOCK_BYTES`",
        "429 with Retry-After",
    ),
    (
        "the processor, for bodies above `LARGE_BODY_BYTES`",
        "in turns, in a thread of its own; a unit is one body, or the end of one line in"
        " validation. `BODY_VALUES_MAX` bounds what is in it",
        "its calls and batches wait",
    ),
    (
        "memory of engines' replies",
        "what is longer than `REPLY_UNCOUNTED_BYTES` takes as many bytes as are free of"
        " `REPLIES_BYTES_MAX`, batch and live together; beyond that one reply after another is read"
        " on, in turns. A stream that is passed on holds `LIVE_BUFFER_BYTES` and is not counted",
        "its replies are read later",
    ),
    (
        "listings",
        "pages of `PAGE_SIZE_DEFAULT_FILES`; larger ones are read and shown in steps of"
        " `ROWS_AT_ONCE`, and others are served between them",
        "its lists take longer",
    ),
    (
        "downloads",
        "as many as are free of `DOWNLOADS_MAX`; each holds one block and goes at its reader's"
        " pace",
        "429 with Retry-After",
    ),
    (
        "streams",
        "a live stream has a place of a live call. Who takes nothing for `LIVE_STALL_S` is cut off",
        "429 with Retry-After",
    ),
    (
        "webhook deliveries",
        "places in turns, `WEBHOOKS_IN_FLIGHT` in each process; one organization has at most"
        " `WEBHOOKS_IN_FLIGHT_SHARE` under way, and an attempt ends within `WEBHOOK_ATTEMPT_S`."
        " Names are resolved in threads of their own. Tests of endpoints: in turns, half of"
        " `WEBHOOK_TESTS_AT_ONCE`",
        "its events come later",
    ),
    (
        "database time",
        "GETs in turns, half of `LOOKS_AT_ONCE` for one organization; limits and keys are looked"
        " up once for all calls that need them. Who changes something waits in turns as well, where"
        " each loop of the process has turns like an organization; a unit is one transaction:"
        " SQLite has one writer, PostgreSQL `STORE_CONNECTIONS`, half for one, where a statement"
        " ends after `STORE_STATEMENT_S`",
        "its calls take longer",
    ),
    (
        "log lines",
        "not divided: one line for each call that changes something, so bounded by"
        " `limits.control_calls_per_minute`; refusals of unknown callers are one a `REFUSAL_LOG_S`,"
        " lines about a batch's refused requests one a `REJECTED_LINE_S` and code",
        "a count in place of lines",
    ),
]
