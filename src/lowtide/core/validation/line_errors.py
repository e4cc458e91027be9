"""What is wrong with a bad line: the slow half of validation.

The validator's fast path only knows that a line is not acceptable; it then calls `diagnose`, which
reads the line once more, field by field, and names the first problem in a fixed order. Codes are
those attested in protocol.md section 8, three texts verbatim from production. Invariant: a line
that the fast path refuses always gets an error here.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from lowtide import limits
from lowtide.core.batches.batch import BatchError
from lowtide.core.bodies.body_bounds import body_excess, line_excess
from lowtide.core.bodies.body_fields import BODY_FIELDS, Field
from lowtide.core.bodies.body_rules import NOT_CONTINUED
from lowtide.core.bodies.json_faults import half_character, what_is_wrong
from lowtide.core.bodies.media_urls import MediaRule
from lowtide.core.validation.rules import PROMPT_FIELDS, ValidationRules

NOT_JSON: Final = "This line is not parseable as valid JSON."
TOO_DEEP: Final = "This line is nested too deeply."
REPEATED: Final = "This line gives a field more than once, with different types."
DUPLICATE: Final = (
    "The custom_id for this request is a duplicate of another request. "
    "The custom_id parameter must be unique for each request in a batch."
)


class Diagnosis(msgspec.Struct, frozen=True):
    """The first problem of a line, and its custom_id where that much was read and in order."""

    error: BatchError
    custom_id: str | None = None


_grammar = msgspec.json.Decoder(msgspec.Raw)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_items = msgspec.json.Decoder(list[msgspec.Raw])
_string = msgspec.json.Decoder(str)
_boolean = msgspec.json.Decoder(bool)
_any = msgspec.json.Decoder()


class _Problem(Exception):
    """Ends the walk over a line at its first problem; never leaves this module."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


def duplicate(line: int) -> BatchError:
    """The error of a line whose custom_id an earlier line has."""
    return BatchError("duplicate_custom_id", DUPLICATE, line, "custom_id")


def unknown_override(rules: ValidationRules) -> BatchError | None:
    """Why the one model that all lines are to run on cannot be had; None: it can, or there is
    none."""
    model = rules.model_override
    if model is None or rules.resolve(model) is not None:
        return None
    offer = _offer(rules.models or {})
    return BatchError("model_not_found", f"The model '{model}' is not available. {offer}")


def diagnose(raw: bytes, line: int, rules: ValidationRules) -> Diagnosis:
    """Name the first problem of a line that is not blank and did not pass the fast path.

    That its custom_id is a duplicate comes before all that is wrong behind it, and is not known
    here: a `Diagnosis` with a custom_id gives way to `duplicate`.
    """
    custom_id = None
    try:
        fields = _read_object(raw)
        custom_id = _custom_id(fields, rules)
        _check_method(fields, rules)
        _check_url(fields, rules)
        body = _members(_required(fields, "body"), "body")
        if rules.model_override is None:
            _check_model(body, rules)
        _check_prompt(body, PROMPT_FIELDS[rules.endpoint])
        _check_stream(body)
        if rules.checks_fields:
            if rules.endpoint == "/v1/responses":
                _check_background(body)
                _check_continued(body)
            _check_fields(body, BODY_FIELDS[rules.endpoint])
        if rules.media is not None:
            _check_media(bytes(fields["body"]), rules.media)
    except _Problem as problem:
        error = BatchError(problem.code, problem.message, line, problem.param)
        return Diagnosis(error, custom_id)
    except RecursionError:
        return Diagnosis(BatchError("invalid_request", TOO_DEEP, line, None), custom_id)
    # Each field read alone keeps the rules. The fast path also trips over the first of two values
    # given for one field, where reading a field alone finds the second.
    return Diagnosis(BatchError("invalid_request", REPEATED, line, None), custom_id)


def _read_object(raw: bytes) -> dict[str, msgspec.Raw]:
    try:
        if (excess := body_excess(raw)) is not None:
            raise _Problem("invalid_request", f"The line has {excess}.")
        if (excess := line_excess(raw)) is not None:
            raise _Problem("invalid_request", f"'body' has {excess}.", "body")
        raw.decode("utf-8")
        _grammar.decode(raw)
        return _fields.decode(raw)
    except UnicodeDecodeError as error:
        message = f"This line is not valid UTF-8 (byte {error.start + 1} of the line)."
        raise _Problem("invalid_json_line", message) from error
    except msgspec.ValidationError as error:  # before DecodeError, its base class
        raise _Problem("invalid_request", "A line must be a JSON object.") from error
    except msgspec.DecodeError as error:
        raise _not_json(raw) from error


def _not_json(raw: bytes) -> _Problem:
    if len(raw) > limits.FAULT_BYTES_MAX:
        return _Problem("invalid_json_line", NOT_JSON)
    if (half := half_character(raw)) is not None:
        message = (
            f"This line has half a character: {half[0]} (byte {half[1]} of the line) is one half of"
            " a surrogate pair without the other. Some program cut a text inside an emoji; write"
            " whole characters."
        )
        return _Problem("invalid_request", message)
    why = what_is_wrong(raw)
    return _Problem("invalid_json_line", NOT_JSON if why is None else f"{NOT_JSON} {why}")


def _custom_id(fields: Mapping[str, msgspec.Raw], rules: ValidationRules) -> str:
    custom_id = _text(_required(fields, "custom_id"), "custom_id")
    if not custom_id:
        raise _Problem("invalid_request", "'custom_id' must not be empty.", "custom_id")
    if len(custom_id) > rules.custom_id_chars:
        message = (
            f"'custom_id' has {len(custom_id)} characters; at most {rules.custom_id_chars} "
            "are allowed."
        )
        raise _Problem("invalid_request", message, "custom_id")
    return custom_id


def _check_method(fields: Mapping[str, msgspec.Raw], rules: ValidationRules) -> None:
    """Together sends no method, or one of its own such as FILE (protocol.md section 2.7)."""
    if rules.dialect == "together":
        if (raw := _present(fields, "method")) is not None:
            _text(raw, "method")
    elif _present(fields, "method") is None and _present(fields, "url") is None:
        message = "Missing required parameters: 'method' and 'url'."
        raise _Problem("missing_required_parameter", message, "method")
    elif (method := _text(_required(fields, "method"), "method")) != "POST":
        message = f"'method' must be 'POST', not {_quoted(method)}."
        raise _Problem("invalid_request", message, "method")


def _check_url(fields: Mapping[str, msgspec.Raw], rules: ValidationRules) -> None:
    raw = _present(fields, "url")
    if raw is None and rules.dialect == "together":
        return
    url = _text(_required(fields, "url"), "url")
    if url != rules.endpoint:
        message = (
            f"The url {_quoted(url)} of this request is not the endpoint of its batch, "
            f"'{rules.endpoint}'."
        )
        raise _Problem("url_mismatch", message, "url")


def _check_model(body: Mapping[str, msgspec.Raw], rules: ValidationRules) -> None:
    param = "body.model"
    model = _text(_required(body, "model", param), param)
    if not model:
        raise _Problem("invalid_request", f"'{param}' must not be empty.", param)
    if rules.resolve(model) is not None:
        return
    if rules.models is None:
        message = (
            f"'{param}' has {len(model)} characters; at most {limits.MODEL_ID_CHARS_MAX} "
            "are allowed."
        )
        raise _Problem("invalid_request", message, param)
    message = f"The model {_quoted(model)} is not available. {_offer(rules.models)}"
    raise _Problem("model_not_found", message, param)


def _offer(models: Mapping[str, str]) -> str:
    served = sorted(set(models.values()))
    if not served:
        return "No model is available at the moment."
    named = ", ".join(served[: limits.MODELS_NAMED_IN_ERROR])
    more = len(served) - limits.MODELS_NAMED_IN_ERROR
    return f"Available: {named} and {more} more." if more > 0 else f"Available: {named}."


def _check_prompt(body: Mapping[str, msgspec.Raw], field: str) -> None:
    param = f"body.{field}"
    first = bytes(_required(body, field, param)).lstrip()[:1]
    if field == "messages":
        if first != b"[":
            raise _Problem("invalid_request", f"'{param}' must be an array.", param)
        _check_messages(body[field], param)
    elif first not in (b"[", b'"'):
        raise _Problem("invalid_request", f"'{param}' must be a string or an array.", param)


def _check_messages(raw: msgspec.Raw, param: str) -> None:
    for place, message in enumerate(_items.decode(raw)):
        if not bytes(message).lstrip().startswith(b"{"):
            place_param = f"{param}[{place}]"
            raise _Problem("invalid_request", f"'{place_param}' must be an object.", place_param)


def _check_stream(body: Mapping[str, msgspec.Raw]) -> None:
    raw = _present(body, "stream")
    if raw is None:
        return
    try:
        stream = _boolean.decode(raw)
    except msgspec.ValidationError as error:
        message = "'body.stream' must be a boolean."
        raise _Problem("invalid_request", message, "body.stream") from error
    if stream:
        message = "'body.stream' must be false or absent: a batch returns whole answers."
        raise _Problem("stream_not_supported", message, "body.stream")


def _check_background(body: Mapping[str, msgspec.Raw]) -> None:
    """Refuses a background request: its answer is only a receipt for a result to fetch later."""
    raw = _present(body, "background")
    if raw is None or bytes(raw).strip() == b"false":
        return
    message = (
        "'body.background' must be false or absent: a batch waits for the answer itself, and"
        " returns it whole."
    )
    raise _Problem("background_not_supported", message, "body.background")


def _check_continued(body: Mapping[str, msgspec.Raw]) -> None:
    if _present(body, "previous_response_id") is not None:
        param = "body.previous_response_id"
        raise _Problem("invalid_request", f"'{param}' must be absent. {NOT_CONTINUED}", param)


def _check_fields(body: Mapping[str, msgspec.Raw], fields: Mapping[str, Field]) -> None:
    for name, field in fields.items():
        raw = _present(body, name)
        if raw is None:
            continue
        param = f"body.{name}"
        try:
            fits = field.fits(_any.decode(raw))
        except msgspec.DecodeError:  # its grammar was looked at before: a number beyond all types
            message = f"'{param}' is a number out of range: it must be {field.words}."
            raise _Problem("invalid_request", message, param) from None
        if not fits:
            value = _quoted(bytes(raw).decode(), mark="")
            message = f"'{param}' must be {field.words}, not {value}."
            raise _Problem("invalid_request", message, param)


def _check_media(body: bytes, rule: MediaRule) -> None:
    if (refusal := rule.refusal(body)) is not None:
        name, message = refusal
        raise _Problem("invalid_request", message, f"body.{name}")


def _present(fields: Mapping[str, msgspec.Raw], name: str) -> msgspec.Raw | None:
    """A field's value; null counts as absent."""
    raw = fields.get(name)
    return None if raw is None or bytes(raw).strip() == b"null" else raw


def _required(
    fields: Mapping[str, msgspec.Raw], name: str, param: str | None = None
) -> msgspec.Raw:
    raw = _present(fields, name)
    if raw is None:
        param = param or name
        message = f"Missing required parameter: '{param}'."
        raise _Problem("missing_required_parameter", message, param)
    return raw


def _text(raw: msgspec.Raw, param: str) -> str:
    try:
        return _string.decode(raw)
    except msgspec.ValidationError as error:
        raise _Problem("invalid_request", f"'{param}' must be a string.", param) from error


def _members(raw: msgspec.Raw, param: str) -> dict[str, msgspec.Raw]:
    try:
        return _fields.decode(raw)
    except msgspec.ValidationError as error:
        raise _Problem("invalid_request", f"'{param}' must be a JSON object.", param) from error


def _quoted(text: str, mark: str = "'") -> str:
    """A submitter's own value inside a message, cut to a readable length."""
    if len(text) > limits.VALUE_CHARS_QUOTED:
        text = text[: limits.VALUE_CHARS_QUOTED] + "..."
    return f"{mark}{text}{mark}"
