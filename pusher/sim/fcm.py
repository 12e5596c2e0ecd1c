"""A stand-in for Google's FCM HTTP v1 on loopback: its rules, its answers, and on request its bad days.

    python pusher.py simulate fcm --port 2443 --tls-dir /tmp/fcm --write-credentials key.json --fault "503:0.01,once"

Two ports, as Google has two hosts: messages:send over HTTP/2, and the OAuth token endpoint (`fcm_oauth`). The rules are
in `fcm_rules`, the script of faults in `faults`, the transport in `http2_server`.
"""

import argparse
import hashlib
import json
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pusher.sim import command
from pusher.sim import faults as fault_script
from pusher.sim.admin import Order
from pusher.sim.certificate import write_private
from pusher.sim.faults import Fault, replacement
from pusher.sim.fcm_oauth import OAuth
from pusher.sim.fcm_quota import Quota, Terms
from pusher.sim.fcm_rules import USUAL_CODE, Refusal, error_body, read
from pusher.sim.http2_link import Reply, Request
from pusher.sim.http2_server import Http2Server
from pusher.sim.simulator import Http2Simulator

SEND_PATH = re.compile(rb"/v1/projects/([^/]+)/messages:send\Z")
JSON_TYPE = (b"content-type", b"application/json; charset=UTF-8")
PAGE_404 = Reply(404, ((b"content-type", b"text/html; charset=UTF-8"),), b"<html><title>Error 404</title></html>")
DRY_RUN = "validate_only"
ORDERS = """Orders at the admin port, as POST /ORDER
    faults                the body replaces the script of faults of messages:send; an empty body ends them
    oauth-faults          the same for the token endpoint
    revoke                all access tokens become invalid
    quota                 the body, LIMIT/SECONDS or LIMIT/SECONDS,retry-after, becomes each project's quota; "" = none
    cut                   resets all connections
    certificate           reads server.pem and server.key from --tls-dir again, for new connections
"""


class FcmSimulator(Http2Simulator):
    """The simulated service, whose token endpoint is at `oauth.port`.

    A request's id is the data member named `id_key`, or else a digest of its body: a
    retry repeats the body. What was sent with validate_only is listed, but does not count as delivered. With
    `write_credentials` (project, path) the first start() makes a service account and writes its JSON there.
    """

    def __init__(  # noqa: PLR0913  # options, by keyword
        self,
        faults: Sequence[str] = (),
        *,
        oauth_faults: Sequence[str] = (),
        host: str = "127.0.0.1",
        port: int = 0,
        oauth_port: int = 0,
        tls_dir: str | None = None,
        names: Sequence[str] = (),
        write_credentials: tuple[str, str] | None = None,
        token_lifetime_s: float = 3599,
        id_key: str = "id",
        seed: int = 0,
        latency_ms: float = 0.0,
        max_streams: int = 100,
        quota: str = "",
        ledger_limit: int = 100_000,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(
            "fcm", faults, tls_dir=tls_dir, names=names, seed=seed, latency_ms=latency_ms, ledger_limit=ledger_limit
        )
        self._id_key = id_key
        self._write_credentials = write_credentials
        self.set_quota([quota])
        self.oauth = OAuth(
            self._context(),
            host,
            oauth_port,
            token_lifetime_s=token_lifetime_s,
            faults=oauth_faults,
            seed=seed,
            now=now,
        )
        self.server = Http2Server(self._serve, self._context(), host, port, max_streams=max_streams)

    def start(self) -> None:
        """Listens; may follow stop(), on the same ports. Raises OSError when a port is taken."""
        self.oauth.start()
        self.server.start()
        if self._write_credentials is not None:
            project_id, path = self._write_credentials
            write_private(path, json.dumps(self.oauth.new_account(project_id), indent=2).encode())
            self._write_credentials = None

    def stop(self) -> None:
        """Drops all connections and stops listening; waits some milliseconds."""
        self.server.stop()
        self.oauth.stop()

    def orders(self) -> Mapping[str, Order]:
        """What it can be told to do while it runs."""
        return {
            **super().orders(),
            "oauth-faults": self.oauth.set_faults,
            "quota": self.set_quota,
            "revoke": lambda _: self.oauth.revoke_tokens(),
        }

    def counts(self) -> dict[str, Any]:
        """The ledger's counts, and what happened beside the pushes."""
        quotas = {project_id: quota.counts() for project_id, quota in self._quotas.items()}
        return super().counts() | {"oauth": dict(self.oauth.counts), "quotas": quotas}

    def set_quota(self, lines: Sequence[str]) -> None:
        """What each project may send from now on. Raises ValueError."""
        text = "".join(lines).strip()
        self._terms = Terms.read(text) if text else None
        self._quotas: dict[str, Quota] = {}

    def _over_quota(self, project_id: str) -> float | None:
        """Seconds until there is a quota again; None while there is."""
        if self._terms is None:
            return None
        quota = self._quotas.setdefault(project_id, Quota(self._terms))
        return quota.take(time.monotonic())

    def _serve(self, request: Request) -> None:
        match = SEND_PATH.match(request.path)
        if match is None or request.method != b"POST":
            self._later(request.link.respond, request.stream_id, PAGE_404)
            return
        project_id = match[1].decode("latin-1")
        body, refusal = read(request.body)
        refusal = self._unauthorized(request, project_id) or refusal
        wait_s = self._over_quota(project_id)
        message = body.get("message")
        target, request_id = self._identify(message if isinstance(message, dict) else {}, request.body)
        fault = self.faults.pick(target, request_id)
        answer, reason = _decide(refusal, fault, project_id, request_id)
        if wait_s is not None:
            fault, reason = None, "QUOTA_EXCEEDED"
            answer = _over_quota(project_id, wait_s if self._terms and self._terms.tells else None)
        if answer.status == 200 and body.get("validate_only"):
            reason = DRY_RUN
        self._note(request, request_id, target, answer.status, reason, fault)
        self._answer(request, answer, fault)

    def _unauthorized(self, request: Request, project_id: str) -> Refusal | None:
        scheme, _, token = request.headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        granted = self.oauth.project_of(token) if scheme.lower() == "bearer" else None
        if granted is None:
            return Refusal("UNAUTHENTICATED")
        return None if granted == project_id else Refusal("PERMISSION_DENIED")

    def _identify(self, message: dict[str, Any], body: bytes) -> tuple[str, str]:
        """The target and the id of a request, whatever it looks like."""
        target = message.get("token") or message.get("topic") or message.get("condition")
        data = message.get("data")
        request_id = data.get(self._id_key) if isinstance(data, dict) else None
        if not isinstance(request_id, str):
            request_id = hashlib.sha256(body).hexdigest()[:24]
        return target if isinstance(target, str) else "", request_id


def _over_quota(project_id: str, retry_after_s: float | None) -> Reply:
    """The project has used up its quota."""
    body = error_body("QUOTA_EXCEEDED", 429, over_quota=f"project:{project_id}")
    told = () if retry_after_s is None else ((b"retry-after", str(math.ceil(retry_after_s)).encode()),)
    return Reply(429, (JSON_TYPE, *told), body)


def _decide(refusal: Refusal | None, fault: Fault | None, project_id: str, request_id: str) -> tuple[Reply, str]:
    """The answer and its reason: the rules' own refusal, else the fault's status, else success."""
    if refusal is not None:
        return Reply(refusal.status, (JSON_TYPE,), refusal.body()), refusal.code
    if fault is None or not fault.status:
        name = f"projects/{project_id}/messages/0:{request_id}"
        return Reply(200, (JSON_TYPE,), json.dumps({"name": name}).encode()), ""
    reason = fault.reason or USUAL_CODE.get(fault.status, "")
    body = error_body(reason, fault.status) if reason else b""
    return replacement(fault, (), body), reason


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `simulate fcm`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = "Simulates Google's FCM HTTP v1 over HTTP/2 and TLS, and its OAuth token endpoint."
    parser.epilog = f"{fault_script.__doc__}\n{ORDERS}"
    listen = parser.add_argument_group("where it listens")
    listen.add_argument("--host", default="127.0.0.1")
    listen.add_argument("--port", type=int, default=2443, help="port of messages:send; 0 = a free port (%(default)s)")
    listen.add_argument("--oauth-port", type=int, default=2444, help="port of the token endpoint (%(default)s)")
    listen.add_argument(
        "--tls-dir", metavar="DIR", help="directory that keeps the certificates (default: a temporary one)"
    )
    listen.add_argument(
        "--name", action="append", default=[], help="name of this host in its certificate; may be repeated"
    )
    accounts = parser.add_argument_group("which accounts it accepts")
    accounts.add_argument(
        "--write-credentials", metavar="FILE", help="create a service account and write its JSON here"
    )
    accounts.add_argument(
        "--project", default="demo-project", metavar="ID", help="project of the created account (%(default)s)"
    )
    accounts.add_argument(
        "--credentials", action="append", default=[], metavar="FILE", help="accept this account; may be repeated"
    )
    accounts.add_argument(
        "--token-lifetime", type=float, default=3599, metavar="S", help="lifetime of access tokens (3599 s)"
    )
    transport = parser.add_argument_group("transport")
    transport.add_argument(
        "--max-streams", type=int, default=100, metavar="N", help="maximum concurrent streams (%(default)s)"
    )
    transport.add_argument(
        "--quota",
        default="",
        metavar="LIMIT/SECONDS",
        help="quota of each project; with `,retry-after` a refusal has a Retry-After header",
    )
    transport.add_argument("--latency-ms", type=float, default=0, metavar="MS", help="delay before each answer (0)")
    command.add_record_arguments(parser)
    parser.add_argument(
        "--oauth-fault",
        action="append",
        default=[],
        metavar="TEXT",
        help="fault of the token endpoint: STATUS, ok, silence",
    )
    parser.add_argument("--id-key", default="id", help="member of `data` that identifies a push (%(default)s)")


def run(args: argparse.Namespace) -> int:
    """Runs until SIGINT or SIGTERM; waits. Returns the exit status."""
    return command.run("fcm", "https://{host}:{port}", lambda: from_arguments(args), args)


def from_arguments(args: argparse.Namespace) -> FcmSimulator:
    """The simulator that the flags ask for. Raises OSError, ValueError."""
    simulator = FcmSimulator(
        args.fault,
        oauth_faults=args.oauth_fault,
        host=args.host,
        port=args.port,
        oauth_port=args.oauth_port,
        tls_dir=args.tls_dir,
        names=args.name,
        write_credentials=(args.project, args.write_credentials) if args.write_credentials else None,
        token_lifetime_s=args.token_lifetime,
        id_key=args.id_key,
        seed=args.seed,
        latency_ms=args.latency_ms,
        max_streams=args.max_streams,
        quota=args.quota,
        ledger_limit=args.ledger_limit,
    )
    for path in args.credentials:
        simulator.oauth.add_account(json.loads(Path(path).read_bytes()))
    return simulator
