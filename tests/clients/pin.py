"""Resolve each client into its hashed requirement file. Needs uv.

    python tests/clients/pin.py [NAME ...]

Versions that still fit are kept. Where packages come from is not written down.
"""

import subprocess
import sys

from clients import CLIENTS, Client

OVERRIDES = "certifi>=2026.10.18\n"
"""Some clients demand the certifi of the very day of their release, which package mirrors that lag
behind do not have yet. Against 127.0.0.1 any will do."""


def pin(client: Client) -> None:
    """Write the client's requirement file; raises CalledProcessError with uv's words on stderr."""
    overrides = client.pins.with_suffix(".overrides")
    sources = client.pins.with_suffix(".in")
    overrides.write_text(OVERRIDES)
    sources.write_text(client.requires + "\n")
    try:
        subprocess.run(
            ["uv", "pip", "compile", str(sources), "--overrides", str(overrides), "--quiet",
             "--universal", "--python-version", "3.11", "--generate-hashes", "--no-annotate",
             "--no-header", "--no-emit-index-url", "--no-emit-find-links",
             "--output-file", str(client.pins)],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    finally:
        overrides.unlink()
        sources.unlink()


if __name__ == "__main__":
    for each in CLIENTS:
        if not sys.argv[1:] or each.name in sys.argv[1:]:
            pin(each)
            print(each.pins.name)
