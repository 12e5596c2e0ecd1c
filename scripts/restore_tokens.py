"""Brings back what the listener has deleted: the same as `python pusher.py restore`."""

from gevent import monkey

monkey.patch_all()

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from pusher.commands.cli import main

if __name__ == "__main__":
    sys.exit(main(["restore", *sys.argv[1:]]))
