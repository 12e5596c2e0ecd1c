"""Start of the program from the source tree."""

import sys

from pusher.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
