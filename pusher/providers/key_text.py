r"""Keys and certificates as settings hold them: the path of a file, the text itself, or the base64 of the file.

Secrets of Kubernetes and variables of containers hold texts, often with ``\n`` written out or a line end at the end.
Nothing here shows any of a value that is not plainly a path.
"""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path

from pusher.config.kinds import is_path
from pusher.errors import CredentialError

_BASE64 = re.compile(r"[A-Za-z0-9+/_\s-]{40,}={0,2}\s*")
_MAX_PATH_CHARACTERS = 4_096
_PEM, _JSON, _DER = b"-----BEGIN", b"{", b"\x30"


def described(value: str) -> str:
    """How an error may describe a value: by its path, or as a text."""
    text = value.strip()
    return text if is_path(text) else "the text that is given"


def content(value: str, what: str) -> bytes:
    """The bytes of a value's key or file: PEM, DER or JSON. ``what`` names it in errors, such as "the key".

    Reads a file. Raises ``CredentialError`` where it is neither a text of one of these kinds nor a file.
    """
    text = value.strip()
    if text.startswith(_JSON.decode()):
        # a line end that is written out may belong to a string in it
        return text.encode("utf-8", "replace")
    plain = text.replace("\\r", "").replace("\\n", "\n").encode("utf-8", "replace")
    if _PEM in plain:
        return plain
    return _from_file(text, what) or _from_base64(text) or _neither(text, what)


def _from_file(text: str, what: str) -> bytes:
    if not text.isprintable() or not 0 < len(text) <= _MAX_PATH_CHARACTERS:
        return b""
    try:
        return Path(text).expanduser().read_bytes()
    except OSError as error:
        if not is_path(text):
            return b""
        raise CredentialError(f"cannot read {what} {text}: {error.strerror}") from None


def _from_base64(text: str) -> bytes:
    if _BASE64.fullmatch(text) is None:
        return b""
    try:
        octets = base64.b64decode("".join(text.split()).replace("-", "+").replace("_", "/"), validate=True)
    except binascii.Error:
        return b""
    return octets if octets.lstrip().startswith((_PEM, _JSON, _DER)) or _PEM in octets else b""


def _neither(text: str, what: str) -> bytes:
    where = f" {text}" if is_path(text) else ""
    raise CredentialError(f"{what}{where} is neither a key or certificate, as text or base64, nor the path of a file")
