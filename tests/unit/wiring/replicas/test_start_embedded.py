"""wiring/replicas/embedded.py: the engine of `serve --model` answers none but Lowtide."""

from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lowtide.config import ReplicaSettings
from lowtide.engines.embedded import child
from lowtide.engines.embedded.process import ChildSpec
from lowtide.wiring.replicas import embedded
from lowtide.wiring.replicas.embedded import start_embedded
from lowtide.wiring.replicas.embedded_model import EmbeddedModel


class FakeEngine:
    """Records the keys that engines are started with."""

    keys: list[str | None]

    def __init__(self, _path: Path, *, api_key: str | None = None, **_rest: Any) -> None:
        self.keys.append(api_key)

    async def start(self) -> str:
        return "http://127.0.0.1:1/v1"

    async def aclose(self) -> None:
        """Nothing runs."""


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    FakeEngine.keys = []
    model = SimpleNamespace(path=Path("m.gguf"), model_id="m", context_tokens=64)
    monkeypatch.setattr(embedded, "EmbeddedEngine", FakeEngine)
    monkeypatch.setattr(embedded, "resolve_model", lambda *_: model)
    return FakeEngine.keys


async def start(data_dir: Path) -> ReplicaSettings:
    async with AsyncExitStack() as stack:
        asked = EmbeddedModel("m.gguf")
        replica, _ = await start_embedded(asked, data_dir, stack, lambda _: None)
    return replica


async def test_each_start_has_a_key_of_its_own_that_only_the_engine_and_its_replica_know(
    keys: list[str | None], tmp_path: Path
) -> None:
    """Else other users of the machine would go round keys and limits."""
    first, second = await start(tmp_path), await start(tmp_path)
    assert [first.api_key, second.api_key] == keys
    assert keys[0] != keys[1]
    assert all(key is not None and len(key) >= 32 for key in keys)


def test_the_key_is_no_part_of_the_childs_command_line() -> None:
    """Every user of the machine can read that one."""
    spec = ChildSpec(Path("m.gguf"), "m", 1, 64, 1, None, api_key="k" * 40)
    assert not any("k" * 40 in word for word in spec.command(1))
    assert spec.environment == {child.KEY_VARIABLE: "k" * 40}
