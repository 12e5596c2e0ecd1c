"""A stand-in for Apple's push service on loopback: its rules, its answers, and on request its bad days.

    python pusher.py simulate apns --port 2197 --tls-dir /tmp/apns --fault "429:0.01,retry-after=2,once"

The rules are in `apns_rules`, the script of faults in `faults`, the transport in `http2_server`.
"""

import argparse
import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from h2.settings import SettingCodes

from pusher.sim import command
from pusher.sim import faults as fault_script
from pusher.sim.admin import Order
from pusher.sim.apns_channels import BROADCAST_PATH, CHANNELS_PATH, BroadcastChannels, Managed
from pusher.sim.apns_channels import STATUS as CHANNELS_STATUS
from pusher.sim.apns_rules import STATUS, USUAL_REASON, AppleRules, ConnectionMemory, PushRequest, SimulatedApple
from pusher.sim.certificate import load_verification_key, make_p8, write_private
from pusher.sim.faults import Fault, replacement
from pusher.sim.http2_link import Link, Reply, Request
from pusher.sim.http2_server import Http2Server
from pusher.sim.simulator import Http2Simulator

Fields = tuple[tuple[bytes, bytes], ...]
STATUSES = STATUS | CHANNELS_STATUS
RENEWAL_SCOPES = ("connection", "team", "off")
ORDERS = """Orders at the admin port, as POST /ORDER
    faults                the body replaces the script of faults; an empty body ends them
    cut                   resets all connections
    certificate           reads server.pem and server.key from --tls-dir again, for new connections
    expire-tokens         provider tokens that were issued before this second expire
"""


class ApnsSimulator(Http2Simulator):
    """The simulated service. `now` gives Unix time in seconds."""

    def __init__(  # noqa: PLR0913  # options, by keyword
        self,
        rules: AppleRules = AppleRules(),  # noqa: B008  # frozen
        faults: Sequence[str] = (),
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls_dir: str | None = None,
        names: Sequence[str] = (),
        client_ca: str | None = None,
        seed: int = 0,
        latency_ms: float = 0.0,
        max_streams: int = 1000,
        first_stream_alone: bool = True,
        development: bool = False,
        channels_port: int | None = None,
        broadcast_apps: Sequence[str] = (),
        initial_window: int | None = None,
        ledger_limit: int = 100_000,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(
            "apns", faults, tls_dir=tls_dir, names=names, seed=seed, latency_ms=latency_ms, ledger_limit=ledger_limit
        )
        self.rules = rules
        self._provider = SimulatedApple(rules)
        self._development = development
        self.channels = BroadcastChannels(frozenset(broadcast_apps))
        self._now = now
        self.server = Http2Server(
            self._serve,
            self._context(client_ca),
            host,
            port,
            max_streams=max_streams,
            first_streams=1 if first_stream_alone else None,
            initial_window=initial_window,
        )
        #: The host for channels; None where none is asked for.
        self.channels_server: Http2Server | None = None
        if channels_port is not None:
            self.channels_server = Http2Server(self._manage, self._context(client_ca), host, channels_port)

    def start(self) -> None:
        """Listens; may follow stop(), on the same ports. Raises OSError when a port is taken."""
        self.server.start()
        if self.channels_server is not None:
            self.channels_server.start()

    def stop(self) -> None:
        """Drops all connections and stops listening; waits some milliseconds."""
        self.server.stop()
        if self.channels_server is not None:
            self.channels_server.stop()

    def orders(self) -> Mapping[str, Order]:
        """What it can be told to do while it runs."""
        return {**super().orders(), "expire-tokens": lambda _: self._provider.expire_tokens(self._now())}

    def counts(self) -> dict[str, Any]:
        """The ledger's counts, and what happened below the requests."""
        return super().counts() | {"provider_tokens": self._provider.tokens_seen}

    def _serve(self, request: Request) -> None:
        broadcast = BROADCAST_PATH.match(request.path)
        if broadcast is not None:
            self._serve_broadcast(request, broadcast[1].decode())
            return
        push = PushRequest(request.method, request.path, request.headers, request.repeated, request.body)
        client = self._client(request.link)
        reason = self._provider.refusal(push, client, self._now())
        apns_id = request.headers.get(b"apns-id", b"")
        if not apns_id or reason == "BadMessageId":
            apns_id = str(uuid.uuid4()).upper().encode()
        if not reason:
            self._trust(request.link)
        token = push.device_token.decode("latin-1")
        fault = self.faults.pick(token, apns_id.decode("latin-1"))
        answer, reason = self._decide(reason, fault, self._ids(apns_id))
        self._note(request, apns_id.decode("latin-1"), token, answer.status, reason, fault)
        self._answer(request, answer, fault)

    def _serve_broadcast(self, request: Request, bundle_id: str) -> None:
        reason = "" if request.method == b"POST" else "MethodNotAllowed"
        reason = reason or self._of_app(request, bundle_id)
        reason = reason or self.channels.refusal(bundle_id, request.headers, request.body)
        if not reason:
            self._trust(request.link)
        request_id, channel_id = _request_id(request), request.headers.get(b"apns-channel-id", b"").decode("latin-1")
        fault = self.faults.pick(channel_id, request_id.decode("latin-1"))
        unique = () if reason else ((b"apns-unique-id", str(uuid.uuid4()).encode()),)
        answer, reason = self._decide(reason, fault, ((b"apns-request-id", request_id), *unique))
        self._note(request, request_id.decode("latin-1"), channel_id, answer.status, reason, fault)
        self._answer(request, answer, fault)

    def _manage(self, request: Request) -> None:
        """A request to the host for channels, which plays no faults."""
        match = CHANNELS_PATH.match(request.path)
        if match is None:
            managed = Managed("BadPath")
        else:
            bundle_id, what = match[1].decode(), match[2].decode()
            managed = Managed(self._of_app(request, bundle_id))
            if not managed.reason:
                managed = self.channels.manage(request.method, bundle_id, what, request.headers, request.body)
        headers: Fields = ((b"apns-request-id", _request_id(request)),)
        if managed.reason:
            answer = self._refuse(STATUSES[managed.reason], managed.reason, headers)
        else:
            made = ((b"apns-channel-id", managed.channel_id.encode()),) if managed.channel_id else ()
            body = b"" if managed.body is None else json.dumps(managed.body).encode()
            answer = Reply(managed.status, (*headers, *made), body)
        self._later(request.link.respond, request.stream_id, answer)

    def _of_app(self, request: Request, bundle_id: str) -> str:
        """The reason to refuse what names an app in its path, or ""."""
        push = PushRequest(request.method, request.path, request.headers, request.repeated, request.body)
        return self._provider.refusal_for_app(push, bundle_id, self._client(request.link), self._now())

    def _trust(self, link: Link) -> None:
        """A valid request was seen."""
        client = self._client(link)
        if not client.trusted:
            client.trusted = True
            link.announce(SettingCodes.MAX_CONCURRENT_STREAMS, self.server.max_streams)

    def _ids(self, apns_id: bytes) -> Fields:
        """Apple, "Handling notification responses from APNs": the second one in the development environment alone."""
        unique = ((b"apns-unique-id", str(uuid.uuid4()).encode()),) if self._development else ()
        return ((b"apns-id", apns_id), *unique)

    def _client(self, link: Link) -> ConnectionMemory:
        if link.memory is None:
            link.memory = ConnectionMemory(certificate_topic=certificate_topic(link))
        client: ConnectionMemory = link.memory
        return client

    def _decide(self, reason: str, fault: Fault | None, headers: Fields) -> tuple[Reply, str]:
        """The answer and its reason: the rules' own refusal, else the fault's status, else success."""
        if reason:
            return self._refuse(STATUSES[reason], reason, headers), reason
        if fault is None or not fault.status:
            return Reply(200, headers), ""
        reason = fault.reason or USUAL_REASON.get(fault.status, "")
        body = self._error_body(fault.status, reason, fault.timestamp_ms) if reason else b""
        return replacement(fault, headers, body), reason

    def _refuse(self, status: int, reason: str, headers: Fields) -> Reply:
        json_type = (b"content-type", b"application/json")
        return Reply(status, (*headers, json_type), self._error_body(status, reason, None))

    def _error_body(self, status: int, reason: str, timestamp_ms: int | None) -> bytes:
        body: dict[str, str | int] = {"reason": reason}
        if status == 410:
            body["timestamp"] = int(self._now() * 1000) if timestamp_ms is None else timestamp_ms
        return json.dumps(body).encode()


def _request_id(request: Request) -> bytes:
    return request.headers.get(b"apns-request-id") or str(uuid.uuid4()).encode()


def certificate_topic(link: Link) -> bytes | None:
    """The topic of the client's certificate, its subject's user id; None without a certificate."""
    subject: Any = (link.peer_certificate or {}).get("subject", ())
    names = {name: value for part in subject for name, value in part}
    return names["userId"].encode() if "userId" in names else None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `simulate apns`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = "Simulates Apple's push service over HTTP/2 and TLS."
    parser.epilog = f"{fault_script.__doc__}\n{ORDERS}"
    listen = parser.add_argument_group("where it listens")
    listen.add_argument("--host", default="127.0.0.1")
    listen.add_argument("--port", type=int, default=2197, help="port; 0 = a free port (%(default)s)")
    listen.add_argument("--channels-port", type=int, metavar="PORT", help="port of the broadcast channels' API (none)")
    listen.add_argument(
        "--tls-dir", metavar="DIR", help="directory that keeps the certificates (default: a temporary one)"
    )
    listen.add_argument(
        "--name", action="append", default=[], help="name of this host in its certificate; may be repeated"
    )
    listen.add_argument("--client-ca", metavar="FILE", help="accept client certificates signed by this authority")
    rules = parser.add_argument_group("what it accepts")
    rules.add_argument("--key", metavar="FILE", help="verify provider tokens with this .p8 or public PEM")
    rules.add_argument(
        "--write-key", metavar="FILE", help="create a .p8 key, write it here, and verify provider tokens with it"
    )
    rules.add_argument("--key-id", action="append", default=[], metavar="ID", help="known key id (any)")
    rules.add_argument("--team-id", action="append", default=[], metavar="ID", help="known team id (any)")
    rules.add_argument("--topic", action="append", default=[], metavar="BUNDLE", help="known app (any)")
    rules.add_argument(
        "--broadcast-app", action="append", default=[], metavar="BUNDLE", help="app that may broadcast (any)"
    )
    rules.add_argument("--any-token", action="store_true", help="device tokens need not be hexadecimal")
    rules.add_argument("--require-push-type", action="store_true", help="refuse a push without apns-push-type")
    rules.add_argument(
        "--token-lifetime", type=float, default=3600, metavar="S", help="lifetime of provider tokens (3600 s)"
    )
    rules.add_argument(
        "--token-updates",
        choices=RENEWAL_SCOPES,
        default="team",
        help="scope in which new provider tokens are counted, to refuse too many of them (%(default)s)",
    )
    rules.add_argument(
        "--no-wedge", action="store_true", help="after ExpiredProviderToken a connection accepts newer tokens"
    )
    transport = parser.add_argument_group("transport")
    transport.add_argument(
        "--max-streams", type=int, default=1000, metavar="N", help="maximum concurrent streams (%(default)s)"
    )
    transport.add_argument(
        "--no-first-stream", action="store_true", help="do not limit streams to 1 before the first valid request"
    )
    transport.add_argument(
        "--development", action="store_true", help="answers have an apns-unique-id, as in the sandbox"
    )
    transport.add_argument("--initial-window", type=int, metavar="BYTES", help="receive window of a stream (65535)")
    transport.add_argument("--latency-ms", type=float, default=0, metavar="MS", help="delay before each answer (0)")
    command.add_record_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Runs until SIGINT or SIGTERM; waits. Returns the exit status."""
    return command.run("apns", "https://{host}:{port}", lambda: from_arguments(args), args)


def from_arguments(args: argparse.Namespace) -> ApnsSimulator:
    """The simulator that the flags ask for. Raises OSError, ValueError."""
    key_file = args.key
    if args.write_key:
        write_private(args.write_key, make_p8())
        key_file = args.write_key
    rules = AppleRules(
        topics=frozenset(args.topic),
        key_ids=frozenset(args.key_id),
        team_ids=frozenset(args.team_id),
        verification_key=load_verification_key(Path(key_file).read_bytes()) if key_file else None,
        any_token=args.any_token,
        require_push_type=args.require_push_type,
        token_lifetime_s=args.token_lifetime,
        renewal_scope=args.token_updates,
        wedge=not args.no_wedge,
    )
    return ApnsSimulator(
        rules,
        args.fault,
        host=args.host,
        port=args.port,
        tls_dir=args.tls_dir,
        names=args.name,
        client_ca=args.client_ca,
        seed=args.seed,
        latency_ms=args.latency_ms,
        max_streams=args.max_streams,
        first_stream_alone=not args.no_first_stream,
        development=args.development,
        channels_port=args.channels_port,
        broadcast_apps=args.broadcast_app,
        initial_window=args.initial_window,
        ledger_limit=args.ledger_limit,
    )
