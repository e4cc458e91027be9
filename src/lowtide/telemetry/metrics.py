"""What the HTTP API counts and times: requests, connections, live and flex calls."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

REQUESTS: Final = Counter(
    "lowtide_http_requests",
    "HTTP requests answered (status 0: the client left).",
    ["method", "status"],
)
CONNECTIONS_ENDED: Final = Counter(
    "lowtide_http_connections_ended",
    "Connections ended for what their callers did (slow, bounds) or to have room for others.",
    ["reason"],
)
LIVE_REQUESTS: Final = Counter(
    "lowtide_live_requests",
    "Interactive calls ended (status 0: the client left before an answer began).",
    ["model", "status"],
)
LIVE_IN_FLIGHT: Final = Gauge(
    "lowtide_live_in_flight", "Interactive calls between admission and end.", ["model"]
)
LIVE_FIRST_BYTE: Final = Histogram(
    "lowtide_live_first_byte_seconds",
    "From an interactive call's arrival to the first byte of its answer (streams: first token).",
    ["model"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2.5, 5, 10, 30, 60),
)

FLEX_HELD: Final = Gauge(
    "lowtide_flex_held", "Calls with service_tier flex whose callers wait.", ["endpoint"]
)
FLEX_HELD_SECONDS: Final = Histogram(
    "lowtide_flex_held_seconds",
    "From a flex call's arrival to its answer (status 0: the client left before).",
    ["status"],
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 900),
)
