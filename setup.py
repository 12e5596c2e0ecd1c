import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def version() -> str:
    """The one that `pusher version` prints."""
    text = (HERE / "pusher" / "__init__.py").read_text()
    found = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    if found is None:
        raise SystemExit("pusher/__init__.py does not say __version__")
    return found.group(1)


def requirements() -> list[str]:
    """What requirements.txt pins by name. A wheel cannot name a path: what lies in this tree becomes an extra."""
    lines = (line.split("#", maxsplit=1)[0].strip() for line in (HERE / "requirements.txt").read_text().splitlines())
    return [line for line in lines if line and not line.startswith((".", "-"))]


#: Not the command line itself: gevent must patch the standard library before that is imported.
COMMAND = """
[console_scripts]
pusher = pusher.__main__:main
"""

setup(
    name="pusher",
    version=version(),
    description="Sends push notifications from Kafka to Apple and Google and publishes every outcome",
    packages=find_packages(include=["pusher", "pusher.*"]),
    package_data={"pusher": ["py.typed"], "pusher.config": ["doors.ini"], "pusher.daemon.admin": ["page.html"]},
    python_requires=">=3.11",
    install_requires=requirements(),
    # The package index has no sleekxmpp that builds on Python >= 3.10; packaging/sleekxmpp makes a wheel of it. Without
    # it everything runs but GCM over XMPP, which says so.
    extras_require={"xmpp": ["sleekxmpp==1.3.3"]},
    # not pusher.commands.cli itself: gevent must patch the standard library before that is imported
    entry_points={"console_scripts": ["pusher = pusher.__main__:main"]},
)
