"""The account of an app at Google's XMPP service, proven before it becomes part of the protocol.

The sender id is the local part of the address ``<sender id>@gcm.googleapis.com`` (RFC 7622, 3.3), the server key the
password of SASL PLAIN (RFC 4616). Google's sender ids are numbers; any visible ASCII that an address may have is taken,
because other servers speak the protocol as well.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from pusher.errors import CredentialError

#: What RFC 7622, 3.3.1, excludes from a local part is left out.
_NOT_IN_AN_ADDRESS = re.compile(r"""[^!#$%()*+,\-.0-9;=?A-Z\[\]^_`a-z{|}~]""")
#: RFC 7622, 3.3.
_MAX_SENDER_ID_OCTETS = 1_023
#: Google's keys have up to some 200 characters.
_MAX_API_KEY_CHARACTERS = 4_096


class XmppAccount(NamedTuple):
    """The account with which an app logs in."""

    sender_id: str
    api_key: str


def account(app: str, sender_id: str, api_key: str) -> XmppAccount:
    """The account without the white space around its parts. Raises ``CredentialError``, which shows nothing of them."""
    sender_id, api_key = sender_id.strip(), api_key.strip()
    fault = sender_id_fault(sender_id)
    if fault:
        raise CredentialError(f"gcm.certs.{app}.senderID {fault}: set the number that Firebase shows as sender ID")
    fault = api_key_fault(api_key)
    if fault:
        raise CredentialError(f"gcm.certs.{app}.apiKey {fault}: set the server key as one line")
    return XmppAccount(sender_id, api_key)


def sender_id_fault(sender_id: str) -> str:
    """Why a text cannot be a sender id; "" if it can."""
    if not sender_id:
        return "is empty"
    wrong = _NOT_IN_AN_ADDRESS.search(sender_id)
    if wrong is not None:
        return f"has {wrong[0]!a} in it, which is not allowed in a sender id"
    return "is too long" if len(sender_id) > _MAX_SENDER_ID_OCTETS else ""


def api_key_fault(api_key: str) -> str:
    """Why a text cannot be a server key; "" if it can."""
    if not api_key:
        return "is empty"
    if not api_key.isprintable():
        return "has characters in it that cannot be printed"
    return "is too long" if len(api_key) > _MAX_API_KEY_CHARACTERS else ""
