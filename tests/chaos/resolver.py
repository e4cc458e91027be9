"""`lowtide` with names of its own: `python resolver.py serve --config FILE`.

The variable CHAOS_NAMES says which (JSON, the addresses of each name, in the order in which a
resolver gives them). All other names are asked of the system.
"""

import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from lowtide.cli.app import main as command
from lowtide.engines.http.connect import Address, Dialer, Resolve

NAMES_VARIABLE: Final = "CHAOS_NAMES"


def resolver_of(names: Mapping[str, Sequence[str]], system: Resolve) -> Resolve:
    """As `system` does, but for `names`, which are of IPv4."""

    async def resolve(host: str, port: int) -> Sequence[Address]:
        if host not in names:
            return await system(host, port)
        return [(socket.AF_INET, (address, port)) for address in names[host]]

    return resolve


def main() -> int:
    defaults = Dialer.__init__.__kwdefaults__
    assert defaults is not None
    names = json.loads(os.environ[NAMES_VARIABLE])
    defaults["resolve"] = resolver_of(names, defaults["resolve"])
    return command(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
