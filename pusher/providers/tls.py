"""The trust with which a server's certificate is verified. It is always verified."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pusher.errors import CredentialError

#: Of each file whether it is there, and what changes with its content.
Files = tuple[tuple[int, ...] | None, ...]


@dataclass(frozen=True)
class TlsTrust:
    """The system's authorities, and besides them those of a PEM file; "" leaves a file out.

    Revocation is checked only where ``crl_file`` names a list: the providers' own authorities are not asked.
    """

    ca_file: str = ""
    crl_file: str = ""

    def context(self, alpn: str = "") -> ssl.SSLContext:
        """A client context: TLS 1.2 or later, name and chain verified. Raises ``CredentialError``.

        One for all that trust the same, until a file changes: reading the system's authorities takes 30 ms of CPU and
        some 800 KB, too much for each connection of each app. It is not to be changed.
        """
        return _shared_context(self, alpn, self.files())

    def new_context(self, alpn: str = "") -> ssl.SSLContext:
        """The same as ``context``, for who will change it."""
        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if alpn:
            context.set_alpn_protocols([alpn])
        for file in filter(None, (self.ca_file, self.crl_file)):
            try:
                context.load_verify_locations(cafile=file)
            except OSError as error:
                raise CredentialError(f"cannot read {file}: {error.strerror or error}") from None
        if self.crl_file:
            context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
        return context

    def files(self) -> Files:
        """Differs when one of the files that a context is made of, the system's included, has changed."""
        return tuple(_state(file) for file in (ssl.get_default_verify_paths().cafile, self.ca_file, self.crl_file))


def _state(file: str | None) -> tuple[int, ...] | None:
    try:
        found = Path(file or "").stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


@lru_cache(maxsize=8)
def _shared_context(trust: TlsTrust, alpn: str, _files: Files) -> ssl.SSLContext:
    return trust.new_context(alpn)
