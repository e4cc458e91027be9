"""`import lowtide` costs nothing, and says what there is."""

import subprocess
import sys

import pytest

import lowtide
from testkit.patience import PATIENCE_S

HEAVY = ("httpx", "pandas", "polars", "pyarrow", "pydantic", "typer", "rich", "msgspec", "asyncio")


def loaded_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    return set(done.stdout.split())


def test_importing_lowtide_loads_nothing_heavy() -> None:
    assert loaded_after("import lowtide") == set()


def test_everything_that_is_named_is_there_and_nothing_else() -> None:
    assert {name for name in lowtide.__all__ if getattr(lowtide, name, None) is None} == set()
    assert set(lowtide.__all__) <= set(dir(lowtide))
    with pytest.raises(AttributeError, match="no attribute 'mop'"):
        lowtide.mop  # noqa: B018
