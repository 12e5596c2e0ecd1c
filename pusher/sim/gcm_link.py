"""One client's connection to the GCM simulator: login, then messages in and answers out."""

from __future__ import annotations

import base64
import binascii
import itertools
import json
import socket as sockets
import ssl
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import gevent
from gevent.event import Event

from pusher.sim import xmpp
from pusher.sim.faults import Fault
from pusher.sim.gcm_rules import Nack, acknowledgement_fault
from pusher.sim.schedule import Schedule
from pusher.sim.xmpp import Element, Stream, XmlError

DOMAIN = "gcm.googleapis.com"
_numbers = itertools.count(1)
_LINGER_ZERO = struct.pack("ii", 1, 0)


class Service(Protocol):
    """What a connection asks of the simulator."""

    ack_delay_s: float
    answer_pings: bool
    binds: bool
    mechanisms: Sequence[str]
    refuses_logins: str
    schedule: Schedule
    events: Counter[str]
    acknowledged: Counter[str]

    def knows(self, user: str, password: str) -> bool:
        """Whether these credentials may log in."""

    def violation(self, text: str) -> None:
        """Takes what the client did wrong."""

    def arrived(self, message_id: str, pending: int) -> None:
        """Takes a message, and how many are unanswered on its connection."""

    def judge(self, message: dict[str, Any], size: int, *, draining: bool) -> tuple[Fault | None, Nack | None]:
        """The fault to play and the error to answer with."""


class ReceivedMessage(NamedTuple):
    """A push as the client sent it."""

    id: str
    json: dict[str, Any]
    payload: str


class GcmLink:
    """A connection. `run` serves it from the TLS handshake to its end."""

    def __init__(self, simulator: Service, socket: Any, tls: ssl.SSLContext) -> None:
        self._simulator = simulator
        self._socket = socket
        self._tls = tls
        self._number = next(_numbers)
        #: The client may send messages.
        self.bound = False
        #: We have ended it: what still comes was on the way.
        self._over = False
        self.draining = False
        #: Ids of messages that have no answer yet.
        self.pending: set[str] = set()
        self._user = ""
        self._stream = self._new_stream()
        self._out: list[str] = []
        self._written = Event()
        self._thawed = Event()
        self._thawed.set()
        self._closing = False

    # --- life ---------------------------------------------------------------------------------------------------------
    def run(self) -> None:
        """Serves the connection; waits until it has ended."""
        try:
            # two steps, so that cut() finds the socket also while the handshake goes on
            self._socket = self._tls.wrap_socket(self._socket, server_side=True, do_handshake_on_connect=False)
            self._socket.do_handshake()
        except OSError as error:
            self._simulator.events["failed-handshakes"] += 1
            self._simulator.events[f"handshake: {getattr(error, 'reason', None) or error}"] += 1
            self._socket.close()
            return
        writer = gevent.spawn(self._write)
        try:
            self._read()
        except OSError:
            self._simulator.events["broken-connections"] += 1
        finally:
            self.bound = False
            self._close_in_order(writer)

    def cut(self) -> None:
        """Resets the TCP connection."""
        self.bound, self._over = False, True
        if self._socket.fileno() < 0:
            return
        self._socket.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, _LINGER_ZERO)
        self._socket.close()

    def freeze(self, seconds: float) -> None:
        """Neither reads nor writes for a while."""
        self._thawed.clear()
        self._simulator.schedule.after(seconds, self._thawed.set)

    def end(self, last_words: str = "</stream:stream>") -> None:
        """Writes the last words and closes the connection."""
        self.bound, self._over = False, True
        self._closing = True
        self.write(last_words)

    def write(self, text: str) -> None:
        """Queues text for the client."""
        self._out.append(text)
        self._written.set()

    def _read(self) -> None:
        while not self._closing:
            data = self._socket.recv(65_536)
            self._thawed.wait()
            if not data:
                return
            try:
                self._stream.receive(data)
            except XmlError as error:
                self._simulator.violation(f"broken XML: {error}")
                self.end(xmpp.stream_error("not-well-formed"))
            if self._stream.ended:
                self.end()

    def _write(self) -> None:
        while True:
            self._written.wait()
            self._written.clear()
            self._thawed.wait()
            text, self._out = "".join(self._out), []
            try:
                self._socket.sendall(text.encode())
                if self._closing:
                    self._socket.shutdown(sockets.SHUT_RDWR)
            except OSError:
                return

    def _close_in_order(self, writer: gevent.Greenlet[..., None]) -> None:
        if self._closing:
            writer.join(timeout=0.1)
        writer.kill()
        self._socket.close()

    # --- the stream ---------------------------------------------------------------------------------------------------
    def _new_stream(self) -> Stream:
        return Stream(self._header, self._stanza)

    def _header(self, stream: Element) -> None:
        if (stream.namespace, stream.name) != (xmpp.STREAMS, "stream") or stream.attributes.get("to") != DOMAIN:
            self._simulator.violation(f"stream header to {stream.attributes.get('to')!r}")
        if self._user:
            features = f"<bind xmlns='{xmpp.BIND}'/>"
        else:
            offered = "".join(f"<mechanism>{name}</mechanism>" for name in self._simulator.mechanisms)
            features = f"<mechanisms xmlns='{xmpp.SASL}'>{offered}</mechanisms>"
        self.write(xmpp.header(f"{self._number:X}", DOMAIN) + f"<stream:features>{features}</stream:features>")

    def _stanza(self, stanza: Element) -> None:
        handle = self._HANDLERS.get((stanza.namespace, stanza.name))
        if handle is None:
            self._simulator.violation(f"unexpected stanza {stanza.name}")
        elif not self._user and stanza.namespace != xmpp.SASL:
            self._simulator.violation(f"{stanza.name} before the login")
            self.end(xmpp.stream_error("not-authorized"))
        else:
            handle(self, stanza)

    def _auth(self, auth: Element) -> None:
        try:
            text = base64.b64decode(auth.text, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            text = ""
        _, user, password = [*text.split("\0"), "", "", ""][:3]
        if auth.attributes.get("mechanism") == "PLAIN" and self._simulator.knows(user, password):
            self._user = user
            self._stream = self._new_stream()
            self.write(f"<success xmlns='{xmpp.SASL}'/>")
        else:
            condition = self._simulator.refuses_logins or "not-authorized"
            self.end(f"<failure xmlns='{xmpp.SASL}'><{condition}/></failure></stream:stream>")

    def _iq(self, iq: Element) -> None:
        kind, name = iq.attributes.get("type"), xmpp.attribute("id", iq.attributes.get("id", ""))
        if kind == "set" and iq.child(xmpp.BIND, "bind") is not None:
            self._bind(name)
        elif kind == "get" and iq.child(xmpp.PING, "ping") is not None:
            self._simulator.events["pings"] += 1
            if self._simulator.answer_pings:
                self.write(f"<iq type='result'{name}/>")
        elif kind == "result":
            self._simulator.events["pongs"] += 1
        else:
            self._simulator.violation(f"unexpected iq of type {kind}")

    def _bind(self, name: str) -> None:
        if not self._simulator.binds:
            self.write(f"<iq type='error'{name}>{xmpp.stanza_error('resource-constraint', '')}</iq>")
            return
        self.bound = True
        jid = f"{self._user}@{DOMAIN}/{self._number:X}"
        self.write(f"<iq type='result'{name}><bind xmlns='{xmpp.BIND}'><jid>{jid}</jid></bind></iq>")

    def _presence(self, _presence: Element) -> None:
        self._simulator.events["presences"] += 1

    # --- messages -----------------------------------------------------------------------------------------------------
    def _message(self, stanza: Element) -> None:
        if self._over:
            return
        if not self.bound:
            self._simulator.violation("message before a resource was bound")
            return
        payload = stanza.child(xmpp.PAYLOAD, "gcm")
        text = payload.text if payload is not None else ""
        try:
            content = json.loads(text)
            message_id = content["message_id"]
        except (ValueError, KeyError, TypeError):
            self._simulator.violation("message without JSON, or without message_id")
            self._refuse(stanza.attributes.get("id", ""), text, "bad-request")
            return
        if content.get("message_type") == "ack":
            self._acknowledged(ReceivedMessage(str(message_id), content, text))
            return
        if stanza.attributes.get("id") != message_id:
            self._simulator.violation(f"stanza id {stanza.attributes.get('id')!r} of message {message_id!r}")
        self._push(ReceivedMessage(message_id, content, text))

    def _acknowledged(self, message: ReceivedMessage) -> None:
        refused = acknowledgement_fault(message.json)
        if refused is None:
            self._simulator.acknowledged[message.id] += 1
        else:
            self._reply(message, "nack", error=refused.error, error_description=refused.description)

    def _push(self, message: ReceivedMessage) -> None:
        simulator = self._simulator
        self.pending.add(message.id)
        simulator.arrived(message.id, len(self.pending))
        fault, refused = simulator.judge(message.json, len(message.payload.encode()), draining=self.draining)
        delay_s = simulator.ack_delay_s + (fault.delay_s if fault else 0)
        if delay_s:
            simulator.schedule.after(delay_s, self._answer, fault, message, refused)
        else:
            self._answer(fault, message, refused)

    def _answer(self, fault: Fault | None, message: ReceivedMessage, refused: Nack | None) -> None:
        if refused is not None:
            self._reply(message, "nack", error=refused.error, error_description=refused.description)
        elif fault is None:
            self._reply(message, "ack")
        else:
            self.do(fault, message)

    def _reply(self, message: ReceivedMessage, message_type: str, **more: str) -> None:
        self.pending.discard(message.id)
        answer = {
            "from": message.json.get("to") or message.json.get("condition", ""),
            "message_id": message.id,
            "message_type": message_type,
        }
        self.write(xmpp.message(json.dumps(answer | more)))

    def _refuse(self, stanza_id: str, payload: str, condition: str) -> None:
        error = xmpp.stanza_error(condition, "InvalidJson: JSON_PARSING_ERROR : Missing Required Field: message_id\n")
        self.write(xmpp.message(payload, xmpp.attribute("id", stanza_id) + " type='error'", error))

    # --- faults -------------------------------------------------------------------------------------------------------
    def do(self, fault: Fault, message: ReceivedMessage | None) -> None:
        """Plays a fault, with the message that it hit or, when it was commanded, without one."""
        if message is not None and fault.action in _ANSWERED_FIRST:
            self._reply(message, "ack", **({"registration_id": fault.reason} if fault.reason else {}))
        self._ACTIONS.get(fault.action, GcmLink._nothing)(self, fault, message)

    def _nothing(self, fault: Fault, message: ReceivedMessage | None) -> None:
        """The answer, or its absence, was all."""

    def _twice(self, _fault: Fault, message: ReceivedMessage | None) -> None:
        if message is not None:
            self._reply(message, "ack")

    def _wrong_id(self, _fault: Fault, _message: ReceivedMessage | None) -> None:
        stray = {"from": "nobody", "message_id": "never-sent", "message_type": "ack"}
        self.write(xmpp.message(json.dumps(stray)))

    def _garbage(self, _fault: Fault, _message: ReceivedMessage | None) -> None:
        self.write(xmpp.message('{"message_type":'))

    def _receipt(self, _fault: Fault, message: ReceivedMessage | None) -> None:
        original = message.id if message else "commanded"
        receipt = {
            "category": "com.example.app",
            "data": {"message_status": "MESSAGE_SENT_TO_DEVICE", "original_message_id": original},
            "message_id": f"dr2:{original}",
            "message_type": "receipt",
            "from": DOMAIN,
        }
        self.write(xmpp.message(json.dumps(receipt), " type='normal'"))

    def _upstream(self, _fault: Fault, message: ReceivedMessage | None) -> None:
        name = f"up:{message.id}" if message else f"up:{self._number}"
        sender = message.json.get("to", "") if message else "device"
        upstream = {"category": "com.example.app", "data": {"hello": "<&>"}, "message_id": name, "from": sender}
        self.write(xmpp.message(json.dumps(upstream), " type='normal'"))

    def _stanza_error(self, fault: Fault, message: ReceivedMessage | None) -> None:
        if message is not None:
            self.pending.discard(message.id)
            self._refuse(message.id, message.payload, fault.reason or "bad-request")

    def _drain(self, fault: Fault, _message: ReceivedMessage | None) -> None:
        self.draining = True
        self.write(xmpp.message('{"message_type":"control","control_type":"CONNECTION_DRAINING"}'))
        if fault.step_s is not None:
            self._simulator.schedule.after(fault.step_s, self.end)

    def _cut(self, _fault: Fault, _message: ReceivedMessage | None) -> None:
        self.cut()

    def _end(self, _fault: Fault, _message: ReceivedMessage | None) -> None:
        self.end()

    def _freeze(self, fault: Fault, _message: ReceivedMessage | None) -> None:
        self.freeze(float(fault.reason))

    def _broken_xml(self, _fault: Fault, _message: ReceivedMessage | None) -> None:
        self.end("<message><gcm></message>")

    def _stream_error(self, fault: Fault, _message: ReceivedMessage | None) -> None:
        self.end(xmpp.stream_error(fault.reason or "policy-violation"))

    _HANDLERS: ClassVar[dict[tuple[str, str], Callable[[GcmLink, Element], None]]] = {
        (xmpp.SASL, "auth"): _auth,
        (xmpp.CLIENT, "iq"): _iq,
        (xmpp.CLIENT, "presence"): _presence,
        (xmpp.CLIENT, "message"): _message,
    }
    _ACTIONS: ClassVar[dict[str, Callable[[GcmLink, Fault, ReceivedMessage | None], None]]] = {
        "twice": _twice,
        "wrong-id": _wrong_id,
        "garbage": _garbage,
        "receipt": _receipt,
        "upstream": _upstream,
        "stanza-error": _stanza_error,
        "drain": _drain,
        "cut": _cut,
        "end": _end,
        "freeze": _freeze,
        "broken-xml": _broken_xml,
        "stream-error": _stream_error,
    }


_ANSWERED_FIRST = frozenset({"ack", "twice", "wrong-id", "garbage", "receipt", "upstream", "drain", "freeze"})
