"""An additional command of a provider, a plug-in of the group ``pusher.commands``."""

from __future__ import annotations

from typing import NamedTuple


class ProviderCommand(NamedTuple):
    """Its row in ``pusher --help``. Functions are named ``module:function``, so that nothing is imported before.

    ``run`` gets the arguments and the settings and returns the exit code, ``arguments`` gets argparse's parser.
    """

    text: str
    run: str
    arguments: str
