"""The generated parts of the page for operators, docs/how-to/limits-and-money.md."""

import ast
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from markdown_table import table

OPERATORS: Final = "docs/how-to/limits-and-money.md"
SRC: Final = Path(__file__).parents[1] / "src" / "lowtide"

# Of each limit: the code that tells of it, where, and what it bounds. tests/api provokes each.
BOUNDS: Final[Mapping[str, tuple[str, str, str]]] = {
    "requests_per_batch": ("too_many_tasks", "validation", "Requests of one batch."),
    "file_bytes": ("file_too_large", "upload", "Bytes of one uploaded file."),
    "enqueued_tokens_per_model": (
        "token_limit_exceeded",
        "validation",
        "Estimated input tokens of all unfinished batches for one model; what has settled is free.",
    ),
    "batches_per_hour": (
        "rate_limit_exceeded",
        "create",
        "Batches created in any 60 minutes; [single calls](flex.md) are none.",
    ),
    "unfinished_batches": (
        "rate_limit_exceeded",
        "create",
        "Batches and [background responses](flex.md) that have not ended.",
    ),
    "stored_bytes": (
        "storage_limit_exceeded",
        "upload",
        "Bytes of all files, inputs and results, and of uploads in parts under way.",
    ),
    "requests_in_flight": (
        "",
        "waiting",
        "Requests at engines at one time; more of them wait, and the batch's `reason` says so.",
    ),
    "live_requests_per_minute": (
        "rate_limit_exceeded",
        "live call",
        "Interactive calls, for each key and model.",
    ),
    "live_tokens_per_minute": (
        "rate_limit_exceeded",
        "live call",
        "Tokens of those calls, input and output, for each key and model.",
    ),
    "control_calls_per_minute": (
        "rate_limit_exceeded",
        "any other call",
        "Calls other than interactive ones; a list counts one more for each hundred rows.",
    ),
    "weight": (
        "",
        "waiting",
        "Its share of a pool beside other organizations that have work there; 1 unless given.",
    ),
}
KEPT: Final = (
    ("FILE_TTL_S", "an uploaded file, an output or an error file, unless its owner says otherwise"),
    ("FILE_TTL_S_MIN", "the shortest `expires_after` of an upload"),
    ("FILE_TTL_S_MAX", "the longest `expires_after` of an upload"),
    ("OUTPUT_EXPIRES_AFTER_S_MIN", "the shortest `output_expires_after` of a batch"),
    ("SEGMENTS_KEEP_S", "after a batch's end: what readers with `offset` go on from"),
    ("UPLOAD_URL_TTL_S", "a signed upload address"),
    ("UPLOAD_TTL_S", "OpenAI's uploads in parts, from begin to completion"),
    ("MULTIPART_TTL_S", "Together's uploads in parts and their addresses"),
    ("SWEEP_S", "from an end or a deletion to the disk, at most"),
    ("KEY_CACHE_S", "from revoking a key to its end in other processes, at most"),
    ("TENANT_CACHE_S", "from changing a limit or a cap to its effect, at most"),
    ("BUDGET_POLL_S", "from raising a cap to paused batches going on, at most"),
)


def bounds_block() -> str:
    """Every limit of an organization: default, who tells of it, with which status."""
    from lowtide.api.http.errors import STATUS_OF
    from lowtide.config import LimitSettings
    from lowtide.core.accounts.tenancy import OrganizationLimits

    rows = []
    for name in OrganizationLimits.__struct_fields__:
        code, where, words = BOUNDS[name]
        default = getattr(
            LimitSettings(), name, 1
        )  # a weight has no setting: it compares organizations
        status = STATUS_OF.get(code)  # type: ignore[call-overload]
        answer = f"{status} `{code}`" if status else f"batch `failed`: `{code}`" if code else "-"
        shown = "none" if default is None else f"{default:,}"
        rows.append([f"`{name}`", shown, words, where, answer])
    return table(("limit", "default", "what it bounds", "noticed at", "client sees"), rows) + "\n"


def kept_block() -> str:
    """How long things last."""
    from lowtide import limits

    rows = [[words, duration_words(getattr(limits, name))] for name, words in KEPT]
    return table(("what", "how long"), rows) + "\n"


def duration_words(seconds: float) -> str:
    for unit, size in (("day", 86400), ("hour", 3600)):
        if seconds >= size and seconds % size == 0:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return f"{seconds:g} seconds"


def scopes_block() -> str:
    """What each scope opens, as the guard decides it for every documented operation."""
    from lowtide.api.app import openapi_document
    from lowtide.api.middleware.auth import is_public, sufficient_scopes

    opened: dict[str, list[str]] = {}
    for path, row in openapi_document()["paths"].items():
        for method in map(str.upper, row):
            scopes = " or ".join(f"`{scope}`" for scope in sufficient_scopes(method, path))
            needed = "no key" if is_public(method, path) else scopes or "any key"
            opened.setdefault(needed, []).append(f"`{method} {path}`")
    return table(("scope", "calls"), [[s, ", ".join(calls)] for s, calls in opened.items()]) + "\n"


def price_block() -> str:
    """A worked example, computed by the code that charges."""
    from decimal import Decimal

    from lowtide.core.accounts.money import dollars_text, model_prices
    from lowtide.core.usage import Usage

    prices = model_prices(Decimal("0.88"), Decimal("0.44"), Decimal("0.88"), Decimal("0.5"))
    used = Usage(input_tokens=12_000_000, cached_tokens=2_000_000, output_tokens=3_000_000)
    live, batch = prices.live.charge(used), prices.batch.charge(used)
    shown = [f"${dollars_text(pico)}" for pico in (live, batch, live - batch)]
    tokens = [f"{n:,}" for n in (used.input_tokens, used.cached_tokens, used.output_tokens)]
    heads = ("input tokens", "of them cached", "output tokens", "live", "as a batch", "saved")
    return table(heads, [[*tokens, *shown]]) + "\n"


def audit_block() -> str:
    """The fields of an `audit` event, in the order in which guard.py writes them."""
    tree = ast.parse((SRC / "api" / "middleware" / "auth.py").read_text())
    (call,) = (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and node.args[0].value == "audit"
    )
    return ", ".join(f"`{keyword.arg}`" for keyword in call.keywords) + "\n"


BLOCKS_OF_OPERATORS: Final[Mapping[str, Callable[[], str]]] = {
    "limits": bounds_block,
    "kept": kept_block,
    "scopes": scopes_block,
    "price": price_block,
    "audit": audit_block,
}
