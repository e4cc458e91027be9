"""`python -m testkit.demo.shifted_command SECONDS ARGUMENTS`: `lowtide ARGUMENTS` in the past.

The wall clock of the process is behind by that many seconds, so that a server writes rows of an
earlier day. Nothing else differs. Only `testkit.demo.past` starts it.
"""

import sys
from datetime import UTC, datetime, timedelta

from lowtide import system
from lowtide.cli.app import main as command_line


def main() -> int:
    """Runs the command line of Lowtide with that clock."""
    behind = timedelta(seconds=float(sys.argv.pop(1)))

    def now(self: system.SystemClock) -> datetime:  # noqa: ARG001 - a method
        return datetime.now(UTC) - behind

    system.SystemClock.now = now  # type: ignore[method-assign]
    return command_line()


if __name__ == "__main__":
    sys.exit(main())
