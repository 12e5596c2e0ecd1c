"""Start of the program from the source tree: gevent patches the standard library before all else."""

from gevent import monkey

monkey.patch_all()

import sys

from pusher.commands.cli import main

if __name__ == "__main__":
    sys.exit(main())
