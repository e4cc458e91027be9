"""Every bound of the system: value, unit in the name, reason beside it.

Imported by all layers, imports nothing. A bound that an operator may change is a default here and a
key in `config.py`; the others hold by design and are not settings.
"""

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# ---- what a submitter may send (defaults of [limits]; source: the launch promise, seed.md) ----
REQUESTS_PER_BATCH: Final = 50_000
FILE_BYTES: Final = 100 * MIB
ENQUEUED_TOKENS_PER_MODEL: Final = 10_000_000
COMPLETION_WINDOW_S: Final = 24 * 3600
COMPLETION_WINDOW_S_MIN: Final = 3600  # below an hour nothing can be promised on harvested capacity
COMPLETION_WINDOW_S_MAX: Final = 7 * 24 * 3600

# ---- one line ----
LINE_BYTES_MAX: Final = 16 * MIB  # an inline image or two; above it a line would not fit a chunk
CUSTOM_ID_CHARS_MAX_TOGETHER: Final = 64  # protocol.md section 7
CUSTOM_ID_CHARS_MAX: Final = 512  # OpenAI names no limit; this one keeps rows and logs readable
LINE_ERRORS_KEPT: Final = 1_000  # bad lines reported one by one; the total counts the rest

# ---- metadata and names (protocol.md section 3.3) ----
METADATA_PAIRS_MAX: Final = 16
METADATA_KEY_CHARS_MAX: Final = 64
METADATA_VALUE_CHARS_MAX: Final = 512
FILENAME_CHARS_MAX: Final = 255

# ---- HTTP door ----
JSON_BODY_BYTES_MAX: Final = 1 * MIB  # control requests (create, cancel, ...): small by nature
FORM_FIELD_BYTES_MAX: Final = 64 * KIB  # a form field beside the file part of an upload
PAGE_SIZE_DEFAULT: Final = 20
PAGE_SIZE_MAX_BATCHES: Final = 100
PAGE_SIZE_MAX_FILES: Final = 10_000
BARE_LIST_MAX: Final = 1_000  # Together's lists have no paging: newest this many
UPLOAD_URL_TTL_S: Final = 3600  # a signed PUT address is good for an hour, once
REPEATED_POST_WINDOW_S: Final = 600  # SDKs retry a timed-out POST for at most this long

# ---- streams and memory ----
STREAM_BLOCK_BYTES: Final = 256 * KIB  # one read or write of a file in flight; bounds server memory
VALIDATE_BLOCK_BYTES: Final = 256 * KIB  # about 0.5 ms of parsing before the loop breathes again

# ---- chunks, leases, the beat (design.md section 3) ----
CHUNK_REQUESTS_MAX: Final = 128  # unit of scheduling; its finished lines fit a 16-byte bitmap
CHUNK_BYTES_MAX: Final = 16 * MIB  # so that leased input in memory stays bounded with big lines
LEASE_TTL_S: Final = 30.0  # a dead worker's chunks wait at most this long
BEAT_S: Final = 1.0  # what a crash may cost on top of the calls in flight
SEGMENT_BYTES_MAX: Final = 16 * MIB  # commit early at this size
UNCOMMITTED_BYTES_MAX: Final = 64 * MIB  # stop dispatching when results cannot be written away
CLAIM_CHUNKS_MAX: Final = 32  # per claim statement

# ---- one attempt, and many (scheduling.md section 2j) ----
CONNECT_TIMEOUT_S: Final = 10.0
ATTEMPT_TIMEOUT_S: Final = 600.0  # SDK default for a live call
REPLY_BYTES_MAX: Final = 64 * MIB  # a reply above this is an engine gone mad
REPLY_HEADER_BYTES_MAX: Final = 64 * KIB
ATTEMPTS_MAX: Final = 5  # transient failures before a line goes to the error file
STRIKES_MAX: Final = 3  # times a request was alone under suspicion when its engine died
BACKOFF_BASE_S: Final = 0.5
BACKOFF_CAP_S: Final = 60.0
RETRY_BUDGET_RATIO: Final = 0.1  # retries per completed request, per replica
RETRY_BUDGET_BURST: Final = 20  # retries allowed before the first completion
WINDOW_DEFAULT: Final = 64
WINDOW_MAX: Final = 4096

# ---- circuit breaker (scheduling.md section 2j) ----
CIRCUIT_FAILURES: Final = 5  # consecutive
CIRCUIT_RATE: Final = 0.5
CIRCUIT_RATE_SPAN_S: Final = 20.0
CIRCUIT_RATE_SAMPLES_MIN: Final = 20
CIRCUIT_COOLDOWN_S: Final = 0.5
CIRCUIT_COOLDOWN_S_MAX: Final = 30.0

# ---- keeping and sweeping ----
SEGMENTS_KEEP_S: Final = 3600.0  # so that a reader that follows `offset` can finish its walk
ORPHAN_AGE_S: Final = 3600.0  # a blob nobody refers to after this long was left by a crash
FILE_TTL_S: Final = 30 * 24 * 3600

# ---- process ----
DRAIN_S: Final = 10.0  # SIGTERM to exit: finish or release within this
LOOP_BACKOFF_S_MAX: Final = 30.0  # between failed ticks of one loop
EMBEDDED_START_TIMEOUT_S: Final = 120.0  # a large GGUF from a cold disk
EMBEDDED_RESTART_BACKOFF_S_MAX: Final = 30.0
