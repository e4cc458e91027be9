"""docs/reference/python.md: the public names of `import lowtide`, from signatures and docstrings.

Read by generated_docs.py.
"""

import inspect
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, Final

_NEW_LINE_ABOVE: Final = 88  # characters of a signature
_MODULES: Final = (
    "collections.abc.", "typing.", "lowtide.client.objects.", "datetime.", "decimal."
)  # fmt: skip


def python_page(made: str) -> str:
    """Functions, clients, what they give out, and what they raise."""
    import lowtide

    parts = [
        "# Python",
        made,
        "What `import lowtide` gives. All of it has types (`py.typed`), and is loaded when it is"
        " first used. [How to use it](../how-to/python.md)",
    ]
    for name in sorted(lowtide.__all__, key=lambda each: (not each.islower(), each)):
        if name == "__version__":
            continue
        thing = getattr(lowtide, name)
        parts += list(_class(name, thing) if inspect.isclass(thing) else _function(name, thing))
    return "\n\n".join(parts) + "\n"


def _function(name: str, thing: Any) -> Iterator[str]:
    yield f"## `{name}`"
    yield _block("python", _signature(name, thing))
    yield _block("text", inspect.getdoc(thing) or "")


def _class(name: str, thing: type) -> Iterator[str]:
    yield f"## `{name}`"
    yield _words(thing)
    if is_dataclass(thing):
        listed = "\n".join(f"{field.name}: {_type(field.type)}" for field in fields(thing))
        yield _block("python", listed)
    else:
        yield _block("python", _signature(name, thing))
        if words := getattr(vars(thing).get("__init__"), "__doc__", None):
            yield _paragraphs(words)
    for member, value in vars(thing).items():
        if member.startswith("_") or (not isinstance(value, property) and not callable(value)):
            continue
        if isinstance(value, property):
            yield f"**`.{member}`** {_words(value)}"
        else:
            yield _block("python", _signature(member, value))
            yield _words(value) or f"As `{name.removeprefix('Async')}.{member}`."


def _words(thing: Any) -> str:
    return _paragraphs(inspect.getdoc(thing) or "")


def _paragraphs(text: str) -> str:
    """Each on a line."""
    return "\n\n".join(" ".join(each.split()) for each in inspect.cleandoc(text).split("\n\n"))


def _block(kind: str, text: str) -> str:
    return f"```{kind}\n{text}\n```"


def _signature(name: str, thing: Any) -> str:
    """One line, or a line for each argument."""
    signature = inspect.signature(thing)
    named = [each for each in signature.parameters.values() if each.name != "self"]
    shown = [_parameter(each) for each in named]
    first = next((n for n, each in enumerate(named) if each.kind is each.KEYWORD_ONLY), None)
    if first is not None:
        shown.insert(first, "*")
    arrow = ""
    if signature.return_annotation is not signature.empty and not inspect.isclass(thing):
        arrow = f" -> {_type(signature.return_annotation)}"
    prefix = "async def " if inspect.iscoroutinefunction(thing) else "def "
    prefix = "class " if inspect.isclass(thing) else prefix
    line = f"{prefix}{name}({', '.join(shown)}){arrow}"
    if len(line) <= _NEW_LINE_ABOVE:
        return line
    return f"{prefix}{name}(\n" + "".join(f"    {each},\n" for each in shown) + f"){arrow}"


def _parameter(parameter: inspect.Parameter) -> str:
    stars = "**" if parameter.kind is parameter.VAR_KEYWORD else ""
    kind = "" if parameter.annotation is parameter.empty else f": {_type(parameter.annotation)}"
    if parameter.default is parameter.empty:
        return f"{stars}{parameter.name}{kind}"
    default = getattr(parameter.default, "__name__", None)
    return f"{parameter.name}{kind} = {default or repr(parameter.default)}"


def _type(annotation: Any) -> str:
    if isinstance(annotation, str):
        return annotation
    if annotation is None or annotation is type(None):
        return "None"
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    for module in _MODULES:
        text = text.replace(module, "")
    return text
