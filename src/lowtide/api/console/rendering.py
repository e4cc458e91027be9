"""Templates to HTML. Guards: whatever comes from a file, a model, an engine or a user is text.

Jinja2 escapes every value, and `shown` makes visible what a browser would obey or hide: control
characters and those that turn the direction of text. Pages hold no inline script and no inline
style, so that the policy in `session_guard` needs no exception.

Compiled templates are kept, as Python keeps compiled modules: compiling all takes a fifth of a
second of the processor, in which other calls of the process wait a few milliseconds again and
again. An image is built with them (deploy/Dockerfile), for each of its containers starts anew.
"""

import re
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemBytecodeCache, PackageLoader, StrictUndefined
from jinja2.bccache import Bucket
from markupsafe import Markup

from lowtide.api.console import formats
from lowtide.api.objects.line_faults import by_fault, lines_of
from lowtide.core.reporting.bound_words import bound_words

_HIDDEN: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]"
)


def shown(value: Any) -> Any:
    """The value as a template shows it: its hidden characters are spelled as `\\u202e`."""
    if value is None:
        return ""
    if isinstance(value, str) and not isinstance(value, Markup):
        return _HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", value)
    return value


_IN_PACKAGE: Final = Path(__file__).parent / "templates" / "__pycache__"


class KeptBytecode(FileSystemBytecodeCache):
    """Keeps compiled templates beside the templates, where `keep_in_package` has put them; else
    where jinja2 does by default: in a folder of the system's temporary one that no other user may
    write. Where a folder cannot be written, nothing is kept."""

    def dump_bytecode(self, bucket: Bucket) -> None:
        with suppress(OSError):  # the disk is full, or a cleaner took the folder
            super().dump_bytecode(bucket)


def _kept_bytecode() -> KeptBytecode | None:
    """None: no folder is this user's alone, or Python is to keep no bytecode."""
    if _IN_PACKAGE.is_dir():
        return KeptBytecode(str(_IN_PACKAGE))
    if sys.dont_write_bytecode:
        return None
    try:
        return KeptBytecode()
    except (OSError, RuntimeError):
        return None


@cache
def environment() -> Environment:
    """The templates of this package. `{{ value }}` is escaped and passes `shown`."""
    made = Environment(
        loader=PackageLoader("lowtide.api.console"),
        autoescape=True,
        finalize=shown,
        undefined=StrictUndefined,
        auto_reload=False,  # else each use asks the disk whether the file has changed
        trim_blocks=True,
        lstrip_blocks=True,
        bytecode_cache=_kept_bytecode(),
    )
    for name in formats.FILTERS:
        made.filters[name] = getattr(formats, name)
    made.filters |= {"bound_words": bound_words, "by_fault": by_fault, "lines_of": lines_of}
    return made


def render(template: str, context: dict[str, Any]) -> str:
    """The HTML of one template."""
    return environment().get_template(template).render(context)


def compile_templates() -> None:
    """Compiles those templates that are not kept, which a page would otherwise do by itself."""
    templates = environment()
    for name in templates.list_templates(extensions=["html"]):
        templates.get_template(name)


def keep_in_package() -> None:
    """Compiles all templates into the package, for who builds an image. Raises OSError."""
    _IN_PACKAGE.mkdir(exist_ok=True)
    environment.cache_clear()
    compile_templates()
    for kept in _IN_PACKAGE.iterdir():
        kept.chmod(0o644)  # readable for the user that the image runs as
