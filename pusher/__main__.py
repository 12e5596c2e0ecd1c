"""Start of the program, as `pusher` and as `python -m pusher`: gevent patches the standard library before all else."""

from gevent import monkey

monkey.patch_all()

import sys

from pusher.commands.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
