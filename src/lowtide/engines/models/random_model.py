"""The random model on disk: written on first use, so that tests need no download at all.

Called by source.py for `--model random`. What is in the file, and why its text is noise, is told
in `random_recipe`. Invariant: `path` is either absent or a whole model, even while another
process writes it.
"""

import os
import tempfile
from pathlib import Path
from typing import Final

MODEL_ID: Final = "random"
CONTEXT_TOKENS: Final = 8192  # one token per byte: a prompt of some thousand characters fits
FILE_NAME: Final = "random-v1.gguf"  # a new recipe takes a new name and never meets an old file
FILE_BYTES: Final = 419_360


def random_model(path: Path) -> Path:
    """Writes the random model to `path` unless an intact copy is there; returns `path`.

    The write is atomic (temporary file, then rename): several processes may do this at once.
    Raises OSError when the folder cannot be written.
    """
    if _is_intact(path):
        return path
    # Here, so that every later start is spared the import of numpy and gguf.
    from lowtide.engines.models.random_recipe import write_random

    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    os.close(handle)
    try:
        write_random(Path(temporary), CONTEXT_TOKENS)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return path


def _is_intact(path: Path) -> bool:
    """Whether a whole random model is there. Its size is enough: the name says which recipe."""
    try:
        return path.stat().st_size == FILE_BYTES
    except FileNotFoundError:
        return False
