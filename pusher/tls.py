"""What a server's certificate is checked against. It is always checked."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from pusher.errors import CredentialError


@dataclass(frozen=True)
class TlsTrust:
    """The system's authorities, and besides them those of a PEM file; "" leaves a file out.

    Revocation is checked only where ``crl_file`` names a list: the providers' own authorities are not asked.
    """

    ca_file: str = ""
    crl_file: str = ""

    def context(self, alpn: str = "") -> ssl.SSLContext:
        """A client context: TLS 1.2 or later, name and chain verified. Raises ``CredentialError``."""
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
