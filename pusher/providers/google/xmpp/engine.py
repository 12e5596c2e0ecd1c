"""sleekxmpp as the protocol engine of one connection: stream, SASL, resource binding, cutting the stream into stanzas.

All that is known of the library stands in this module. Its own sockets, TLS, send queue, keep-alive, reconnection and
threads stay unused: it drops the oldest of more than 256 queued stanzas, falls silent after one send error, hangs when
a peer freezes, and does not compare host names. Every way in which it would end or renew a connection ends in
``EngineOwner.failed``; every byte it writes goes through ``EngineOwner.write``; what it would do in threads, the
owner's greenlets do. After the login it sees only stanzas that pusher has no use for.
"""

from __future__ import annotations

import collections
import collections.abc
import logging
import time
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Protocol
from xml.etree import ElementTree
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape, quoteattr

from pusher.providers.budget import Budget, Turns
from pusher.providers.http2.transport import describe

# the library's ordered set derives from this name, which Python 3.10 took away
collections.MutableSet = collections.abc.MutableSet  # type: ignore[attr-defined]
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # "\d" in plain strings, of which newer compilers warn
    from sleekxmpp import ClientXMPP
    from sleekxmpp.xmlstream import xmlstream

# What it reports as an error reaches the owner as well; its lines hold the password and what is sent.
logging.getLogger("sleekxmpp").addHandler(logging.NullHandler())
logging.getLogger("sleekxmpp").propagate = False

#: The name of the service in the stream and in user names, whatever the host connected to.
DOMAIN = "gcm.googleapis.com"
PAYLOAD_NAMESPACE = "google:mobile:data"
_CLIENT = "{jabber:client}"
_PAYLOAD = f"{{{PAYLOAD_NAMESPACE}}}gcm"
_STREAM_ERROR = "{http://etherx.jabber.org/streams}error"
_PING = "{urn:xmpp:ping}ping"
_STANZA_CONDITIONS = "{urn:ietf:params:xml:ns:xmpp-stanzas}"
_NOT_IMPLEMENTED = "<error type='cancel'><feature-not-implemented xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
_STREAM_CONDITIONS = "{urn:ietf:params:xml:ns:xmpp-streams}"
#: SASL conditions (RFC 6120, 6.5) that are not the fault of the credentials.
_NOT_THE_CREDENTIALS = ("temporary-auth-failure", "aborted", "invalid-mechanism", "malformed-request")
_DOCTYPE = b"<!DOCTYPE"
#: Parsed before it is looked whether others should have their turn.
_FEED_BYTES = 4_096
#: Google's stanzas have a few KiB and a few elements; one that does not end must not fill the memory.
MAX_STANZA_BYTES = 1 << 18
MAX_STANZA_ELEMENTS = 1_000
_MAX_DEPTH = 32
#: What a server may send that answers nothing: a read or an element costs one unit, as do so many octets, or so many of
#: an unended token, which the parser looks through again at each read. An answer to a message that waits for one earns
#: what hundreds of ordinary stanzas cost.
_OCTETS_A_UNIT = 500
_OCTETS_AGAIN_A_UNIT = 16_384
_UNITS_PER_S, _MOST_UNITS = 1_000.0, 10_000.0
_EARNED_BY_AN_ANSWER = 100.0
#: Of an error's words, which go into feedbacks and logs.
_MAX_WORDS_CHARACTERS = 500


class LinkError(Exception):
    """A connection cannot be had, or has ended. The text says why in one line."""


class AuthError(LinkError):
    """Google refuses the credentials: trying again will not help until they change."""


class EngineOwner(Protocol):
    """What the engine needs from its connection. None of these methods waits."""

    #: Monotonic seconds of the last stanza.
    received_at: float

    def spawn(self, run: Callable[[], object]) -> None:
        """Runs a part of the engine beside the others."""

    def write(self, data: bytes) -> None:
        """Takes bytes for the server."""

    def logged_in(self) -> None:
        """Messages may be sent."""

    def failed(self, error: LinkError) -> None:
        """The connection cannot continue."""

    def payload(self, text: str | None) -> None:
        """Takes the content of a message; None: it has none."""

    def stanza_error(self, stanza_id: str, condition: str, text: str) -> None:
        """The server refuses a stanza."""


class ByteSource(Protocol):
    """Where the server's bytes come from."""

    def receive(self) -> bytes:
        """The received bytes; b"" at the end. Waits; raises OSError."""


class Inflow:
    """What the library takes for a socket and its file: the server's bytes in pieces whose parsing is short.

    Each piece is paid, and between them others get their turn.
    """

    def __init__(self, source: ByteSource, spend: Callable[[float], None]) -> None:
        self._source: ByteSource | None = source
        self._spend = spend
        self._turns = Turns()

    def makefile(self, *_: object) -> Inflow:
        """The library reads from a file."""
        return self

    def pieces(self) -> Iterator[bytes]:
        """All that comes. Waits; raises OSError, and ``LinkError`` when the server has sent too much for nothing."""
        while self._source is not None and (data := self._source.receive()):
            self._turns.begin()
            self._spend(1.0)
            for start in range(0, len(data), _FEED_BYTES):
                yield data[start : start + _FEED_BYTES]
                self._turns.give_way()

    def parsed(self, octets: int, elements: int, unended_octets: int) -> None:
        """Pays for a piece. Raises ``LinkError``."""
        self._spend(octets / _OCTETS_A_UNIT + elements + unended_octets / _OCTETS_AGAIN_A_UNIT)

    def close(self) -> None:
        """Lets go of the source."""
        self._source = None


class Engine(ClientXMPP):  # type: ignore[misc]  # the library has no types
    """The protocol of one connection, from its first byte to its last. Not to be used again."""

    def __init__(self, user: str, password: str, owner: EngineOwner) -> None:
        super().__init__(f"{user}@{DOMAIN}", password, sasl_mech="PLAIN")
        self.stream_header = (
            f"<stream:stream to='{DOMAIN}' xmlns='jabber:client' "
            "xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>"
        )
        self.auto_reconnect = False
        self.whitespace_keepalive = False
        # the connection is encrypted, of which the library knows nothing
        self["feature_mechanisms"].unencrypted_plain = True
        self._owner = owner
        self._established = False
        self._budget = Budget(_UNITS_PER_S, _MOST_UNITS)
        self.add_event_handler("session_start", self._login_done)
        self.add_event_handler("failed_auth", self._login_refused)
        self.add_event_handler("socket_error", lambda error: owner.failed(connection_failed(error)))

    def start(self, source: ByteSource) -> None:
        """Begins the login on a connection whose TLS is established. Does not wait."""
        self.set_socket(Inflow(source, self._spend))
        self.event("connected", direct=True)
        self.process(block=False)

    def release(self) -> None:
        """Lets go of the connection and wakes whatever waits inside the library."""
        self.set_stop()
        if self.filesocket is not None:
            self.filesocket.close()

    def useful(self) -> None:
        """Notes that the last data answered something."""
        self._budget.earn(_EARNED_BY_AN_ANSWER)

    def _spend(self, units: float) -> None:
        """Raises ``LinkError`` when the server has sent too much that answers nothing."""
        if not self._budget.spend(units):
            raise LinkError("the server floods the connection with stanzas that answer no message")

    # --- what the library calls ---------------------------------------------------------------------------------------
    def incoming_filter(self, xml: Element) -> Element | None:
        """Sees every stanza first; None: it is dealt with."""
        self._owner.received_at = time.monotonic()
        handle = self._STANZAS.get(xml.tag)
        dealt_with = handle is not None and handle(self, xml)
        # the library has a use for what belongs to the login alone
        return None if dealt_with or self._established else xml

    def send_raw(self, data: str, now: bool = False, reconnect: bool | None = None) -> bool:  # noqa: ARG002
        """Everything that the library writes."""
        self._owner.write(data.encode())
        return True

    def disconnect(self, *_args: object, **_options: object) -> None:
        """Where each of its failures ends; a more exact reason was reported before, and the first one counts."""
        self._owner.failed(LinkError("the server closed the connection"))

    reconnect = disconnect

    def exception(self, error: Exception) -> None:
        """Where errors arrive that it met while reading, ours in its callbacks among them."""
        if isinstance(error, LinkError):
            self._owner.failed(error)
        elif isinstance(error, ElementTree.ParseError):
            self._owner.failed(LinkError(f"broken XML from the server: {error}"))
        else:
            failure = LinkError(f"{type(error).__name__}: {error}")
            failure.__cause__ = error
            self._owner.failed(failure)

    def _build_stanza(self, xml: Element | None, default_ns: str | None = None) -> Any:
        return None if xml is None else super()._build_stanza(xml, default_ns)

    def _start_thread(self, name: str, target: Callable[[], object], track: bool = True) -> None:  # noqa: ARG002
        # its sender and its scheduler would have nothing to do
        if name not in ("send_thread", "scheduler_thread"):
            self._owner.spawn(target)

    # --- the login ----------------------------------------------------------------------------------------------------
    def _login_done(self, _event: object) -> None:
        self._established = True
        self.send_raw("<presence xml:lang='en'><show></show><status></status></presence>")
        self._owner.logged_in()

    def _login_refused(self, failure: Any) -> None:
        if not failure:
            self._owner.failed(LinkError("the server offers no login with a password (SASL PLAIN)"))
            return
        condition = failure["condition"]
        kind = LinkError if condition in _NOT_THE_CREDENTIALS else AuthError
        self._owner.failed(kind(f"the server refuses the login: {condition}"))

    # --- stanzas; True: it is dealt with ------------------------------------------------------------------------------
    def _message(self, xml: Element) -> bool:
        if xml.get("type") == "error":
            self._owner.stanza_error(xml.get("id", ""), *_error(xml.find(f"{_CLIENT}error"), _STANZA_CONDITIONS))
        else:
            self._owner.payload(xml.findtext(_PAYLOAD))
        return True

    def _iq(self, xml: Element) -> bool:
        if xml.get("type") == "get" and xml.find(_PING) is not None:
            answer = f"<iq type='result' to={quoteattr(xml.get('from', ''))} id={quoteattr(xml.get('id', ''))}/>"
            self._owner.write(answer.encode())
            return True
        if self._established and xml.get("type") in ("get", "set"):
            # every request has to be answered (RFC 6120, 8.2.3)
            refusal = f"<iq type='error' to={quoteattr(xml.get('from', ''))} id={quoteattr(xml.get('id', ''))}>"
            self._owner.write(f"{refusal}{_NOT_IMPLEMENTED}</iq>".encode())
            return True
        if self._established:
            # an answer to one of our pings; that it came is all that counts
            return True
        if xml.get("type") == "error":
            condition, _ = _error(xml.find(f"{_CLIENT}error"), _STANZA_CONDITIONS)
            self._owner.failed(LinkError(f"the server refuses the session: {condition}"))
        return False

    def _stream_error(self, xml: Element) -> bool:
        condition, text = _error(xml, _STREAM_CONDITIONS)
        self._owner.failed(LinkError(f"stream error: {condition}" + (f" ({text})" if text else "")))
        return True

    _STANZAS: ClassVar[dict[str, Callable[[Engine, Element], bool]]] = {
        f"{_CLIENT}message": _message,
        f"{_CLIENT}iq": _iq,
        _STREAM_ERROR: _stream_error,
    }


def message_stanza(message_id: str, body: bytes) -> bytes:
    """The stanza that carries a JSON text; ``message_id`` is printable text."""
    # two code points that JSON allows in a string and XML nowhere
    text = body.replace(b"\xef\xbf\xbe", b"\\ufffe").replace(b"\xef\xbf\xbf", b"\\uffff")
    text = text.replace(b"&", b"&amp;").replace(b"<", b"&lt;").replace(b">", b"&gt;")
    return b'<message id="%b"><gcm xmlns="google:mobile:data">%b</gcm></message>' % (
        escape(message_id, {'"': "&quot;"}).encode(),
        text,
    )


def _error(xml: Element | None, namespace: str) -> tuple[str, str]:
    """The condition in an error element, and its text on one line."""
    children = [child for child in xml if child.tag.startswith(namespace)] if xml is not None else []
    condition = next((child.tag for child in children if child.tag != f"{namespace}text"), "undefined-condition")
    text = next((child.text or "" for child in children if child.tag == f"{namespace}text"), "")
    return condition.removeprefix(namespace)[:_MAX_WORDS_CHARACTERS], " ".join(text.split())[:_MAX_WORDS_CHARACTERS]


def connection_failed(error: OSError) -> LinkError:
    """The meaning for the link."""
    return LinkError(f"the connection failed: {describe(error)}")


def iterparse(inflow: Inflow, events: tuple[bytes, bytes]) -> Iterator[tuple[Any, Any]]:
    """ElementTree's own, but each piece is parsed at once.

    Since expat 2.6, and in Debian's 2.5, a token cut in two is put off until much more has arrived; of a stream that
    then pauses, the last stanza would never be seen. So what has no end yet is held back here. A document type and with
    it entities are refused (RFC 6120, 11.1), and so is a stanza that does not end.
    """
    pull: Any = ElementTree.XMLPullParser  # with events in bytes: what the library compares with
    parser = pull(events, _parser=ElementTree.XMLParser(encoding="utf-8"))  # noqa: S314  # no entities here
    flush = getattr(parser, "flush", None)  # for what holding back does not do: a > in the value of an attribute
    meter = _Meter(inflow)
    begun = b""
    for piece in inflow.pieces():
        meter.begins(piece)
        whole, end, begun = (begun + piece).rpartition(b">")
        parser.feed(whole + end)
        if flush is not None:
            flush()
        for event, element in parser.read_events():
            meter.saw(event)
            yield event, element
        meter.parsed(piece)


class _Meter:
    """Counts what a stanza has of octets and elements, and has it paid. Its methods raise ``LinkError``."""

    def __init__(self, inflow: Inflow) -> None:
        self._inflow = inflow
        self._prolog = b""
        self._depth = 0
        #: Of the stanza that has begun.
        self._octets = self._elements = 0
        #: Of those that have ended since a piece was paid, less what was paid of one that had begun.
        self._unpaid_elements = 0

    def begins(self, piece: bytes) -> None:
        """Before the piece is parsed."""
        self._octets += len(piece)
        if not self._depth:
            self._prolog += piece
            if _DOCTYPE in self._prolog:
                raise LinkError("a document type from the server, which XMPP does not allow")

    def saw(self, event: bytes) -> None:
        """An element's start or end."""
        if event == b"start":
            self._depth += 1
            self._elements += 1
        else:
            self._depth -= 1
        if self._depth == 1:
            self._unpaid_elements += self._elements
            self._octets = self._elements = 0
        elif self._depth > _MAX_DEPTH:
            raise LinkError(f"elements nested deeper than {_MAX_DEPTH} from the server")

    def parsed(self, piece: bytes) -> None:
        """After it."""
        self._inflow.parsed(len(piece), self._unpaid_elements + self._elements, self._octets)
        self._unpaid_elements = -self._elements
        if self._elements > MAX_STANZA_ELEMENTS:
            raise LinkError(f"a stanza of more than {MAX_STANZA_ELEMENTS} elements from the server")
        if self._octets > MAX_STANZA_BYTES:
            raise LinkError(f"a stanza of more than {MAX_STANZA_BYTES} bytes from the server")


xmlstream.ET = types.SimpleNamespace(iterparse=iterparse)
