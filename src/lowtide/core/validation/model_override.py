"""One model for all lines of a batch, whatever they name; and how many of them it takes elsewhere.

Used by the validator. Pure. Invariant: every line gets the override; a line that names none, or the
same model by another name, is not counted.
"""

from collections.abc import Mapping

from lowtide.core.batches.batch import BatchError


class ModelOverride:
    """`names` maps accepted names to canonical ids; None: each stands for itself."""

    def __init__(self, model: str, names: Mapping[str, str] | None) -> None:
        self._model = model
        self._names = names
        self._canonical = self._canonical_of(model)
        self._overridden = 0

    def applied_to(self, named: str) -> str:
        """The name to plan a line under that names that one."""
        if named and self._canonical_of(named) != self._canonical:
            self._overridden += 1
        return self._model

    @property
    def warning(self) -> BatchError | None:
        """Says how many lines run on another model than they name; None when none does."""
        count = self._overridden
        if not count:
            return None
        lines = "1 line names" if count == 1 else f"{count:,} lines name"
        return BatchError(
            "model_overridden",
            f"{lines} another model; all run on {self._model}, as the batch was created with.",
            None,
            "model",
        )

    def _canonical_of(self, name: str) -> str | None:
        return name if self._names is None else self._names.get(name)
