"""Turns what an API says when it refuses into the error of a scaler, with a question that helps."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from lowtide.engines.sources.json_http import StatusError
from lowtide.ports.scalers import ScalerError
from lowtide.ports.sources import SourceError


@contextmanager
def as_scaler_errors(remedies: Mapping[int, str]) -> Iterator[None]:
    """`remedies`: by status, what to look at. Raises ScalerError."""
    try:
        yield
    except StatusError as error:
        remedy = remedies.get(error.status)
        raise ScalerError(f"{error}{f' ({remedy})' if remedy else ''}") from None
    except SourceError as error:
        raise ScalerError(str(error)) from None
