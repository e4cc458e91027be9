"""Addresses of the console (api/console) that the middlewares know.

`AuthMiddleware` lets the open ones through; `console.session_guard` finds out who asks at the
others.
"""

from typing import Final

HOME: Final = "/"
ROOT: Final = "/console"
DRAFTS: Final = f"{ROOT}/new/"
ADMINISTRATION: Final = f"{ROOT}/admin"
USAGE: Final = f"{ROOT}/usage"
USAGE_CSV: Final = f"{USAGE}/csv"
SIGN_IN: Final = f"{ROOT}/sign-in"
SIGN_OUT: Final = f"{ROOT}/sign-out"
STATIC: Final = f"{ROOT}/static/"


def is_open_to_all(path: str) -> bool:
    """Whether a page shows nothing that belongs to a caller."""
    return path == SIGN_IN or path.startswith(STATIC)
