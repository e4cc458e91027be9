"""Turns what a person writes after `--model` into a GGUF file on this machine.

Called by `wiring` before the embedded engine starts. Understands `demo`, `random`, the path of a
.gguf file, and a hub id (`org/name`, or `org/name:` with a file or quantisation). Invariant: a
model that is returned is a file that exists with all of its parts; everything else is a
ModelSourceError that says what was looked for and what to do.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from lowtide.engines.embedded.gguf_header import GgufError, read_header
from lowtide.engines.models import demo_model, random_model
from lowtide.engines.models.hub import Hub, HuggingFaceHub, ModelSourceError

__all__ = ["ModelSourceError", "ResolvedModel", "resolve_model"]

_HUB_ID: Final = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?::(?P<wanted>[^:]+))?")
_PART: Final = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})$")

# Best first: Q4_K_M is where the loss is still hard to notice and the size a third of the original.
_QUANTS: Final = (
    "Q4_K_M", "Q4_K_S", "Q4_K_XL", "Q5_K_M", "Q4_0", "IQ4_XS", "IQ4_NL", "Q4_1", "Q5_K_S",
    "Q5_0", "Q6_K", "Q8_0", "Q3_K_L", "Q3_K_M", "Q3_K_S", "MXFP4", "BF16", "F16", "Q2_K", "F32",
)  # fmt: skip
_SIDE_FILES: Final = ("mmproj", "imatrix")  # GGUF files that are no language models


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """`path` is the file to load, the first part of a split model.

    `context_tokens` is a hint for the engine; None leaves it to the engine's default.
    """

    path: Path
    model_id: str
    context_tokens: int | None = None


def resolve_model(spec: str, cache_dir: Path, *, hub: Hub | None = None) -> ResolvedModel:
    """Finds or fetches the model that `spec` names. May download for a long time: call it in a
    thread.

    `cache_dir` holds what Lowtide itself keeps: `random`, and `demo`, which `demo_model.fetch` has
    brought there; the hub keeps its own cache.
    Raises ModelSourceError.
    """
    path = _expanded(spec)
    if spec == demo_model.MODEL_ID:
        return _demo(cache_dir)
    if spec == random_model.MODEL_ID:
        return _random(cache_dir)
    if path.is_file():
        return _local(path)
    if path.is_dir():
        raise _ambiguous_folder(path)
    named = _HUB_ID.fullmatch(spec)
    if named is None or (named["wanted"] is None and path.suffix.lower() == ".gguf"):
        raise ModelSourceError(
            "model_not_found",
            f"no model {spec!r}: looked for the file {path.absolute()}. Give the path of a .gguf"
            " file, a hub id such as org/name or org/name:Q4_K_M, or demo",
        )
    return _from_hub(named["repo"], named["wanted"], hub or HuggingFaceHub())


def _expanded(spec: str) -> Path:
    """`~` stays as it is for a user who has no home folder."""
    try:
        return Path(spec).expanduser()
    except RuntimeError:
        return Path(spec)


def _demo(cache_dir: Path) -> ResolvedModel:
    path = demo_model.find(cache_dir)
    if path is None:
        raise ModelSourceError(
            "model_not_found",
            f"the demo model is not on this machine: {demo_model.INSTEAD}",
        )
    return ResolvedModel(path, demo_model.MODEL_ID, demo_model.CONTEXT_TOKENS)


def _random(cache_dir: Path) -> ResolvedModel:
    path = cache_dir / random_model.FILE_NAME
    try:
        random_model.random_model(path)
    except OSError as exc:
        raise ModelSourceError(
            "model_not_found", f"cannot write the random model to {path}: {exc.strerror}"
        ) from exc
    return ResolvedModel(path, random_model.MODEL_ID, random_model.CONTEXT_TOKENS)


def _local(path: Path) -> ResolvedModel:
    parts = _parts_of(path.name)
    missing = [name for name in parts if not path.with_name(name).is_file()]
    if missing:
        raise ModelSourceError(
            "model_not_found", f"{path} is one part of a model, and {missing[0]} is not beside it"
        )
    first = path.with_name(parts[0])
    try:
        read_header(first)
    except (GgufError, OSError) as exc:
        raise ModelSourceError("model_not_gguf", f"{first} is not a GGUF model: {exc}") from exc
    return ResolvedModel(first, _stem(first.name))


def _ambiguous_folder(path: Path) -> ModelSourceError:
    names = _listed(child.name for child in path.glob("*.gguf"))
    return ModelSourceError(
        "model_ambiguous", f"{path} is a folder: name the .gguf file in it ({names})"
    )


def _from_hub(repo_id: str, wanted: str | None, hub: Hub) -> ResolvedModel:
    models = _models_in(hub.files(repo_id))
    if not models:
        raise ModelSourceError(
            "model_not_found",
            f"{repo_id} holds no .gguf file: look for a repository whose name ends in -GGUF",
        )
    chosen = _choose(models, wanted)
    if chosen is None:
        raise ModelSourceError(
            "model_not_found",
            f"{repo_id} holds no file or quantisation {wanted!r}; it has {_listed(models)}",
        )
    paths = [hub.fetch(repo_id, name) for name in _parts_of(chosen)]
    return ResolvedModel(paths[0], repo_id)


def _models_in(names: Iterable[str]) -> list[str]:
    """The language models among `names`: a split one is there once, by its first part."""
    models = []
    for name in names:
        file = PurePosixPath(name)
        is_side_file = any(word in file.name.lower() for word in _SIDE_FILES)
        if file.suffix.lower() == ".gguf" and not is_side_file and _parts_of(name)[0] == name:
            models.append(name)
    return sorted(models)


def _choose(models: list[str], wanted: str | None) -> str | None:
    """The file a person means by `wanted` (a path, a file name or a quantisation), or the best."""
    if wanted is None:
        return min(models, key=lambda name: (_quant_rank(name), len(name), name))
    exact = [name for name in models if wanted in (name, PurePosixPath(name).name)]
    quants = [name for name in models if _names_quant(name, wanted)]
    return min(exact or quants, key=len, default=None)


def _quant_rank(name: str) -> int:
    ranks = (rank for rank, quant in enumerate(_QUANTS) if _names_quant(name, quant))
    return min(ranks, default=len(_QUANTS))


def _names_quant(name: str, quant: str) -> bool:
    """Whether `quant` stands at the end of the name or before a dash or dot, as a whole word."""
    pattern = rf"(^|[-._/]){re.escape(quant)}($|[-./])"
    return re.search(pattern, name, re.IGNORECASE) is not None


def _parts_of(name: str) -> list[str]:
    """All part names of a split model, given any one of them; a whole model is its only part."""
    suffix = PurePosixPath(name).suffix
    part = _PART.match(name.removesuffix(suffix))
    if part is None:
        return [name]
    count = int(part["count"])
    return [f"{part['stem']}-{i:05d}-of-{count:05d}{suffix}" for i in range(1, count + 1)]


def _stem(name: str) -> str:
    stem = PurePosixPath(name).stem
    part = _PART.match(stem)
    return part["stem"] if part else stem


def _listed(names: Iterable[str], most: int = 8) -> str:
    ordered = sorted(names)
    shown = ", ".join(ordered[:most]) or "none here"
    return shown if len(ordered) <= most else f"{shown} and {len(ordered) - most} more"
