"""Takes out of a sentence what tenants are not to see: addresses, paths, credentials.

Pure; called where an engine's or the system's own words go into a `public_reason`. Invariant: what
is left names no host, no IP address, no file and no URL, whatever went in; words about the fault
stay. It errs on the side of taking out.
"""

import re
from typing import Final

PLACE: Final = "(address)"
"""Stands where something was taken out."""

_PLACES: Final = re.compile(
    r"""
    [a-z][a-z0-9+.-]*://[^\s'",;)\]}>]*            # a URL, credentials included
    | \('[^']*',\s*\d+(?:,\s*\d+)*\)               # the address that an OSError shows: ('::1', 9)
    | (?<!\w)\[?(?=[0-9a-f:.]*::|(?:[0-9a-f]{1,4}:){7})      # IPv6
      (?:[0-9a-f]{0,4}:){2,7}[0-9a-f.]{0,15}\]?(?::\d+)?
    | \b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b         # IPv4
    | \b(?:[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?\.)+[a-z]{2,}(?::\d+)?\b   # a host with a domain
    | \b(?=[0-9_-]*[a-z])[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?:\d{2,5}\b   # a host with a port
    | (?<![\w.])(?:~|\.{1,2})?/[^\s'",;)\]}>]+      # a path
    | \b[a-z]:\\[^\s'",;)\]}>]+                    # a path of Windows
    """,
    re.VERBOSE | re.IGNORECASE,
)


def without_places(text: str) -> str:
    """`text` with each address and path replaced."""
    return _PLACES.sub(PLACE, text)
