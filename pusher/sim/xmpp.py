"""An XMPP stream as a server sees it: bytes in, stanzas out (RFC 6120), and the few stanzas a server writes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

CLIENT = "jabber:client"
STREAMS = "http://etherx.jabber.org/streams"
SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
BIND = "urn:ietf:params:xml:ns:xmpp-bind"
PING = "urn:xmpp:ping"
STANZAS = "urn:ietf:params:xml:ns:xmpp-stanzas"
STREAM_ERRORS = "urn:ietf:params:xml:ns:xmpp-streams"
PAYLOAD = "google:mobile:data"


class XmlError(ValueError):
    """The client's bytes are not XML."""


@dataclass
class Element:
    """An element: its namespace and name, attributes, text and children."""

    namespace: str
    name: str
    attributes: dict[str, str]
    text: str = ""
    children: list["Element"] = field(default_factory=list)

    def child(self, namespace: str, name: str) -> "Element | None":
        """The first child of this name."""
        return next((one for one in self.children if (one.namespace, one.name) == (namespace, name)), None)


class Stream:
    """Cuts one stream into its header and its stanzas. After a login the client begins a new one: make a new object."""

    def __init__(self, on_header: Callable[[Element], None], on_stanza: Callable[[Element], None]) -> None:
        self._on_header, self._on_stanza = on_header, on_stanza
        self._open: list[Element] = []
        #: The client has ended its stream.
        self.ended = False
        self._parser: Any = expat.ParserCreate(namespace_separator=" ")
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters
        # of a token cut in two, newer expat would wait for more than its rest; Debian's does so without this switch
        self._begun = b""
        if hasattr(self._parser, "SetReparseDeferralEnabled"):
            self._parser.SetReparseDeferralEnabled(False)

    def receive(self, data: bytes) -> None:
        """Calls the callbacks for what is complete. Raises XmlError."""
        whole, end, self._begun = (self._begun + data).rpartition(b">")
        try:
            self._parser.Parse(whole + end)
        except expat.ExpatError as error:
            raise XmlError(str(error)) from None

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        namespace, _, name = tag.rpartition(" ")
        element = Element(namespace, name, attributes)
        self._open.append(element)
        if len(self._open) == 1:
            self._on_header(element)
        elif len(self._open) > 2:
            self._open[-2].children.append(element)

    def _end(self, _tag: str) -> None:
        element = self._open.pop()
        if len(self._open) == 1:
            self._on_stanza(element)
        elif not self._open:
            self.ended = True

    def _characters(self, text: str) -> None:
        if len(self._open) > 1:
            self._open[-1].text += text


def header(stream_id: str, domain: str) -> str:
    """The server's opening tag."""
    return (
        f"<?xml version='1.0'?><stream:stream from={quoteattr(domain)} id={quoteattr(stream_id)} version='1.0' "
        f"xmlns:stream='{STREAMS}' xmlns='{CLIENT}'>"
    )


def message(payload: str, attributes: str = "", after: str = "") -> str:
    """A message with a JSON payload."""
    return f"<message{attributes}><gcm xmlns='{PAYLOAD}'>{escape(payload)}</gcm>{after}</message>"


def stanza_error(condition: str, text: str) -> str:
    """The error element of a stanza."""
    return (
        f"<error code='400' type='modify'><{condition} xmlns='{STANZAS}'/>"
        f"<text xmlns='{STANZAS}'>{escape(text)}</text></error>"
    )


def stream_error(condition: str) -> str:
    """The stream error, and the end of the stream."""
    return f"<stream:error><{condition} xmlns='{STREAM_ERRORS}'/></stream:error></stream:stream>"


def attribute(name: str, value: str) -> str:
    """An attribute with its leading blank."""
    return f" {name}={quoteattr(value)}"
