"""`python -m blip.cli` is the command `blip`."""

import sys

from blip.cli.program import main

if __name__ == "__main__":
    sys.exit(main())
