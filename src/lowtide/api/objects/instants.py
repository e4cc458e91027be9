"""Instants as answers show them, in every dialect alike: whole seconds since 1970."""

from datetime import datetime


def unix(instant: datetime | None) -> int | None:
    """The second, None for no instant."""
    return None if instant is None else int(instant.timestamp())
