"""`python -m lowtide.cli`: the same as the command `lowtide`."""

import sys

from lowtide.cli.app import main

sys.exit(main())
