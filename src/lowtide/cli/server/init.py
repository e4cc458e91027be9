"""`lowtide init`: a first lowtide.toml, written after asking the engines that run on this machine.

Asks the ports on which engines usually listen for their models, on loopback alone and with GET
alone. Invariant: a file that exists is replaced only where --force says so.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer
from rich.markup import escape

from lowtide import limits
from lowtide.cli.batches.outputs import writable_target
from lowtide.cli.options import JsonOption
from lowtide.cli.terminal import console, units
from lowtide.cli.terminal.command_errors import CommandError
from lowtide.config import DEFAULT_FILE
from lowtide.core.ascii_json import quote
from lowtide.engines.models.model_list import models_of

USUAL_PORTS: Final[tuple[tuple[int, str], ...]] = (
    (8000, "vLLM"),
    (8001, "vLLM"),
    (9001, "an engine"),
    (30000, "SGLang"),
    (8080, "llama.cpp or TGI"),
    (11434, "Ollama"),
    (1234, "LM Studio"),
)
"""Where engines listen unless they are told otherwise, and which one it then probably is."""

_OWN_PORTS: Final = (8000, 8100, 8200)
_MODELS_LISTED: Final = 20


class LocalEngine(msgspec.Struct, frozen=True):
    """An engine that answered. `models` is empty where it asks for a key first."""

    url: str
    software: str
    models: tuple[str, ...]
    needs_key: bool = False


def init(
    config_file: Annotated[
        Path, typer.Option("--config", metavar="FILE", help="The file to write.")
    ] = Path(DEFAULT_FILE),
    host: Annotated[str, typer.Option(help="Where to look for engines.")] = "127.0.0.1",
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a first lowtide.toml with the engines that run here.

    Asks the usual ports of vLLM, SGLang, llama.cpp, TGI, Ollama and LM Studio for their models.
    """
    target = writable_target(config_file)
    if target.exists() and not force:
        raise CommandError(
            f"{target} exists already.",
            "Edit it, or replace it with --force; `lowtide doctor` checks it.",
            code="exists",
        )
    engines = find_engines(host)
    target.write_text(settings_text(engines), encoding="utf-8")
    if as_json:
        console.emit_json({"file": str(target), "engines": msgspec.to_builtins(engines)})
        return
    for engine in engines:
        models = ", ".join(engine.models) or "it asks for a key before it lists its models"
        console.write(f"[bold]{engine.url}[/] (probably {engine.software}): {escape(models)}")
    if not engines:
        ports = ", ".join(str(port) for port, _ in USUAL_PORTS)
        console.write(f"No engine answers on {escape(host)}, ports {ports}.")
    console.write(f"Written: {escape(str(target))}")
    named = "" if target == Path(DEFAULT_FILE) else f" --config {target}"
    if engines:
        console.info(f"Next: [bold]lowtide doctor{escape(named)}[/], then lowtide serve{named}")
    else:
        console.info(f"Next: name your engine in {escape(str(target))}, then lowtide doctor{named}")


def find_engines(host: str, ports: Sequence[tuple[int, str]] = USUAL_PORTS) -> list[LocalEngine]:
    """Returns the engines that answer on these ports of `host`; a Lowtide server is none."""
    import httpx  # a command that is only shown in a help text need not load it

    engines = []
    timeout = limits.LOCAL_ENGINE_PROBE_S
    with httpx.Client(timeout=timeout, trust_env=False) as client:
        for port, software in ports:
            url = f"http://{host}:{port}/v1"
            try:
                answer = client.get(f"{url}/models")
            except httpx.HTTPError:
                continue
            if answer.status_code in (401, 403):
                engines.append(LocalEngine(url, software, (), needs_key=True))
            elif answer.status_code == 200 and not _is_lowtide(answer.content):
                models = models_of(answer.content)
                if models:
                    engines.append(LocalEngine(url, software, models))
    return engines


def _is_lowtide(body: bytes) -> bool:
    try:
        answer: Any = msgspec.json.decode(body)
        return any(entry["owned_by"] == "lowtide" for entry in answer["data"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return False


def settings_text(engines: Sequence[LocalEngine]) -> str:
    """Returns the text of a settings file with these engines, and comments that say what more there
    is."""
    taken = {engine.url for engine in engines}
    port = next(p for p in _OWN_PORTS if not any(url.endswith(f":{p}/v1") for url in taken))
    parts = [
        "# Settings of Lowtide, written by `lowtide init`. `lowtide doctor` checks them.",
        "# lowtide.example.toml has all settings with their defaults.",
        "",
        "[server]",
        f"port = {port}",
        'data_dir = "./lowtide-data"',
        "",
        "[auth]",
        '# "open": everybody on this machine may use it. "keys": whoever has a key, which',
        "# `lowtide keys create` makes.",
        'mode = "open"',
        "",
    ]
    for engine in engines or (LocalEngine("http://127.0.0.1:9001/v1", "", ()),):
        parts += [*_replica_lines(engine, is_example=not engines), ""]
    parts += [
        "# Prices are dollars for a million tokens; a batch costs half.",
        "# [[model]]",
        f"# id = {_example_model(engines)}",
        "# input_price = 0.20",
        "# output_price = 0.60",
        "",
    ]
    return "\n".join(parts)


def _replica_lines(engine: LocalEngine, *, is_example: bool) -> list[str]:
    if is_example:
        lines = [
            "# An engine with an OpenAI-compatible API: its address, which ends in /v1, and its",
            '# models; ["*"] stands for all that it lists. Name one before you start the server.',
        ]
        block = ["[[replica]]", f'url = "{engine.url}"', 'models = ["*"]']
        return lines + [f"# {line}" for line in block]
    lines = [f"# Probably {engine.software}. It lists {units.plural(len(engine.models), 'model')}."]
    if engine.needs_key:
        lines = [f"# Probably {engine.software}. It asks for a key: put it into the variable."]
    lines += ["[[replica]]", f'url = "{engine.url}"']
    if engine.needs_key:
        lines.append('api_key_env = "ENGINE_API_KEY"')
    if 0 < len(engine.models) <= _MODELS_LISTED:
        names = ", ".join(quote(model).decode() for model in engine.models)
        lines.append(f"models = [{names}]")
    else:
        lines.append('models = ["*"]')
    return lines


def _example_model(engines: Sequence[LocalEngine]) -> str:
    named = next((engine.models[0] for engine in engines if engine.models), "my-model")
    return quote(named).decode()
