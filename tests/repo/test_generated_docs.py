"""The generated parts of docs/ are what the code says now. `make docs` mends a failure here."""

import importlib.util
import sys
from types import ModuleType

import pytest
from tree import ROOT

from lowtide.config import ModelSettings, ReplicaSettings, ScalerSettings, Settings, SourceSettings
from lowtide.core.batches.batch import TRANSITIONS


def load() -> ModuleType:
    """tools/generated_docs.py, which is no part of the package."""
    path = ROOT / "tools" / "generated_docs.py"
    spec = importlib.util.spec_from_file_location("generated_docs", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))  # where its neighbours are, as when it is run
    spec.loader.exec_module(module)
    return module


docs = load()


@pytest.mark.parametrize("name", docs.names())
def test_a_generated_page_is_up_to_date(name: str) -> None:
    assert (ROOT / name).read_text() == docs.as_it_should_be(name), "run `make docs`"


def test_every_setting_is_explained() -> None:
    words = docs.words_of_settings((ROOT / "lowtide.example.toml").read_text())
    lists = {
        "replica": ReplicaSettings,
        "source": SourceSettings,
        "scaler": ScalerSettings,
        "model": ModelSettings,
    }
    for section in Settings.__struct_fields__:
        kind = lists.get(section) or type(getattr(Settings(), section))
        for key in kind.__struct_fields__:
            assert len(words.get((section, key), "")) > 10, f"[{section}] {key} has no comment"


def test_the_diagram_has_every_transition() -> None:
    drawn = docs.states_block()
    for state, row in TRANSITIONS.items():
        for event, to in row.items():
            assert f"    {state} --> {to}: {event}\n" in drawn
    assert drawn.count(" --> ") == sum(map(len, TRANSITIONS.values())) + 1 + 4
