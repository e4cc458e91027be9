"""Every bound of the system: value, unit in the name, reason beside it.

Imported by all layers, imports nothing. A bound that an operator may change is a default here and a
key in `config`; the others hold by design and are not settings.
"""

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# ---- what a submitter may send (defaults of [limits]; source: the launch promise, seed.md) ----
REQUESTS_PER_BATCH: Final = 50_000
FILE_BYTES: Final = 100 * MIB
ENQUEUED_TOKENS_PER_MODEL: Final = 10_000_000
ENQUEUED_TOKENS_PER_MODEL_2026: Final = 30_000_000_000  # of the preset "together-2026"
COMPLETION_WINDOW_S_MIN: Final = 3600  # below an hour nothing can be promised on harvested capacity
COMPLETION_WINDOW_S_MAX: Final = 7 * 24 * 3600

UNFINISHED_BATCHES: Final = 10_000  # of one organization: 500 million requests; each costs a row
CONTROL_CALLS_PER_MINUTE: Final = 6_000  # of one organization: 100 clients that poll each second
CONTROL_ROWS_PER_CALL: Final = 100  # of a list, that cost as much as one more call

# ---- one line ----
LINE_BYTES_MAX: Final = 16 * MIB  # an inline image or two; above it a line would not fit a chunk
BODY_FIELDS_MAX: Final = 256  # top-level fields of a body; the APIs together know about 80
MEDIA_WORK_MAX: Final = 150_000  # values of a body that is searched for URLs: 50 ms of the loop
BODY_OBJECTS_MAX: Final = 250_000  # opening braces in a body; each may cost an object when read
BODY_VALUES_MAX: Final = 2_000_000  # commas in a body; more tokens than any model reads
LARGE_BODY_BYTES: Final = 1 * MIB  # from here on a body is read beside the event loop
ONE_LINE_CHARS: Final = 256 * KIB  # of a text that is made ASCII, at a time: 5 ms
BLANK_LINES_MAX: Final = 100_000  # of a file; twice its requests and more are no accident
CUSTOM_ID_CHARS_MAX_TOGETHER: Final = 64  # protocol.md section 7
CUSTOM_ID_CHARS_MAX: Final = 512  # OpenAI names no limit; this one keeps rows and logs readable
MODEL_ID_CHARS_MAX: Final = 512  # a hub id or a file path; it becomes a column and a metric label
CUSTOM_ID_BYTES_KEPT: Final = 64  # to find duplicates; of a longer id its digest is kept
LINE_ERRORS_KEPT: Final = 1_000  # bad lines reported one by one; the total counts the rest
OUTPUT_TOKENS_MAX: Final = 10_000_000  # that a line's bound counts for; models end far below
FAULT_BYTES_MAX: Final = 1 * MIB  # of a line that is no JSON, looked through for what is wrong
FORMAT_HEAD_BYTES: Final = 4 * KIB  # of a file, looked at to tell what it is if it is no JSONL
LONG_PROMPTS_KEPT: Final = 5  # of a file, named in the warning; it counts the others
MODELS_NAMED_IN_ERROR: Final = 5  # enough to spot a misspelling, short enough to read
VALUE_CHARS_QUOTED: Final = 100  # of a submitter's own value, when a message repeats it

# ---- metadata and names (protocol.md section 3.3) ----
METADATA_PAIRS_MAX: Final = 16
METADATA_KEY_CHARS_MAX: Final = 64
METADATA_VALUE_CHARS_MAX: Final = 512
FILENAME_CHARS_MAX: Final = 255
PRIORITY_MAX: Final = 1_000_000  # either way; fits a 32-bit column with room for ageing
OUTPUT_EXPIRES_AFTER_S_MIN: Final = 3600

# ---- HTTP API ----
JSON_BODY_BYTES_MAX: Final = 1 * MIB  # control requests (create, cancel, ...): small by nature
UPLOAD_HEAD_BYTES: Final = 64 * KIB  # of an upload, where its first line tells what it is
FORM_FIELD_BYTES_MAX: Final = 64 * KIB  # a form field beside the file part of an upload
PAGE_SIZE_DEFAULT: Final = 20
FILTER_CHARS_MAX: Final = 512  # of a text that batches are looked for by, as a metadata value
UNIX_S_MAX: Final = 4_102_444_800  # the year 2100: an instant in a query, in seconds
PAGE_SIZE_MAX_BATCHES: Final = 100
PAGE_SIZE_MAX_FILES: Final = 10_000
PAGE_SIZE_DEFAULT_FILES: Final = 1_000  # 200 KB; SDKs ask for the next page by themselves
ROWS_AT_ONCE: Final = 256  # made into objects before others are served: 10 ms
PAGE_STEP_BATCHES: Final = 100  # the same of batches, whose progress is worked out: 10 ms
BARE_LIST_MAX: Final = 1_000  # Together's lists have no paging: newest this many
UPLOAD_URL_TTL_S: Final = 3600  # a signed PUT address is good for an hour, once
UPLOAD_SECRET_CHARS_MIN: Final = 32  # of a configured secret: 128 bits even in hex
CONFIG_PROBLEMS_SHOWN: Final = 20  # mistakes in the settings told at once: a screen of them
REPEATED_POST_WINDOW_S: Final = 600  # SDKs retry a timed-out POST for at most this long
ANSWER_DOUBTED_S: Final = 60  # an answer that was sent may have been lost on its way: SDKs then
# repeat the call after half a second to eight
URL_BYTES_MAX: Final = 8 * KIB  # path and query together
REQUEST_HEADERS_BYTES_MAX: Final = 64 * KIB  # what h11 allows; httptools has no bound of its own
FORM_PARTS_MAX: Final = 32  # of an upload form; the clients send at most six
UPLOAD_OVERHEAD_BYTES_MAX: Final = 256 * KIB  # boundaries and fields around the file of a form
REFUSED_BODY_BYTES_MAX: Final = 1024 * MIB  # read and dropped, so that the client sees the refusal
UPLOAD_BYTES_MAX: Final = 8 * 1024 * MIB  # of one OpenAI upload in parts (protocol.md section 3.2)
UPLOAD_PART_BYTES_MAX: Final = 64 * MIB  # of one of its parts
UPLOAD_PARTS_MAX: Final = 10_000  # kept of one upload; 8 GB in parts of less than 1 MB
MULTIPART_PARTS_MAX: Final = 1_000  # addresses in one answer; Together's client asks for 250
UPLOAD_TTL_S: Final = 3600  # OpenAI's: from creation to completion
MULTIPART_TTL_S: Final = 24 * 3600  # Together's: all addresses are signed at once, 50 GB take hours
COMPLETIONS_AT_ONCE: Final = 4  # half of one organization; each reads and writes a whole file
COMPLETION_FAILURES_MAX: Final = 5  # readings of one upload that had the wrong digest; then it ends
WRONG_DIGESTS_MAX: Final = 1_000  # uploads that those are remembered of, some 500 bytes each
COMPLETION_POLL_S: Final = 0.5  # while another process puts the same upload together
COMPLETION_WAIT_S: Final = 540.0  # OpenAI's client gives up after 600 and asks again
UNFINISHED_UPLOADS_MAX: Final = 1_000  # announced files and open uploads of one organization
UPLOAD_BUSY_RETRY_AFTER_S: Final = 5  # when bytes for the same address are under way already
UPLOAD_TURN_S: Final = 50.0  # for an upload with the same key; proxies cut silence after a minute
UPLOAD_STALL_S: Final = 60.0  # an upload that sends nothing for so long was left behind
REQUEST_HEAD_BYTES_MAX: Final = 76 * KIB  # address, headers and what parts them, as they come
REQUEST_HEADERS_MAX: Final = 256  # fields of one request
REQUEST_HEADER_COST_BYTES: Final = 200  # of memory for one field, however short it is
REQUEST_SLICE_BYTES: Final = 16 * KIB  # of a head, parsed before the next check of what it costs
BODY_SLICE_BYTES: Final = 64 * KIB  # the same of a body, which may have the next head behind it
PIPELINE_MAX: Final = 16  # requests on one connection behind the one that is being answered
REQUEST_HEAD_S: Final = 20.0  # for a whole head: one packet for most, seconds over a bad line
BODY_STALL_S: Final = 60.0  # as UPLOAD_STALL_S, for every body
BODY_RATE_MIN: Final = 500  # bytes a second; an honest line at 9,600 baud is above it
BODY_RATE_SPAN_S: Final = 60.0  # over which that rate holds, so that a pause harms nobody
CONNECTION_SWEEP_S: Final = 1.0  # how late a silent or slow caller is noticed
CONNECTION_LINGER_S: Final = 2.0  # for a refused caller to read why; then it is cut off
CONNECTION_LINGER_BYTES: Final = 1 * MIB  # that it may still send meanwhile
CONNECTIONS_RETRY_AFTER_S: Final = 5  # calls end, and idle connections are closed
UNAUTHENTICATED_MIN: Final = 8  # however few files the process may open
UNAUTHENTICATED_MAX: Final = 512  # connections that have had no accepted request, in the process
UNAUTHENTICATED_PER_ADDRESS_MAX: Final = 64  # of one address, or of one /64 of IPv6
UNAUTHENTICATED_GRACE_S: Final = 1.0  # in which a burst of good clients may be more than that
UNAUTHENTICATED_FILES_SHARE: Final = 0.25  # of the files it may open; at most twice that
UNAUTHENTICATED_BURST_MAX: Final = 2_048  # of them within that second
UNAUTHENTICATED_BYTES_MAX: Final = 4 * MIB  # what all of them have sent and nobody has read yet
JSON_BODIES_BYTES_MAX: Final = 256 * MIB  # in memory in one process; one organization has half
LIVE_BODY_SMALL_BYTES: Final = 64 * KIB  # read before its limits are asked: a flex call has none
JSON_BODY_S: Final = 120.0  # for a whole one: 16 MiB at a megabit a second
BODIES_RETRY_AFTER_S: Final = 1  # calls end all the time
KEEPALIVE_IDLE_S: Final = 75  # above the clients' own (5 to 60 s), so that they close first
UNAVAILABLE_RETRY_AFTER_S: Final = 2  # a locked or restarting database is back within seconds
FILE_TTL_S_MIN: Final = 3600  # expires_after[seconds], protocol.md section 3.1
FILE_TTL_S_MAX: Final = 30 * 24 * 3600

# ---- keys, tenants and their limits ----
KEY_ID_CHARS: Final = 12  # 71 bits: never twice; short enough to read out
KEY_SECRET_CHARS: Final = 40  # 238 bits
KEY_CHARS_MAX: Final = 200  # a longer credential is no key of ours and is not looked up
KEY_CACHE_S: Final = 5.0  # a revoked key works at most this long in another process
KEY_CACHE_ENTRIES: Final = 10_000  # a few MiB
KEY_UNKNOWN_ENTRIES: Final = (
    1_000  # ids that there are none of, kept apart: guesses push out no key
)
REFUSAL_LOG_S: Final = 1.0  # between two log lines about refused callers; each tells how many
HOSTS_SEEN_MAX: Final = 1_000  # Host headers of open mode whose verdict is remembered
KEY_TOUCH_S: Final = 60.0  # how stale `last_used_at` may be; one small write a minute
TENANT_CACHE_S: Final = 5.0  # a changed limit or cap applies everywhere after this
TENANT_CACHE_ENTRIES: Final = 10_000
NAME_CHARS_MAX: Final = 200  # of organizations, projects and keys
TENANT_WEIGHT_MAX: Final = 1_000  # of one organization over another with the least weight
TENANT_LIMIT_MAX: Final = 2**53  # a JSON number that every client reads exactly
RATE_WINDOW_S: Final = 3600  # batches_per_hour counts those of the last 60 minutes
RETRY_AFTER_S_ADVISED: Final = 60  # the SDKs wait no longer by themselves (protocol.md 2.1, 3)
USAGE_SPAN_DAYS_MAX: Final = 400  # of one usage report: a year and the month to compare it with
DRY_RUNS_AT_ONCE: Final = 4  # half of one organization; each reads a whole file
SPEND_CAP_DOLLARS_MAX: Final = 1_000_000  # pico-dollars of it fit a 64-bit column

# ---- the console (api/console) ----
CONSOLE_SESSION_S: Final = 12 * 3600  # a working day; then the key is typed again
CONSOLE_BATCHES_PAGE: Final = 50  # rows: two screens, some 10 ms
CONSOLE_ACTIONS_MAX: Final = 500  # batches that one button acts on: a few seconds of the store
CONSOLE_RETRY_ASKS_LINES: Final = 100  # of one batch, from which Retry asks first; fewer cost cents
CONSOLE_CLOSED_LATE_S: Final = 300  # after its deadline; a worker that runs takes seconds
CONSOLE_REFUSALS_SHOWN: Final = 20  # of them with the reason; the page stays readable
REPORT_BYTES_MAX: Final = 1024 * 1024  # of `lowtide report`: a file that goes through any mail
REPORT_SAMPLES_BYTES_MAX: Final = 300 * 1024  # of it for sample lines
REPORT_SAMPLES: Final = 10  # lines of results, and as many of failures
REPORT_LIST_ROWS: Final = 20  # of what is wrong with the input, and of models
MODELS_SHOWN: Final = 12  # named on the page of a new batch; GET /v1/models has all
FIRST_LINES: Final = 5  # of a file that are run before the rest: enough to see a bad prompt
FIRST_LINES_BYTES_MAX: Final = 4 * 1024 * 1024  # of a file, to find them in
FIRST_LINES_WAIT_S: Final = 60.0  # for their answers: browsers and proxies wait no longer
CONSOLE_REFRESH_S: Final = 2.0  # between two looks of an open page; a person sees no less
CONSOLE_LOOK_SHARED_S: Final = 1.8  # pages that show the same share a look so old; a bit less
CONSOLE_HISTORY_REFRESH_S: Final = 5.0  # of what is written every `HISTORY_S`, or seldom changes
CONSOLE_ENDED_REFRESH_S: Final = 60.0  # of the same of a batch that has ended: only age takes it
CONSOLE_STRIP_CHUNKS_PER_S: Final = 1000.0  # counted for a strip: 0.1 % of a core
CONSOLE_LOOKS_PER_S: Final = 2.0  # of one process, some 4 ms each: under 1 % of it
CONSOLE_LOOK_AGE_MAX_S: Final = 10.0  # of twenty such pages; more of them take more
PAGE_LINES_MAX: Final = 100  # lines of results in one page
PAGE_LINE_BYTES_MAX: Final = 256 * 1024  # of one of them; the rest is in the file
FIND_BYTES_MAX: Final = 32 * MIB  # searched for a custom_id while a batch runs: some 0.2 s of it
PAGE_LINES_BYTES_MAX: Final = 4 * 1024 * 1024  # of a page; then it has fewer lines
INDEX_KEYS_READ: Final = 2048  # on either side of where a custom_id should stand: 32 KiB
INDEX_RECORDS_READ: Final = 65536  # at a time, to count lines: under 2 MB
LINE_STRIPS_KEPT: Final = 64  # counts of a file's lines, which never change: a few KB each
FORECAST_BATCHES_SHOWN: Final = 100  # of one model, those that are due first
CONSOLE_COURSES_DRAWN: Final = 12  # of these on the page of the week: a row each
CONSOLE_ENGINES_DRAWN: Final = 12  # on the page of all engines; each has a page of its own, too
REPLICAS_TOGETHER_S: Final = 60.0  # of the rates of all engines together: steady, and not old
CONSOLE_STREAMS_MAX: Final = 256  # pages that are kept up to date; the others load again

# ---- what a batch says about itself ----
ETA_SETTLED_MIN: Final = 5  # results before an estimate is given ...
ETA_SHARE_MIN: Final = 0.01  # ... or this share of the batch, whichever comes first
ETA_ELAPSED_S_MIN: Final = 5.0  # the first commit brings a lump; over less time the rate is noise
CAUTIOUS_ETA_GAP_S_MIN: Final = 60.0  # a cautious end that is nearer to the usual one tells no more
RECENT_PACE_S: Final = 600.0  # of work, whose pace the cautious end holds: bursts and waves pass
RECENT_PACE_S_MIN: Final = 60.0  # of work before it is measured: commits come in lumps
ERRORS_IN_LIST: Final = 10  # of each batch in a list; retrieving it shows all that were kept
VALIDATION_PATIENCE_S: Final = 10.0  # 100 MB validate in seconds; after this one wonders why not

# ---- streams and memory ----
STREAM_BLOCK_BYTES: Final = 256 * KIB  # one read or write of a file in flight; bounds server memory
SLICES_PAGE: Final = 1_000  # rows of committed slices per statement: a few hundred KiB
LINES_AT_ONCE: Final = 256  # judged before others are served: 2 ms, 12 where all are bad
VALIDATE_BLOCK_BYTES: Final = 256 * KIB  # about 0.5 ms of parsing before the loop breathes again

# ---- the object store ----
BLOB_RANGE_GAP_BYTES: Final = 64 * KIB  # reading a gap this small costs less than a second request
BLOB_SPAN_BYTES_MAX: Final = 256 * KIB  # near ranges read as one: memory beside the result
BLOB_SPANS_AT_ONCE: Final = 8  # requests in flight for one read_ranges; hides a bucket's latency
BLOB_PART_BYTES: Final = 5 * MIB  # the smallest part that S3 takes; a writer holds at most three
BLOB_THREADS: Final = 32  # requests to a bucket in flight from one process
BLOB_LIST_PAGE: Final = 1_000  # entries per thread hop or per list request
BLOB_REQUEST_READ_S: Final = 30.0  # a bucket silent for this long inside one request
BLOB_REQUEST_S: Final = 3600.0  # one request, whole: a download at a slow reader's pace
BLOB_RETRIES_MAX: Final = 3  # per request; the loops retry on their own above that

# ---- token estimates (calibrated from engines' usage reports) ----
TOKENS_TEXT_BYTES_MAX: Final = 32 * KIB  # of one prompt measured whole; a longer one in pieces
TOKENS_PIECE_BYTES: Final = 2 * KIB  # long enough that cuts in words do not matter
TOKENS_MEASURED_BYTES: Final = 128 * KIB  # at the start of an input file, line by line
TOKENS_SAMPLE_BYTES: Final = 64 * KIB  # of a large input file, from one measured line to the next
TOKENS_SAMPLE_SHARE: Final = 64  # the distance begins as this fraction of what was read since
TOKENS_RATIO_SAMPLES: Final = 8  # measured lines whose mean stands for the next lines; few, so
# that a file sorted by language is followed closely
TOKENS_IMAGE_LINE_BYTES: Final = 4 * KIB  # below it no search for a data URL
TOKENS_LEARN_ALL: Final = 512  # requests of a model that are all learnt from; 50 ms of work
TOKENS_LEARN_GAP_S: Final = 0.02  # then at most 50 a second: half a percent of a core
TOKENS_FADE_EVERY: Final = 1_024  # requests learnt from; then older ones count half
TOKENS_LEVERAGE_MAX: Final = 4_096  # tokens above which a longer prompt teaches no more than this
TOKENS_PER_BYTE_MAX: Final = 4  # a report above this share of a request is no measurement
TOKENS_BESIDE_TEXT_MAX: Final = 1_000_000  # the same for what is not text: templates, images
CALIBRATION_SAVE_S: Final = 30.0  # what a crash may forget is learnt again in a minute

# ---- chunks, leases, the commit (design.md section 3) ----
CHUNK_REQUESTS_MAX: Final = 128  # unit of scheduling; its finished lines fit a 16-byte bitmap
CHUNK_KEEP_S: Final = 5.0  # without a replica that could go on with it: others may have one
CHUNK_KEEP_CUT_S: Final = 600.0  # the same where its calls were cut: engines restart in minutes
PREFIX_SHARE_MIN: Final = 0.05  # of a batch's bytes: below, sorting by prefix is not worth it
PREFIX_MARKS_MAX: Final = 6_000_000  # eight bytes each: 48 MB; more are thinned out
CHUNK_REQUESTS_FULL: Final = 96  # a chunk this long ends where a run of alike prompts begins
CHUNK_BYTES_MAX: Final = 16 * MIB  # so that leased input in memory stays bounded with big lines
LEASE_TTL_S: Final = 30.0  # a dead worker's chunks wait at most this long
COMMIT_INTERVAL_S: Final = 1.0  # what a crash may cost on top of the calls in flight
SEGMENT_BYTES_MAX: Final = 16 * MIB  # commit early at this size
UNCOMMITTED_BYTES_MAX: Final = 64 * MIB  # stop dispatching when results cannot be written away
CLAIM_CHUNKS_MAX: Final = 32  # per claim statement
CLAIM_AHEAD_S: Final = 1.0  # lease about this much work ahead of the windows
CLAIM_AHEAD_CLAIMS: Final = 4  # ... and as much as is done while so many claims run: half is low
CLAIM_AHEAD_S_MAX: Final = 10.0  # work leased ahead is work that idle workers do not see
CLAIM_FADE: Final = 0.8  # from claim to claim, of how long the slowest took
IDLE_POLL_S: Final = 1.0  # look for work that nobody announced (another process, a reaped lease)
TICK_S_MIN: Final = 0.005  # between two ticks of dispatch that only wait for a retry
LEASED_INPUT_BYTES_MAX: Final = 64 * MIB  # input lines a worker holds in memory
SUPPLY_LOW: Final = (
    CHUNK_REQUESTS_MAX // 2
)  # requests of one organization: below it, more is looked for
SUPPLY_AHEAD: Final = 4 * CHUNK_REQUESTS_MAX  # of all, besides CLAIM_AHEAD_S: as idle workers wait
SUPPLY_POLL_S: Final = 0.1  # between two looks for organizations of which nothing is leased
SUPPLY_BYTES_MAX: Final = 64 * MIB  # of their lines, beside what others have in memory
PREEMPT_AFTER_S: Final = 0.5  # of waiting at a full replica with less than half of one's share
PREEMPT_PART: Final = 1 / 8  # of a replica's places, that change hands at a time
PREEMPTED_MAX: Final = 3  # times that a request loses its place: then it runs to its end

# ---- whose turn it is, and what can be promised (scheduling.md sections 2e, 2f, 2i) ----
TENANTS_READ_MAX: Final = 10_000  # organizations that one claim looks at, where some are bounded
LOCALITY_CHUNKS: Final = 4  # taken from one batch before the next tenant's turn: 512 requests
URGENT_MARGIN: Final = (
    0.4  # of work: forecasts err for hours (bench_deadlines: 98 % at 0.15, 99.8 % at 0.4)
)
URGENT_GUARD_S: Final = 300.0  # before a latest start: the last chunks of a batch take minutes
URGENCY_S: Final = 10.0  # how old the list of urgent batches may be
PACE_TAU_S: Final = (
    900.0  # memory of a pool's recent pace: bursts pass, an hour of the day does not
)
PACE_SECONDS_MIN: Final = 60.0  # of work seen before a pace is more than an accident
PACE_IDLE_S: Final = 5.0  # without a commit; then a claim asks whether the pool stood still
CELL_EWMA: Final = 0.3  # weight of the last week in a cell of the forecast
CELL_SECONDS_MIN: Final = 900.0  # of an hour under full load, to learn from it
FORECAST_HOURS: Final = 28 * 24  # a batch that needs longer is not promised anything
PACE_FADE_S: Final = 7200.0  # until the forecast counts for more than what was just seen
BACKLOG_AGE_S: Final = (
    2.0  # of the one reading that a process has, however many clients and loops ask
)
FORESIGHT_BYTES: Final = 256 * KIB  # of an input file, from which its work is foreseen at creation
FORESIGHT_LINES: Final = 256  # of those, at most: a batch of short lines is not judged twice
OUTPUT_TOKENS_ASSUMED: Final = 256  # of a request, before its model has answered any
OUTPUT_SAMPLES_MIN: Final = 20  # answers of a model before their mean is believed

# ---- one attempt, and many (scheduling.md section 2j) ----
CONNECT_TIMEOUT_S: Final = 10.0
TLS_HANDSHAKE_S: Final = 4.0  # of a connection that is open: a port without TLS never answers it
SECRET_CHARS_MIN: Final = 8  # of a key, header or query value that engines' words are searched for
TLS_GUESS_EVERY_S: Final = 60.0  # between handshakes that ask an engine that says nothing
ATTEMPT_TIMEOUT_S: Final = 600.0  # SDK default for a live call
REPLY_BYTES_MAX: Final = 64 * MIB  # a reply above this is an engine gone mad
REPLIES_BYTES_MAX: Final = 128 * MIB  # of replies being read in one process; one organization
# has half, beyond which its replies are read one after another
REPLY_UNCOUNTED_BYTES: Final = 16 * KIB  # of one reply: nearly all are shorter
USAGE_TEMPLATE_TOKENS_MAX: Final = 32_768  # that a template and tools add to a prompt, at most
USAGE_MEDIA_TOKENS_MAX: Final = 50_000  # of one image, sound or file in a prompt
USAGE_ANSWER_TOKENS_MAX: Final = 1_000_000  # of an answer that nothing bounds: a whole context
USAGE_TOKENS_MAX: Final = 100_000_000  # of one reply, each way; no model reads or writes as many
REPLY_HEADER_BYTES_MAX: Final = 64 * KIB
ATTEMPTS_MAX: Final = 5  # transient failures before a line goes to the error file
CRASH_COUNT_MAX: Final = 3  # times a request was alone under suspicion when its engine died
BACKOFF_BASE_S: Final = 0.5
BACKOFF_CAP_S: Final = 60.0
RETRY_BUDGET_RATIO: Final = 0.1  # retries per completed request, per replica
RETRY_SPREAD_STEPS: Final = 4  # of back-off beyond the budget: up to 8 s for each retry
RETRY_BUDGET_BURST: Final = 20  # retries allowed before the first completion
WINDOW_DEFAULT: Final = 64  # of an engine that tells nothing about itself
WINDOW_MAX: Final = 4096

# ---- the window of an engine without metrics, learned from its answers ----
LEARN_START: Final = 1  # what every engine takes
LEARN_STEP: Final = 2  # times the window after a round of answers that were no slower
LEARN_STEP_QUICK: Final = 4  # the same where answers come within LEARN_QUICK_S
LEARN_QUICK_S: Final = 0.25  # so short a queue, fourfold, harms neither live calls nor time-outs
LEARN_HARMLESS_S: Final = 0.02  # calls that take less wait for nobody; no model is as fast
LEARN_GAIN_ALL: Final = 0.9  # of a call's speed kept: the wider window was not felt at all
LEARN_GAIN_CLEAR: Final = 0.5  # of the throughput that more calls could add: one round is enough
LEARN_GAIN: Final = 0.2  # the same after many answers; below it the narrower window is as good
LEARN_ANSWERS: Final = 16  # before a width is refused
LEARN_ANSWERS_MAX: Final = 32  # the same where answers differ and nobody reports their lengths
LEARN_VARIANCE: Final = 0.02  # of a mean of answers, relative: off by less than 15 %
LEARN_CHANGED: Final = 1.5  # a call's speed against the one known: the engine is not what it was
LEARN_HOLD_S: Final = 60.0  # before a wider window is tried again; doubles with each refusal
LEARN_HOLD_ANSWERS: Final = 64  # the same, in answers: a try costs a few dozen
LEARN_REFUSED_MAX: Final = 8  # reached by answers of 4xx alone: a bad file ends in minutes
LEARN_SILENCE_S: Final = 30.0  # with calls in flight and no answer: one more shows if these hang
LEARN_REST_S: Final = 1.0  # between two measures of quick answers, of which there are thousands
LEARN_HOLD_S_MAX: Final = 900.0  # a slot more at the engine is found within a quarter of an hour
TIMEOUT_SHRINK: Final = 0.5  # window of an engine with metrics after a time-out behind our calls
TIMEOUTS_FREE_MAX: Final = 8  # behind our own calls; halved so often a window of 256 is one

# ---- the window of a replica, and giving way to live traffic (scheduling.md section 3) ----
WINDOW_START: Final = 16  # of an automatic window, before the engine has told anything
WINDOW_MIN: Final = 4  # what a careful window keeps: enough to notice that things are well again
WINDOW_KV_SHARE: Final = 0.92  # of KV that batch plans to fill; above it engines begin to preempt
WINDOW_SLOW_START: Final = 0.5  # growth a poll, until the first cut
WINDOW_GROWTH: Final = 0.04  # growth a poll after it: twice as large in nine seconds
WINDOW_UNKNOWN_MAX: Final = 128  # grown to before any answer has ended
WINDOW_PER_KNOWN: Final = 4  # of the window for each answer whose length is known, in slow start
WINDOW_CUT: Final = 0.85
WINDOW_CUT_SHOWN: Final = 1.1  # a cut shows once so many calls in flight are left of the window
WINDOW_CUT_REVOKED: Final = 0.9
WINDOW_CUT_EVERY_S: Final = 5.0  # a cut shows after the calls in flight have got shorter of company
WINDOW_CUT_LIVE_EVERY_S: Final = 1.0  # somebody waits
KV_FULL: Final = 0.93  # of KV in use: a live prompt may find no place
KV_CONGESTED: Final = 0.97  # of KV in use: the next tokens will have no place
WAITING_MAX: Final = 4.0  # own calls that may wait in an engine, or a tenth of those that run
LIVE_LOAD_HIGH: Final = 0.25  # of an engine: from here on a batch is told that it gives way
CONTROL_POLL_S: Final = 0.5  # bursts of live traffic are answered within this
CONTROL_READ_S: Final = 1.0  # for an engine to tell; a slower one counts as silent
CONTROL_CONNECTIONS: Final = 2  # of their own, so that a full window delays no reading
PROBE_S: Final = 30.0  # for finding out what an engine is; a busy one answers a call late
PROBE_AGAIN_S: Final = 5.0  # before an engine that did not answer is looked at again
PROBE_SILENT_S: Final = 60.0  # the same for one that answered and told nothing
STALE_POLLS: Final = 3  # missed in a row before an engine counts as silent
FROZEN_POLLS: Final = 6  # the same reading over and over while calls run; SGLang tells each second
LIVE_RECENT_S: Final = 10.0  # after which a replica counts as free of live traffic
LIVE_WAIT_SHARE: Final = 0.25  # of the TTFT target: a live call that waits longer is in need
LIVE_SHARE_MIN: Final = 0.1  # of KV kept free for live traffic wherever there ever was any
LIVE_SHARE_MAX: Final = 0.9
LIVE_SEATS_MIN: Final = 16  # kept free for it, but no more than an eighth of a small engine
LIVE_MEMORY_S: Final = 3600.0  # over which the usual size of live traffic is known: the night
# is not kept free for the day
LIVE_USUAL_SHARE: Final = 0.05  # of the time live traffic may take more than is kept free for it
LIVE_CALL_TOKENS: Final = 1_024  # of a live call of which nothing is known
LIVE_CALL_WEIGHT: Final = 0.05  # of one live call in what the usual one holds
TTFT_SLO_MS: Final = 1_000
ITL_SLO_MS: Final = 50
PREFILL_TOKENS_MIN: Final = 256  # un-prefilled batch tokens beside live traffic
PREFILL_TOKENS_MAX: Final = 8_192  # of a step by vLLM's default; no engine tells its own
PREFILL_STUTTER: Final = (
    1.5  # times itl_slo_ms: above it fewer watched prompts are unread at a time
)
PART_TOKENS_START: Final = 512  # of a part of a prompt: long against a step's own cost
PART_TOKENS_MIN: Final = 384  # a step reads so many while it reads the weights: fewer save no time
PART_TOKENS_MAX: Final = 1_024  # longer ones are hardly faster to read, and make steps longer
PART_TOKENS_LEAST: Final = 128  # what is left of a step for a part, else it waits for the next one
PARTS_MAX: Final = 16  # of one prompt: an engine tokenizes its beginning anew for each
PARTS_HOLD_S: Final = 600.0  # steps were too long for live calls in this time, so they may be again
PARTS_REFUSED: Final = 8  # in a row: then whole prompts are sent for PARTS_HOLD_S
PREFILL_WATCHED_CALLS: Final = 3  # unread whose first tokens we see: one is being read
# and one comes next, with one more for the way between us
YIELDS_MAX: Final = 16  # how often a call is taken back because its prompt is not read: without a
# prefix cache each time costs all that was read of it
PREFILL_RATE_DEFAULT: Final = 4_096.0  # tokens a second, until an engine was seen to do more
PREFILL_RATE_MEMORY_S: Final = 300.0  # how long the best rate seen stands for what it can do
PREFILL_WAIT_S_MAX: Final = 0.25  # before a prompt that was held back is offered again
LONG_PROMPT_TOKENS: Final = 4_096  # above this one prompt alone spoils a second of live traffic
BATCH_PRIORITY_VLLM: Final = 100  # behind live calls, which have 0; lower goes first
PRIORITY_GAP_SGLANG: Final = 11  # from 10 on a waiting live call takes a running batch call's place
PACE_DEFAULT: Final = 30.0  # tokens a second of one call, until an engine was seen
LENGTH_MEMORY: Final = 1_024  # finished calls over which lengths are known; then older count half
LENGTHS_MIN: Final = 8  # finished calls before their prompts are believed over the estimates
REVOKED_SHARE_MAX: Final = 0.05  # of the tokens of REVOKED_SPAN_S that giving way may cost
REVOKED_SPAN_S: Final = 600.0

# ---- the engine HTTP client ----
PROBE_CONNECTIONS: Final = 16  # beside the window, so that a probe never waits for batch calls
CONNECTIONS_MAX: Final = WINDOW_MAX + 16  # per replica; a probe never waits behind a full window
CONNECTION_IDLE_S: Final = 30.0  # then closed: it holds a socket and perhaps a slot of a proxy
KEEPALIVE_RACE_S: Final = 1.0  # our request and the engine's close crossed: a round trip, generous
REQUEST_BLOCK_BYTES: Final = 256 * KIB  # of a large request body per write; bounds the send buffer
REQUEST_HEADS_MAX: Final = 64  # header blocks kept ready, one per path; an engine has about ten
RETRY_AFTER_S_MAX: Final = 3600.0  # an engine that asks for more is asked again after this
ENGINE_CLOSE_S: Final = 5.0  # wait for aborted connections to be gone
ADDRESS_HEAD_START_S: Final = 0.25  # before a name's next address is tried beside it (RFC 8305)
ADDRESS_DEMOTED_S: Final = 60.0  # an address that failed is tried after the others for so long
ENGINE_ADDRESSES_MAX: Final = 8  # of one name that are tried; each is a socket
PROXY_PORT: Final = 3128  # of a proxy whose address names none: Squid's
KEY_READ_EVERY_S: Final = 1.0  # a file of a key, however many calls the engine refuses meanwhile
API_KEY_BYTES_MAX: Final = 64 * KIB  # of a file that holds a key: above it, another file is meant
TCP_KEEPALIVE_S: Final = 30  # a host that lost power is noticed in minutes, not after the attempt

# ---- open files of a process (core/replicas/open_files.py) ----
OPEN_FILES_MAX: Final = 1_048_576  # that are asked for; more than all windows together need
OPEN_FILES_KEPT: Final = 256  # for commits, uploads, the database, blobs and the log
OPEN_FILES_KEPT_SHARE: Final = 0.25  # of a small limit

# ---- who owns a replica (ports/ownership.py) ----
OWNERSHIP_HEARTBEATS: Final = 4  # heartbeats per lease: three may fail before calls pause
OWNERSHIP_MARGIN: Final = 0.1  # of the lease: its owner stops by so much earlier than others count
OWNERSHIP_GAP: Final = 0.5  # of the lease: whoever looked away for longer counts from the start
OWNERSHIP_YIELD_S: Final = 30.0  # calls in flight on a replica that is given up; most end by then
OWNERSHIP_LEFT_S: Final = 5.0  # before what left one list goes to a worker whose list has it still
REPLICA_NAME_CHARS_MAX: Final = 100  # it stands in every log line and metric of the replica
MODELS_LISTED_MAX: Final = 1_000  # of one engine's list; beyond it they are passed over, and said
MODELS_SEEN_MAX: Final = 10_000  # known once; an installation with more has names from a loop
MODELS_POLL_S: Final = 2.0  # an adapter that was loaded has work within seconds
MODELS_SEEN_POLL_S: Final = 5.0  # a model that another process found may be named after this
MODELS_START_S: Final = 2.0  # for engines to list their models before the server says it is ready
REPLICA_LEAVE_S: Final = 30.0  # calls in flight on a replica that leaves; as pods have to end
REPLICA_IDLE_POLL_S: Final = 0.05  # how late a replica that leaves is found idle
OWNERSHIP_IDLE_POLL_S: Final = 0.05  # how late a replica to be given up is found idle

# ---- finding engines ----
SETTINGS_POLL_S: Final = 1.0  # between looks at the settings file; a change counts at the second
SOURCE_NEWS_S: Final = 2.0  # from when a source could know to its list; work follows in a second
SOURCE_POLL_S: Final = 0.5  # between two readings of a file or at Ray: a stat, a small GET
SOURCE_READ_S: Final = 5.0  # for a source to answer; a slower one is told as stale
SOURCE_AGAIN_S: Final = 1.0  # after a reading that failed; what it knew goes on meanwhile
SOURCE_START_S: Final = 2.0  # for sources to tell their engines before the server says it is ready
SOURCE_WATCH_S: Final = (
    30.0  # that Kubernetes may tell changes in one call; a dead one shows soon after
)
SOURCE_TTL_S_MIN: Final = 1.0  # between two questions to DNS, whatever its TTL says
SOURCE_TTL_S_MAX: Final = 60.0  # ... and at most: a TTL of a day would hide engines for a day
SOURCE_BYTES_MAX: Final = 16 * MIB  # of one answer or file: a thousand engines take some 300 KiB
SOURCE_ENGINES_MAX: Final = 1_000  # of one source; REPORT_REPLICAS_MAX is as many
DOCTOR_ENGINES_MAX: Final = 20  # of one source that `lowtide doctor` calls; the rest is alike
SOURCES_MAX: Final = 50  # places to be asked twice a second by each process
SOURCE_DEPARTURES_FREE: Final = 2  # lately, for an engine to be used at once: a rollout, a restart
SOURCE_DEPARTURES_KEEP_S: Final = 600.0  # what counts as lately; one that swaps flaps for minutes
SOURCE_DEPARTURES_KEPT: Final = 16  # of one engine; the hold is at its maximum long before
SOURCE_HOLD_S: Final = 10.0  # for an engine that left more often to stay before it is used; doubles
SOURCE_HOLD_S_MAX: Final = 120.0  # ... up to this: one that is stable again has work in two minutes

# ---- how many replicas ----
SCALE_S: Final = 5.0  # between looks; KEDA asks every 15 to 30 s
SCALE_SAFETY: Final = 1.25  # of the work: estimates of output err by a fifth, and engines vary
SCALE_ROOM_S_MIN: Final = 300.0  # of work for a replica that is started; less is not worth a start
SCALE_HOLD_S_MIN: Final = (
    60.0  # for a lower number to hold; as a rule a cold start, if that is longer
)
SCALE_COLD_START_S: Final = 600.0  # until some were seen; 526 s were measured (113 node, 395 load)
SCALE_COLD_START_S_MAX: Final = 7200.0  # a start that takes longer was no start of ours
SCALE_COLD_STARTS_KEPT: Final = 20  # of a model; their p90 counts
SCALE_REPLICAS_MAX: Final = 8  # of a model, where the operator says no other number
SCALERS_MAX: Final = 50  # places to be asked every few seconds by one process
SCALER_FIRST_S: Final = 10.0  # from taking over a scaler to the first ask: engines are called first
SCALER_ASK_S: Final = 30.0  # for a place to take a number; a slow API server takes seconds
SCALER_AGAIN_S: Final = 5.0  # after a failure of a scaler; doubles with each that follows
SCALER_AGAIN_S_MAX: Final = 300.0  # ... up to this: a place that is mended is asked in five minutes
SCALER_DOUBLINGS_MAX: Final = 16  # keeps the power small; the bound above is reached long before
SCALER_TEXT_CHARS_MAX: Final = 300  # of what a scaler says of a failure, in reports and logs
SCALER_STOP_S: Final = 30.0  # for an engine to end after it was asked to, before it is killed
SCALER_STOP_S_MAX: Final = 3600.0  # ... where the operator says another time
SCALER_KILL_S: Final = 5.0  # for killed processes to be gone; the kernel takes milliseconds
SCALER_END_POLL_S: Final = 0.05  # between looks whether an engine that was stopped has ended
SCALER_LOG_BYTES_MAX: Final = 32 * MIB  # of one engine's output; the newest half or more is kept
SCALER_LOG_LINE_BYTES: Final = 4 * KIB  # of the end of a log, to quote its last line

# ---- the live API ----
LIVE_BODY_BYTES_MAX: Final = 16 * MIB  # as one line of a batch: an inline image or two
LIVE_BUFFER_BYTES: Final = 64 * KIB  # of one reply, read from the engine and not yet by the client
LIVE_CONNECTIONS_MAX: Final = 2_048  # per replica, beside the window: batch work cannot take them
LIVE_CONNECTIONS_LLAMACPP: Final = 64  # its server needs a thread for each connection
LIVE_IN_FLIGHT_MAX: Final = LIVE_CONNECTIONS_MAX  # per replica, half of it for one organization: so
# the first call of another one finds a connection, however long those of the first may run
LIVE_ATTEMPTS_MAX: Final = 3  # each on another replica, all before the first byte
LIVE_BREAKS_MAX: Final = 2  # engines that may die under one request before it is given up
LIVE_STALL_S: Final = 60.0  # a client that takes nothing for so long has left its answer behind
LIVE_LOAD_TOLERANCE: Final = 0.25  # of a window: how much busier a replica with the prefix may be
LIVE_PREFIX_BYTES: Final = 1 * KIB  # of a prompt: what a replica is remembered by
LIVE_EVENT_BYTES_MAX: Final = 64 * KIB  # a larger event of a stream is passed on in pieces
LIVE_TAIL_BYTES: Final = 256 * KIB  # end of a stream kept to read its usage; /responses repeats all
LIVE_OUTPUT_TOKENS_ASSUMED: Final = 256  # reserved for a request that bounds its answer nowhere
DOWNLOADS_MAX: Final = 1_024  # in a process, half for one organization; a block and a connection
# each, and a file that stays open as long as its reader takes
DOWNLOADS_RETRY_AFTER_S: Final = 5
READS_AT_ONCE: Final = 8  # GETs that read the database, half for one organization; twice its
# readers, so that these are never idle
CONTROL_BUCKETS_MAX: Final = 10_000  # organizations whose rate is remembered, 100 bytes each
LIVE_BUCKETS_MAX: Final = 10_000  # rate limits remembered, one per key and model
LIVE_DEBT_MINUTES_MAX: Final = 10  # what one call used above its estimate locks nobody out longer
LIVE_SHARE_S: Final = 1.0  # between two reports of a process of what its live calls used
LIVE_SHARE_UNTAKEN: Final = 0.5  # of a pool, for first calls: (N - 1) / N of it may be let through
# twice, with a call of each process
LIVE_SHARE_ASKED_S: Final = 5.0  # after the time told to a refused call: its part is kept for it
LIVE_SHARE_HEARTBEAT_S: Final = 3.0  # between two signs of life of a process without live calls
LIVE_SHARE_GONE_S: Final = 20.0  # without one: gone; above what clocks may differ by
LIVE_POOL_KEEP_S: Final = 60.0 * (1 + LIVE_DEBT_MINUTES_MAX)  # then any pool is full again
LIVE_BUSY_RETRY_AFTER_S: Final = 1  # a full replica has room again within a second

# ---- single calls at the batch price (service/live/flex.py) ----
FLEX_GATHER_S: Final = 0.02  # calls that come together make one batch; nobody feels so short a wait
FLEX_LINES_MAX: Final = CHUNK_REQUESTS_MAX  # of one gathered batch: it is one chunk
FLEX_GATHER_BYTES_MAX: Final = 1 * MIB  # of lines; then it goes, so that no memory piles up
FLEX_HOLD_S: Final = 900.0  # what OpenAI tells its clients to set as their time-out for flex
FLEX_HELD_MAX: Final = 8_192  # per process, half for one organization; each holds a connection
FLEX_POLL_S: Final = (
    0.5  # between two looks for results that nobody announced; half of a commit interval
)
FLEX_KEEP_S: Final = 3600  # what a held call leaves behind: its caller has it, nobody can list it
FLEX_PRIORITY: Final = PRIORITY_MAX + 1  # a caller waits: before all other batches of its tenant
FLEX_RETRY_AFTER_S: Final = 30  # when a call found no capacity

# ---- circuit breaker (scheduling.md section 2j) ----
CIRCUIT_FAILURES: Final = 5  # consecutive
CIRCUIT_RATE: Final = 0.5
CIRCUIT_RATE_SPAN_S: Final = 20.0
CIRCUIT_RATE_SAMPLES_MIN: Final = 20
CIRCUIT_COOLDOWN_S: Final = 0.5
CIRCUIT_COOLDOWN_S_MAX: Final = 5.0  # a probe costs nothing; a restarted engine works again soon
TRIAL_PATIENCE_S: Final = (
    1.0  # for calls in flight to show whose fault a failure is, before a trial
)
TRIAL_PAUSE_S_MAX: Final = 30.0  # between trials of a set-up that somebody has to mend
TRIAL_TIMEOUT_S: Final = 60.0  # one token of an engine with a queue; a silent one is asked again
REFUSALS_MAX: Final = 2  # 403, 404 and the like of one request while others succeed: no accident
CUTS_REMEMBERED: Final = 16  # ages of calls that were cut; a balancer's rule shows in three
CUTS_ALIKE_MIN: Final = 3  # cuts at one age and different times that are no accident
CUT_AGE_S_MIN: Final = 5.0  # no balancer ends calls sooner; engines that die at once would look so
CUT_AGE_SLACK: Final = 0.02  # of the age, within which two are the same
CUT_AGE_SLACK_S: Final = 0.5  # at least: calls wait in queues before the balancer's clock starts
OVERLOAD_THROTTLES: Final = 8  # 429 or 503 in a row without an answer: twelve seconds of pauses
THROTTLE_STEPS_MAX: Final = (
    3  # of back-off after refusals for want of room: the replica pauses, too
)
THROTTLE_SHRINK: Final = 0.7  # window after back-pressure, at most once per THROTTLE_SPAN_S
THROTTLE_SPAN_S: Final = 1.0
THROTTLE_PAUSE_S: Final = 0.05  # after a 429 or 503 that names no time; doubles until an answer
THROTTLE_PAUSE_S_MAX: Final = 5.0  # a full engine has room again within seconds

# ---- keeping and sweeping ----
ASSEMBLE_RUN_BYTES: Final = 4 * MIB  # result lines in memory while a file is assembled
TASK_BYTES: Final = 64 * KIB  # that a validation or assembly costs beside its input's own
TASK_SHORT_BYTES: Final = 8 * MIB  # of input, for the places that long files do not take
TASK_RETRY_S: Final = 5.0  # before a batch whose validation or assembly failed is tried again
REAP_POLL_S: Final = 2.0  # how late a lease that ran out is noticed
REAP_GAP_S: Final = 10.0  # after which a process looks to its own leases before it takes others'
SWEEP_S: Final = 60.0
TOKEN_QUEUE_POLL_S: Final = 1.0  # how late free enqueued tokens are given to a batch that waits
BUDGET_POLL_S: Final = 5.0  # a raised spend cap lets paused batches go on after this
SEGMENTS_KEEP_S: Final = 3600.0  # so that a reader that follows `offset` can finish its walk
ORPHAN_AGE_S: Final = 3600.0  # a blob nobody refers to after this long was left by a crash
ORPHAN_DOUBT_S: Final = 300.0  # ... if nobody has by then, either; ten leases: its writer gave up
INTEGRITY_PAGE: Final = 500  # rows compared with blobs at a time, and keys looked up
INTEGRITY_CHECKS_MAX: Final = (
    16  # sizes asked for at one time: a bucket takes milliseconds for each
)
BACKUP_ROUNDS_MAX: Final = 5  # over what the sweep took meanwhile; each is shorter than the last
REPAIR_TRIES_MAX: Final = 3  # of a repair that a commit came before
ORPHANS_DOUBTED_MAX: Final = 100_000  # keys remembered meanwhile, some 10 MB; more wait an hour
FILE_TTL_S: Final = 30 * 24 * 3600

# ---- failed lines and retries ----
RETRIES_PER_TREE_MAX: Final = 100  # batches read for a retry, and files for results joined with it
FAILURE_CODES_MAX: Final = 255  # of one batch, in a byte a line; an engine may invent them
FAILURE_SHAPES_MAX: Final = 100  # groups of alike failures of one batch; a page that one can read
FAILURE_EXAMPLES_MAX: Final = 3  # lines named of each group
FAILURE_SHAPE_CHARS: Final = 300  # of a message, compared; behind that engines quote requests
FAILURE_MESSAGE_CHARS: Final = 500  # of a message, kept as an example
FAILURE_CODE_CHARS: Final = 64
CODES_NAMED_IN_ERROR: Final = 10  # of failed lines, where a retry finds none that it asks for
RETRY_CODES_MAX: Final = 100  # codes, and groups of failures, that a retry may name
RETRY_TRIES_MAX: Final = 3  # of a retry before whose insertion another one of its tree ended
JOIN_STEP_LINES: Final = 1_000  # joined results before others get a turn: 3 ms

# ---- what is seen of a running system ----
REPORT_TICK_S: Final = 1.0  # how soon a change of a replica's state is logged and written
REPORT_S: Final = 10.0  # between two reports of a worker that have nothing new
REPORT_TTL_S: Final = 30.0  # then a worker is told as gone: three reports missed
REPORT_KEEP_S: Final = 24 * 3600.0  # what a worker that died said last; a day to look for why
REPORT_REPLICAS_MAX: Final = 1_000  # in a report, some 300 bytes each
REPORT_MODELS_MAX: Final = 200  # of one replica in a report; adapters come by the hundred
REPORT_BATCHES_MAX: Final = 200  # in a report; a worker holds chunks of far fewer
REPORT_TEXT_CHARS_MAX: Final = 500  # of a reason: an HTML page is not one
REASONS_JOINED_MAX: Final = 3  # of a model's replicas, in one sentence
CLOCKS_AGREE_S: Final = 2.0  # clocks of two machines that are off by less are taken as one
STANDING_FRESH_S: Final = 1.0  # whoever asks sooner hears of the same look at the reports
BATCH_STILL_S: Final = 30.0  # nothing of a batch settled: it waits, and its reason is told
BATCH_SILENT_S: Final = 3.0  # with the engine, and none of it back: told, as nothing moves yet
BATCH_FAILURES_SPAN_S: Final = 60.0  # failed attempts of a batch that are told as its own fault
BATCH_FAILURES_MIN: Final = 3  # fewer in that span are the noise of any engine
METRIC_VALUES_MAX: Final = 500  # names of replicas, or of models, in metrics; the rest is "other"
METRIC_CODES_MAX: Final = 50  # codes of outcomes in metrics: ours are two dozen
METRIC_METHODS_MAX: Final = 12  # HTTP methods in metrics: a client may make up any word
OVERVIEW_S: Final = 15.0  # between two readings of all batches; metrics are scraped about as often
OVERVIEW_BATCHES_MAX: Final = 200  # whose reasons are looked at, those due first
WAITING_LINE_S: Final = 30.0  # per worker, on average, between log lines about waiting batches
WAITING_LINES_BURST: Final = 20  # ... and so many at once; the rest is counted
REJECTED_LINE_S: Final = 60.0  # between two log lines about lines of one batch with one code
REJECTED_CODES_MAX: Final = 20  # of one batch; an engine may make them up
REPLICA_LINE_S: Final = 60.0  # per replica, on average, between log lines about its changes
REPLICA_LINES_BURST: Final = 6  # ... and so many at once: lost, back, and twice again
LINE_BOUND_KEYS_MAX: Final = 2_000  # things that log lines are counted for, some 200 bytes each
REPLICA_LOST_S: Final = 5.0  # out for so long is lost; a restart of a connection pool is not

# ---- the database ----
STORE_BUSY_TIMEOUT_S: Final = 5.0  # wait for another process's write; a commit takes milliseconds
STORE_OPEN_RETRY_S: Final = 0.05  # between tries to open a file that another process is making
STORE_WRITER_WAIT_S: Final = 30.0  # in our own queue for a connection, then StoreUnavailable
STORE_READERS: Final = 4  # SQLite connections beside the writer; each is a thread
STORE_WAL_BYTES_KEPT: Final = 64 * MIB  # after a checkpoint the log shrinks to this
STORE_CONNECTIONS: Final = 10  # to PostgreSQL per process; its default serves a hundred in all
STORE_CONNECT_S: Final = 10.0  # to reach PostgreSQL
STORE_STATEMENT_S: Final = 60.0  # one statement in PostgreSQL: a plan of a million lines takes few
STORE_IDLE_S: Final = 5.0  # between statements of a transaction: who is gone holds locks no longer
STORE_LOCK_S: Final = 10.0  # waiting for a row that another process holds; a commit takes 0.01 s
STORE_CONFLICT_TRIES_MAX: Final = 5  # of a transaction that another one stood in the way of
STORE_CLOCK_SKEW_S: Final = 2.0  # between database and us: above it a warning, as leases suffer
WAKEUPS_PROBE_S: Final = 15.0  # a listening connection that died unheard is found after this
STORE_KEYS_PER_STATEMENT: Final = 500  # in one IN list; SQLite before 3.32 takes 999 parameters

# ---- process ----
READY_FRESH_S: Final = 1.0  # whoever asks /ready sooner hears the last answer: it needs no key
READY_CHECK_S: Final = 2.0  # for database and bucket to answer; probes give up after five or so
DRAIN_S: Final = 10.0  # SIGTERM to exit: finish or release within this
END_AT_ONCE_S: Final = 0.5  # for each step of an end that is not to wait for anything
SHUTDOWN_DELAY_S_MAX: Final = 60.0  # before that, for balancers to notice; supervisors kill later
LOOP_BACKOFF_S_MAX: Final = 5.0  # between failed ticks; a commit that fails must still renew leases
FAILURE_LINE_S: Final = 120.0  # between the first two log lines of one outage; then it doubles
FAILURE_LINE_S_MAX: Final = 1800.0  # ... up to this: whoever opens the log at noon finds a line
EMBEDDED_START_TIMEOUT_S: Final = 120.0  # a large GGUF from a cold disk
EMBEDDED_RESTART_BACKOFF_S_MAX: Final = 30.0
EMBEDDED_RESTART_BACKOFF_S: Final = 0.1  # the first restart; doubles up to the bound above
EMBEDDED_STEADY_S: Final = 60.0  # a child that served this long starts the back-off from the bottom
EMBEDDED_START_ATTEMPTS: Final = 3  # crashes before the first answer; a bad model is told at once
EMBEDDED_STOP_S: Final = 3.0  # from end of input to SIGKILL; the child needs milliseconds
EMBEDDED_SLOTS: Final = 8  # sequences decoded together; memory grows with slots x context
EMBEDDED_CONTEXT_TOKENS: Final = 4096  # per slot, at most the model's own; 8 slots of an 8B: 4 GiB
EMBEDDED_EMBEDDING_TOKENS: Final = 2048  # one embedding input is one physical batch: costs memory
EMBEDDED_HTTP_THREADS: Final = 128  # one per open connection; too few and a kept one blocks others
EMBEDDED_PROMPT_CACHE_MIB: Final = 256  # llama.cpp would keep 8 GiB of old prompts
EMBEDDED_ONE_THREAD_BYTES: Final = 64 * MIB  # below this a second thread costs more than it gives
EMBEDDED_LOG_BYTES_MAX: Final = 4 * MIB  # two files of half this size
EMBEDDED_LOG_TAIL_LINES: Final = 40  # enough to hold what llama.cpp says about a model it refuses
GGUF_STRING_BYTES_MAX: Final = 1 * MIB  # a longer metadata key or value means a damaged file
GGUF_ARRAY_BYTES_MAX: Final = 64 * MIB  # the same for an array of numbers

# ---- the command line ----
CLIENT_CONNECT_TIMEOUT_S: Final = 5.0  # a server that is there answers at once
LOCAL_ENGINE_PROBE_S: Final = (
    2.0  # one that runs on this machine answers at once, if it is not busy
)
CLIENT_READ_TIMEOUT_S: Final = 60.0  # between two pieces of an answer
CLIENT_PARTS_ABOVE_BYTES: Final = 512 * MIB  # a file that is worth sending part by part
CLIENT_TRIES_MAX: Final = 6  # of one call; with the back-off below about half a minute
CLIENT_BACKOFF_S: Final = 0.5
CLIENT_BACKOFF_S_MAX: Final = 10.0
CLIENT_RETRY_AFTER_S_MAX: Final = 60.0  # protocol.md section 9, item 15
WATCH_POLL_S_MIN: Final = 0.2  # a small batch is over within seconds
WATCH_POLL_S_MAX: Final = 10.0
WATCH_POLL_SHARE: Final = 0.05  # asked again after this share of the time watched so far
WATCH_OUTAGE_S_MAX: Final = 300.0  # a server that restarts or is upgraded while being watched
TENANTS_LISTED_MAX: Final = 20  # in the answer to a name that there is none of: a screenful
VALIDATE_PROGRESS_AFTER_S: Final = 2.0  # below it a bar only flickers
DISK_FREE_BYTES_LOW: Final = 1024 * MIB  # ten inputs of the largest size with their results
DISK_FREE_BYTES_MIN: Final = 64 * MIB  # one uncommitted backlog
LINE_ERRORS_SHOWN: Final = 20  # a screenful; --json has all that are kept

# ---- tables (`lowtide run` on rows) ----
TABLE_BATCH_ROWS: Final = 256  # read and joined together; rows with images have megabytes each
TABLE_GROUP_ROWS: Final = 65_536  # of a Parquet row group or an Arrow batch that is written
TABLE_GROUP_BYTES: Final = 16 * MIB  # ... or at so many bytes; held until then
TABLE_ROW_BYTES_MAX: Final = 64 * MIB  # one row of JSONL; above it a file is no JSONL of rows
CSV_FIELD_CHARS_MAX: Final = 16 * MIB  # one field: an unclosed quote must not swallow a whole file
TABLE_FILES_MAX: Final = 10_000  # of one table; each is opened and looked through before a run
TABLE_COLUMNS_MAX: Final = 10_000  # of JSONL rows; more are keys that should have been values
TABLE_SAMPLE_MAX: Final = 1_000_000  # rows of a sample: their numbers are kept, 40 bytes each
TABLE_IMAGE_BYTES_MAX: Final = 10 * MIB  # in base64 a third more, which still fits one line
TABLE_ERROR_CHARS_MAX: Final = 500  # of `_error`: an engine may quote the whole prompt back
TABLE_PARTS_IN_FLIGHT: Final = 4  # batches of one run at a time; more only lie in the queue
TABLE_ROOM_RETRY_S: Final = 60.0  # where others' batches take all room; each try leaves a batch
TABLE_REQUESTS_SHOWN: Final = 3  # by --dry-run
MAP_RUN_KEPT_S: Final = 30.0 * 86_400  # an unfinished `lowtide.map` that nobody went on with

# ---- webhooks ----
WEBHOOK_RETRIES_S: Final = (5.0, 300.0, 1_800.0, 7_200.0, 28_800.0, 86_400.0)  # after each failed
# attempt; then a delivery is given up, and can be replayed
WEBHOOK_FAILING_S_MAX: Final = 5 * 86_400  # without a success; then the endpoint is disabled
WEBHOOKS_PER_PROJECT: Final = 50  # endpoints; each event is sent to all that ask for it
WEBHOOK_URL_CHARS_MAX: Final = 2_048  # what browsers and proxies take
WEBHOOK_SECRET_BYTES: Final = 32  # of a key; the specification asks for 24 to 64
WEBHOOK_SECRETS_MAX: Final = 4  # valid at one time: a signature more in the header for each
WEBHOOK_OVERLAP_S: Final = 86_400  # for which a rotated secret still signs, unless it is said
WEBHOOK_OVERLAP_S_MAX: Final = 30 * 86_400
WEBHOOK_ATTEMPT_S: Final = (
    15.0  # to resolve, connect, send and hear; receivers answer first, work later
)
WEBHOOK_RESOLVE_S: Final = 5.0  # of that, for the name
WEBHOOK_RESOLVERS: Final = 8  # threads; a name server that does not answer holds one of them
WEBHOOK_ADDRESSES_MAX: Final = 4  # of one name that are tried
WEBHOOK_ANSWER_BYTES_MAX: Final = 16 * KIB  # of an answer's head; its body is not read
WEBHOOK_LEASE_S: Final = 45.0  # a dead process's deliveries wait so long; three attempts
WEBHOOKS_IN_FLIGHT: Final = 32  # in one process; each is a socket and some 10 KiB
WEBHOOKS_IN_FLIGHT_SHARE: Final = 16  # of one organization, over all processes
WEBHOOK_TESTS_AT_ONCE: Final = 4  # half of one organization; each holds its caller for an attempt
WEBHOOKS_POLL_S: Final = 1.0  # how late a new event may be sent; nobody announces it
WEBHOOK_DELIVERIES_KEEP_S: Final = 30 * 86_400  # of those that are over; a row is 300 bytes
WEBHOOK_FORGET_EVERY_S: Final = 600.0  # between two looks for older ones
WEBHOOK_FORGET_ROWS: Final = 1_000  # in one transaction
WEBHOOK_REPLAY_MAX: Final = 1_000  # failed deliveries that one call replays
WEBHOOK_NAME_CHARS_MAX: Final = 200  # of an endpoint

# ---- idempotency keys ----
IDEMPOTENCY_KEY_KEEP_S: Final = 86_400  # for which a key stands for its request
IDEMPOTENCY_KEY_CHARS_MAX: Final = 255  # visible ASCII; clients send UUIDs
IDEMPOTENCY_FORGET_ROWS: Final = 10  # old keys that go with each new one

# ---- history ----
HISTORY_S: Final = (
    5.0  # between two readings of what was done; a worker that is killed loses as much
)
HISTORY_BUCKET_S: Final = 5  # of a batch's first half hour; it doubles as the batch gets older
HISTORY_BUCKETS_MAX: Final = 300  # of one batch: a point for each two pixels, 10 KB
HISTORY_SPREAD_S: Final = 60.0  # work that is seen late was done in so long a time before
HISTORY_KEEP_S: Final = 30 * 86_400  # after the last reading; no window is as long
HISTORY_FORGET_EVERY_S: Final = 600.0  # between two looks for older rows
HISTORY_FORGET_ROWS: Final = 1_000  # in one transaction
REPLICA_BUCKET_S: Final = 30  # of a replica's history: 120 in an hour, two pixels each
REPLICA_HISTORY_KEEP_S: Final = 36 * 3600  # a night and the day before it; 4,320 buckets
REPLICA_SPANS_MAX: Final = 300  # of a replica that are answered: a longer time has longer ones
REPLICA_SAMPLE_S: Final = 1.0  # between two readings of a replica's state: giving way lasts seconds
REPLICA_SAMPLE_S_MAX: Final = 5.0  # a longer time between two says nothing of the state meanwhile
REPLICA_PENDING_BUCKETS: Final = 20  # ten minutes that wait in memory while the store is away
REPLICA_FRESH_S: Final = (
    1.0  # for so long nothing is read again: rows are written every `HISTORY_S`
)
REPLICA_LATE_S: Final = 60.0  # how late what waited so is seen by who reads only what is new
REPLICA_PARTS_KEPT_MAX: Final = 20_000  # of 0.5 KB, in memory for open pages: 160 engines, an hour
BATCH_PARTS_MAX: Final = 500  # cells of the strip that shows which parts of a batch have run
BATCH_NOTES_MAX: Final = 200  # of one batch, the newest: a worker that flaps must not fill a table
