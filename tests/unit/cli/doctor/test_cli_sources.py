"""What `lowtide doctor` finds at a place where engines are found, and at the engines there."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from lowtide import limits
from lowtide.cli.doctor.finding import Finding
from lowtide.cli.doctor.sources import check_sources
from lowtide.config import Settings, SourceSettings
from testkit.scripted_engine import ScriptedEngine, reply

MODELS = (reply({"object": "list", "data": [{"id": "m"}]}),)


async def findings(path: Path, **more: str) -> list[Finding]:
    source = SourceSettings(kind="file", path=path, **more)
    return await check_sources(Settings(source=(source,)), {})


async def test_a_source_is_asked_and_its_engines_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    async with ScriptedEngine(MODELS, (reply({}, 400),)) as engine:
        port = urlsplit(engine.url).port
        path.write_text(
            f"- {{name: up, address: 127.0.0.1, port: {port}}}\n"
            "- {name: away, address: 127.0.0.1, port: 9}\n"
        )
        source, up, away = await findings(path)
    assert (source.verdict, source.what) == ("ok", "tells up, away")
    assert (up.verdict, away.verdict) == ("ok", "fail")


async def test_an_empty_list_is_well_and_says_what_follows(tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    path.write_text("endpoints: []\n")
    (source,) = await findings(path)
    assert (source.verdict, "batches wait" in source.what) == ("ok", True)


async def test_a_source_that_cannot_be_asked_fails_with_what_to_do(tmp_path: Path) -> None:
    (source,) = await findings(tmp_path / "none.yaml")
    assert source.verdict == "fail"
    assert "cannot be read: No such file" in source.what
    assert "path" in source.remedy


async def test_a_template_that_cannot_work_fails(tmp_path: Path) -> None:
    (source,) = await findings(tmp_path / "e.yaml", api_key_env="NOT_SET_ANYWHERE")
    assert (source.verdict, "NOT_SET_ANYWHERE" in source.what) == ("fail", True)


async def test_of_many_engines_some_are_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DOCTOR_ENGINES_MAX", 2)
    path = tmp_path / "e.yaml"
    path.write_text(
        "".join(f"- {{name: e{n}, address: 127.0.0.1, port: {n}}}\n" for n in range(1, 8))
    )
    source, *engines = await findings(path)
    assert source.what == "tells e1, e2, e3, e4, e5 and 2 more"
    assert len(engines) == 2
