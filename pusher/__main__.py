"""Start of the program, as `pusher`, as `python -m pusher` and from pusher.py.

The order matters: signals are handled from here on, descriptors 0 to 2 exist before anything opens one, and gevent
patches the standard library before anything else is imported.
"""

import sys
import warnings

from pusher.daemon import early

early.take_signals()
early.open_standard_descriptors()
# A library's deprecation stops nothing, whatever PYTHONWARNINGS or -W say, and is nothing that an operator can act on.
warnings.simplefilter("default")
warnings.simplefilter("ignore", DeprecationWarning)
warnings.simplefilter("ignore", PendingDeprecationWarning)
if sys.flags.optimize:
    sys.stderr.write("pusher: python -O (PYTHONOPTIMIZE) leaves out checks that its libraries need\n")
    sys.exit(2)

from gevent import monkey

monkey.patch_all()

from pusher.commands.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
