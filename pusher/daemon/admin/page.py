"""The status page: one HTML file that loads nothing but its data. Its policy lets the browser run this script only."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib import resources

PAGE = (resources.files("pusher.daemon.admin") / "page.html").read_bytes()


def _hash(tag: bytes) -> str:
    """Of the text of the page's only element of this name, as Content-Security-Policy wants it."""
    found = re.search(b"<%s>(.*?)</%s>" % (tag, tag), PAGE, re.DOTALL)
    if found is None:
        raise ValueError(f"page.html has no {tag.decode()}")
    return "'sha256-" + base64.b64encode(hashlib.sha256(found[1]).digest()).decode() + "'"


_POLICY = (
    f"default-src 'none'; script-src {_hash(b'script')}; style-src {_hash(b'style')}; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
PAGE_HEADERS = (("Content-Security-Policy", _POLICY), ("Referrer-Policy", "no-referrer"))
