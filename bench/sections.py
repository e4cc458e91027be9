"""The sections of RESULTS.md: what a benchmark writes anew, and what people have written beside it.

Invariant: nothing that a person wrote is lost. A section that is not written anew stays as it is,
and of one that is, all that stands behind the line `BY_HAND`.
"""

import re
from typing import Final

BY_HAND: Final = "<!-- by hand -->"
_HEADING: Final = re.compile(r"^## .*$", re.MULTILINE)


def merged(old: str, new: str) -> str:
    """The document `old` with the sections of `new` in the place of those with their headings; the
    others of `new` at the end. What stands before the first section is that of `new`, if any.
    """
    old_start, old_sections = _split(old)
    new_start, new_sections = _split(new)
    found = [new_start.strip() or old_start.strip()]
    for heading, body in old_sections.items():
        if heading in new_sections:
            _, mark, by_hand = body.partition(BY_HAND)
            body = new_sections.pop(heading).strip()
            if mark:
                body += f"\n\n{BY_HAND}\n\n{by_hand.strip()}"
        found.append(f"{heading}\n\n{body.strip()}")
    found += [f"{heading}\n\n{body.strip()}" for heading, body in new_sections.items()]
    return "\n\n".join(each for each in found if each) + "\n"


def _split(text: str) -> tuple[str, dict[str, str]]:
    """What stands before the first section, and the bodies by heading."""
    headings = list(_HEADING.finditer(text))
    ends = [*(each.start() for each in headings), len(text)]
    sections = {
        each[0].strip(): text[each.end() : end]
        for each, end in zip(headings, ends[1:], strict=True)
    }
    return text[: ends[0]], sections
