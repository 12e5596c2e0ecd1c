"""Builds the unmodified sleekxmpp 1.3.3 from the package index on Python versions that it does not know.

Its setup.py imports the library, and the library's ordered set is a ``collections.MutableSet``, a name that Python
3.10 took away; upstream is archived. So this PEP 517 backend lets pip fetch the source distribution, check its hash and
build it, while a ``sitecustomize`` restores that one name in the processes of the build. Nothing of sleekxmpp is kept
here, and nothing in it is changed; what it needs at run time is in ``pusher/providers/google/xmpp/engine.py``.

The inner pip takes index, proxies and certificates from the environment and pip's configuration files, as the outer one
does. Options on the outer command line (``pip install -i ...``) do not reach it: use ``PIP_INDEX_URL``.

The library's optional dependencies (dnspython, pyasn1) are for a DNS look-up and certificate checks that pusher does
itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

REQUIREMENT = "sleekxmpp==1.3.3 --hash=sha256:d213c1de71d92505f95ced0460ee0f84fdc4ddcacb7d7dd343739ed4028e5569\n"
RESTORED_NAME = "import collections, collections.abc\ncollections.MutableSet = collections.abc.MutableSet\n"
PIP_WHEEL = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-binary=:all:")


def build_wheel(
    wheel_directory: str,
    config_settings: dict[str, str] | None = None,  # noqa: ARG001 - the hook's signature, PEP 517
    metadata_directory: str | None = None,  # noqa: ARG001
) -> str:
    """Puts the wheel into a directory and returns its name. Waits for the download and the build."""
    with tempfile.TemporaryDirectory() as directory:
        requirement = Path(directory, "requirement.txt")
        requirement.write_text(REQUIREMENT)
        Path(directory, "sitecustomize.py").write_text(RESTORED_NAME)
        subprocess.run(
            [*PIP_WHEEL, "--require-hashes", "-r", str(requirement), "-w", wheel_directory],
            env=dict(os.environ, PYTHONPATH=os.pathsep.join([directory, *filter(None, sys.path)])),
            check=True,
        )
    return next(Path(wheel_directory).glob("sleekxmpp-*.whl")).name
