"""`python -m lowtide`: the command line."""

import sys

from lowtide.cli.app import main

sys.exit(main())
