"""What a browser's form sent: bounded, decoded, and checked to come from one of
Lowtide's own pages.
"""

import hmac
from collections.abc import Mapping
from urllib.parse import parse_qs

from starlette.requests import Request

from lowtide import limits
from lowtide.api.http.json_body import read_bounded
from lowtide.core.errors import LowtideError


async def read_form(request: Request) -> Mapping[str, str]:
    """The fields of a form, the last value of each.

    Raises LowtideError `origin_not_allowed` without the page's CSRF token, `request_too_large`,
    `invalid_request`.
    """
    body = await read_bounded(request, limits.FORM_FIELD_BYTES_MAX)
    values_of = _decoded(body, limits.FORM_PARTS_MAX)
    fields = {name: values[-1] for name, values in values_of.items()}
    check_csrf(request, fields.get("csrf", ""))
    return fields


class Form:
    """The fields of a form in which a name may come several times."""

    def __init__(self, fields: Mapping[str, list[str]]) -> None:
        self._fields = fields

    def value(self, name: str) -> str:
        """The last value of the field; empty where there is none."""
        return self._fields.get(name, [""])[-1]

    def values(self, name: str) -> list[str]:
        return list(self._fields.get(name, ()))


async def read_whole_form(request: Request) -> Form:
    """Reads the form that has a field for each chosen row. Raises what `read_form` raises."""
    body = await read_bounded(request, limits.FORM_FIELD_BYTES_MAX)
    form = Form(_decoded(body, limits.CONSOLE_ACTIONS_MAX + limits.FORM_PARTS_MAX))
    check_csrf(request, form.value("csrf"))
    return form


def _decoded(body: bytes, most: int) -> dict[str, list[str]]:
    try:
        return parse_qs(body.decode(), keep_blank_values=True, max_num_fields=most)
    except ValueError:
        raise LowtideError("invalid_request", "The form cannot be read.") from None


def check_csrf(request: Request, told: str) -> None:
    """Raises LowtideError `origin_not_allowed` where `told` is not the session's token."""
    expected: str = request.state.csrf
    if not hmac.compare_digest(expected.encode(), told.encode()):
        raise LowtideError(
            "origin_not_allowed",
            "This page is older than your session, or did not come from this console:"
            " load it again and repeat what you did.",
        )


def whole_number(text: str, field: str) -> int | None:
    """The value of a field; None where it was left empty. Raises LowtideError."""
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        shown = text[: limits.VALUE_CHARS_QUOTED]
        message = f"{field} must be a whole number, not '{shown}'."
        raise LowtideError("invalid_request", message, field) from None


def with_name(metadata: Mapping[str, str], name: str) -> dict[str, str]:
    """The metadata of a batch that is called `name`; of one without a name where it is empty."""
    rest = {key: value for key, value in metadata.items() if key != "name"}
    return rest | ({"name": name} if name else {})
