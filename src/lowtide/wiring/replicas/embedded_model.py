"""What the command line says of the model that a process serves from an engine of its own."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EmbeddedModel:
    """A model to serve from this process's own engine. None stands for a good choice.

    `spec` is `demo`, `random`, a path to a GGUF file, or a hub id. `aliases` are further names
    that requests may call it by.
    """

    spec: str
    slots: int | None = None
    threads: int | None = None
    aliases: tuple[str, ...] = ()
