"""An APNs client for the tests of the simulator: h2's client side on a plain TLS socket, independent of the sender."""

import json
import socket
import ssl
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import gevent
import jwt
from h2.config import H2Configuration
from h2.connection import ConnectionState, H2Connection
from h2.events import (
    DataReceived,
    Event,
    InformationalResponseReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.settings import SettingCodes
from hyperframe.frame import Frame

from pusher.sim.apns import ApnsSimulator
from pusher.sim.apns_rules import AppleRules
from pusher.sim.certificate import (
    make_p8,
)

DEVICE = "ab" * 32
PAYLOAD = b'{"aps":{"alert":"hi"}}'
KEY = make_p8()
DEADLINE_S = 10.0


def provider_token(
    issued_at: float | None = None, team: str = "TEAM", key_id: str | None = "KEY", key: bytes = KEY, **more: Any
) -> str:
    claims = {"iss": team, "iat": int(time.time() if issued_at is None else issued_at), **more}
    return jwt.encode(claims, key, "ES256", headers={"kid": key_id} if key_id else None)


TOKEN = provider_token()


@dataclass
class Reply:
    """What came back on one stream."""

    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    interim: list[int] = field(default_factory=list)
    trailers: dict[bytes, bytes] = field(default_factory=dict)
    ended: bool = False
    reset: int | None = None

    @property
    def reason(self) -> str:
        return str(json.loads(self.body)["reason"])


class Client:
    """A connection to the simulator. receive(until) reads until a condition holds, or fails at the deadline."""

    def __init__(self, sim: ApnsSimulator, context: ssl.SSLContext | None = None) -> None:
        if context is None:
            context = client_context(sim.ca_file)
        plain = socket.create_connection(("127.0.0.1", sim.port), timeout=DEADLINE_S)
        self.socket = context.wrap_socket(plain, server_hostname="localhost")
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self.h2.initiate_connection()
        self.replies: dict[int, Reply] = {}
        self.events: list[Event] = []
        self.raw = self.partial = b""
        self.ended = False
        self.flush()

    def flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    def push(self, body: bytes = PAYLOAD, *, flush: bool = True, **headers: str | None) -> int:
        """Sends a push; header names with _ for -, None leaves one out; returns the stream."""
        fields: dict[str, str | None] = {
            ":method": headers.pop("method", "POST"),
            ":scheme": "https",
            ":path": headers.pop("path", f"/3/device/{DEVICE}"),
            ":authority": "localhost",
            "authorization": f"bearer {TOKEN}",
            "apns-topic": "com.example.app",
            "apns-id": str(uuid.uuid4()),
        }
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        return self.send([(name, value) for name, value in fields.items() if value is not None], body, flush=flush)

    def send(self, fields: list[tuple[str, str]], body: bytes, *, flush: bool = True) -> int:
        stream_id = self.h2.get_next_available_stream_id()
        self.replies[stream_id] = Reply()
        self.h2.send_headers(stream_id, fields, end_stream=not body)
        if body:
            self.h2.send_data(stream_id, body, end_stream=True)
        if flush:
            self.flush()
        return stream_id

    def ask(self, body: bytes = PAYLOAD, **headers: str | None) -> Reply:
        """Sends a push and waits for its reply."""
        return self.reply(self.push(body, flush=True, **headers))

    def reply(self, stream_id: int) -> Reply:
        reply = self.replies[stream_id]
        self.receive(lambda: reply.ended or reply.reset is not None)
        return reply

    def receive(self, until: Callable[[], object]) -> None:
        with gevent.Timeout(DEADLINE_S):
            while not until():
                data = self.read()
                if not data:
                    self.ended = True
                    assert until(), "the connection ended"
                    return
                for event in self.events_of(data):
                    self.take(event)
                self.flush_quietly()

    def events_of(self, data: bytes) -> Iterator[Event]:
        """Frame by frame, because h2 takes nothing more after a GOAWAY, which need not be the end."""
        self.partial += data
        while len(self.partial) >= 9:
            end = 9 + int.from_bytes(self.partial[:3], "big")
            if len(self.partial) < end:
                return
            frame, self.partial = self.partial[:end], self.partial[end:]
            yield from self.h2.receive_data(frame)
            if frame[3] == 7:
                self.h2.state_machine.state = ConnectionState.CLIENT_OPEN

    def read(self) -> bytes:
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            return b""
        self.raw += data
        return data

    def flush_quietly(self) -> None:
        """The server may have closed already; that shows when reading."""
        try:
            self.flush()
        except OSError:
            self.ended = True

    def take(self, event: Event) -> None:
        self.events.append(event)
        reply = self.replies.get(getattr(event, "stream_id", None) or 0, Reply())
        match event:
            case InformationalResponseReceived():
                reply.interim.append(int(dict(event.headers)[b":status"]))
            case ResponseReceived():
                reply.headers = dict(event.headers)
                reply.status = int(reply.headers[b":status"])
            case DataReceived():
                reply.body += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case TrailersReceived():
                reply.trailers = dict(event.headers)
            case StreamEnded():
                reply.ended = True
            case StreamReset():
                reply.reset = int(event.error_code)

    def seen(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def frames(self) -> list[Frame]:
        """Everything received, as frames."""
        found, view = [], memoryview(self.raw)
        while view:
            frame, length = Frame.parse_frame_header(view[:9])
            frame.parse_body(view[9 : 9 + length])
            found.append(frame)
            view = view[9 + length :]
        return found

    def at_end(self) -> bool:
        """Reads until the server closes."""
        self.receive(lambda: self.ended)
        return self.ended

    def close(self) -> None:
        self.socket.close()


def client_context(ca_file: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file)
    context.set_alpn_protocols(["h2"])
    return context


def poll(condition: Callable[[], object]) -> None:
    """Waits until a condition holds that another greenlet or process brings about."""
    with gevent.Timeout(DEADLINE_S):
        while not condition():
            gevent.sleep(0.01)


Connect = Callable[..., Client]
Simulate = Callable[..., ApnsSimulator]


def apns_simulator(rules: AppleRules = AppleRules(), *faults: str, **options: Any) -> ApnsSimulator:  # noqa: B008  # frozen
    return ApnsSimulator(rules, faults, **options)


@contextmanager
def connections() -> Iterator[Connect]:
    opened: list[Client] = []

    def open_client(sim: ApnsSimulator, context: ssl.SSLContext | None = None) -> Client:
        client = Client(sim, context)
        opened.append(client)
        return client

    yield open_client
    for client in opened:
        client.close()


def announced(client: Client, setting: SettingCodes) -> list[int]:
    return [
        event.changed_settings[setting].new_value
        for event in client.seen(RemoteSettingsChanged)
        if setting in event.changed_settings
    ]
