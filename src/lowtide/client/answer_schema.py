"""The schema that a caller gives: JSON schema as a dict, or a Pydantic model.

A model's own checks (bounds, patterns, validators) say more than its JSON schema, which is all
that an engine keeps to. Invariant: an answer that the model refuses is an error of its row, never
an object and never an exception. Pydantic is the caller's: nothing is imported here.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from lowtide.tables.answers import Answer
from lowtide.tables.result_columns import misfit_text

_MISFITS: Final = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError)
"""What a model raises of an answer: ValidationError is a ValueError; a caller's own validators may
trip over an odd value in other ways."""
_REASONS_MAX: Final = 3


class AnswerSchema:
    """`json`: what engines are asked for; None: plain text. `model`: the caller's class."""

    def __init__(self, given: Any) -> None:
        """Raises TypeError for what is neither."""
        self.model: Any = None
        self.json: Mapping[str, Any] | None = None
        if given is None:
            return
        if isinstance(given, Mapping):
            self.json = given
        elif isinstance(given, type) and hasattr(given, "model_json_schema"):
            self.model = given
            self.json = given.model_json_schema()
        else:
            raise TypeError(
                "schema must be a Pydantic model (the class itself) or a JSON schema as a dict,"
                f" not {type(given).__name__ if not isinstance(given, type) else given.__name__}."
            )

    def read(self, answer: Answer) -> tuple[Answer, Any]:
        """The answer, with an error where the model refuses it; and the model's object,
        if there is one.
        """
        if self.model is None or answer.text is None or answer.error is not None:
            return answer, None
        try:
            return answer, self.model.model_validate_json(answer.text)
        except _MISFITS as error:
            why = f"The answer does not fit {self.model.__name__}: {_reason(error)}"
            return msgspec.structs.replace(answer, error=misfit_text(why, answer)), None


def _reason(error: Exception) -> str:
    """What Pydantic found, in one line."""
    listed = getattr(error, "errors", None)
    if not callable(listed):
        return str(error) or type(error).__name__
    faults = listed()
    shown = []
    for each in faults[:_REASONS_MAX]:
        place = ".".join(str(part) for part in each.get("loc", ()))
        shown.append(f"{place}: {each['msg']}" if place else str(each["msg"]))
    more = f" and {len(faults) - _REASONS_MAX} more" if len(faults) > _REASONS_MAX else ""
    return "; ".join(shown) + more
