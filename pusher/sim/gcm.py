"""A stand-in for Google's XMPP connection server on loopback: its rules, its answers, and on request its bad days.

    python pusher.py simulate gcm --port 5235 --tls-dir /tmp/gcm --fault "nack SERVICE_UNAVAILABLE:0.01,once"

Direct TLS, SASL PLAIN, resource binding, pings, and at most 100 unanswered messages a connection, all from Google's
"XMPP protocol reference" (legacy). What a message may be is in `gcm_rules`, the script of faults in `gcm_faults`, the
protocol of the stream in `xmpp`.
"""

import argparse
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from gevent.pool import Pool
from gevent.server import StreamServer

from pusher.sim import command, gcm_faults, gcm_rules
from pusher.sim.admin import Order
from pusher.sim.faults import Fault, Faults
from pusher.sim.gcm_link import GcmLink
from pusher.sim.gcm_rules import DeviceRate, Nack
from pusher.sim.schedule import Schedule
from pusher.sim.simulator import Simulator

MAX_PENDING = 100
_DRAINING = Nack("CONNECTION_DRAINING", "The connection is being closed")
ORDERS = """Orders at the admin port, as POST /ORDER
    faults                       the body replaces the script of faults; an empty body ends them
    cut                          resets all connections
    command                      applies the body's actions to all connections that are logged in
    refuse-logins                logins fail with the body's SASL condition (temporary-auth-failure); empty: no more
    certificate                  reads server.pem and server.key from --tls-dir again, for new connections
"""


class GcmSimulator(Simulator):
    """The simulated service.

    `accounts` maps sender ids to API keys; empty: any. The attributes may be changed while it runs.
    """

    def __init__(  # noqa: PLR0913  # options, by keyword
        self,
        accounts: Mapping[str, str] | None = None,
        faults: Sequence[str] = (),
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls_dir: str | None = None,
        names: Sequence[str] = (),
        ack_delay_ms: float = 0.0,
        device_rate: int = 0,
        seed: int = 0,
        ledger_limit: int = 100_000,
    ) -> None:
        super().__init__("gcm", tls_dir, names, ledger_limit)
        self.accounts = dict(accounts or {})
        self.ack_delay_s = ack_delay_ms / 1000
        self.device_rate = DeviceRate(device_rate)
        #: False: pings of clients get no answer.
        self.answer_pings = True
        #: SASL mechanisms that are offered.
        self.mechanisms: Sequence[str] = ("PLAIN",)
        #: False: nobody can bind a resource.
        self.binds = True
        #: The SASL condition with which every login is refused; "": none is for that.
        self.refuses_logins = ""
        #: Arrivals of each message id, whatever became of them.
        self.arrivals: Counter[str] = Counter()
        #: What clients have acknowledged: receipts and upstream messages, by id.
        self.acknowledged: Counter[str] = Counter()
        #: connections, logins, refused-logins, pings, pongs, over-window.
        self.events: Counter[str] = Counter()
        #: What clients did against the protocol, one line each.
        self.violations: list[str] = []
        #: The most messages that were unanswered on one connection.
        self.max_pending = 0
        self.links: list[GcmLink] = []
        self.schedule = Schedule()
        self._faults = Faults(seed=seed)
        self.set_faults(faults)
        self._tls = self._context()
        self._address = (host, port)
        self._server: StreamServer | None = None
        self._greenlets = Pool()

    # --- life ---------------------------------------------------------------------------------------------------------
    @property
    def port(self) -> int:
        """Where it listens."""
        return self._address[1]

    def start(self) -> None:
        """Listens; may follow stop(), on the same port. Raises OSError when the port is taken."""
        self._server = StreamServer(self._address, self._accept, spawn=self._greenlets)
        self._server.start()
        self._address = (self._address[0], int(self._server.address[1]))
        self._greenlets.spawn(self.schedule.run)

    def stop(self) -> None:
        """Drops all connections and stops listening; waits some milliseconds."""
        if self._server is not None:
            self._server.close()
        for link in list(self.links):
            link.cut()
        self._greenlets.kill()

    def _accept(self, socket: Any, _address: object) -> None:
        link = GcmLink(self, socket, self._tls)
        self.links.append(link)
        self.events["connections"] += 1
        try:
            link.run()
        finally:
            self.links.remove(link)

    # --- from outside -------------------------------------------------------------------------------------------------
    def set_faults(self, script: Sequence[str]) -> None:
        """Replaces the script of faults. Raises FaultSyntaxError."""
        parsed = tuple(gcm_faults.parse(line) for line in script)
        self._faults.script = parsed

    def orders(self) -> Mapping[str, Order]:
        """What it can be told to do while it runs."""
        return {
            "faults": self.set_faults,
            "cut": lambda _: self.command("cut"),
            "certificate": lambda _: self.read_certificate(),
            "command": lambda lines: [self.command(line) for line in lines],
            "refuse-logins": self.refuse_logins,
        }

    def refuse_logins(self, conditions: Sequence[str]) -> None:
        """Refuses logins with this one SASL condition (RFC 6120, 6.5), or with none. Raises ValueError."""
        condition = "".join(conditions)
        if condition and not re.fullmatch("[a-z-]+", condition):
            raise ValueError(f"{condition!r} is no SASL condition")
        self.refuses_logins = condition

    def command(self, text: str) -> int:
        """Does an action of the faults' grammar to all connections that are logged in; returns their number."""
        fault = gcm_faults.parse(text)
        links = [link for link in self.links if link.bound]
        for link in links:
            link.do(fault, message=None)
        return len(links)

    def counts(self) -> dict[str, Any]:
        """The ledger's counts, and what happened beside the messages."""
        return self.ledger.counts() | {
            "events": dict(self.events),
            "max_pending": self.max_pending,
            "acknowledged": sum(self.acknowledged.values()),
            "open_connections": len(self.links),
            "violations": self.violations[-100:],
        }

    # --- what links ask -----------------------------------------------------------------------------------------------
    def knows(self, user: str, password: str) -> bool:
        """Whether these credentials may log in."""
        known = self.accounts.get(user) == password if self.accounts else bool(user and password)
        known = known and not self.refuses_logins
        self.events["logins" if known else "refused-logins"] += 1
        return known

    def violation(self, text: str) -> None:
        """Notes what a client did wrong."""
        self.violations.append(text)

    def arrived(self, message_id: str, pending: int) -> None:
        """Counts a message that came on a connection with so many unanswered ones, this one included."""
        self.arrivals[message_id] += 1
        self.max_pending = max(self.max_pending, pending)
        if pending > MAX_PENDING:
            self.events["over-window"] += 1

    def judge(self, message: dict[str, Any], size: int, *, draining: bool) -> tuple[Fault | None, Nack | None]:
        """The fault to play, and the error to answer with; writes the ledger."""
        token, message_id = str(message.get("to") or message.get("condition") or ""), message["message_id"]
        refused = _DRAINING if draining else self._refusal(message, token, size)
        fault = None if refused else self._faults.pick(token, message_id)
        if fault is not None:
            self.ledger.faults[fault.text] += 1
            if fault.action == "nack":
                refused = Nack(fault.arguments[0], f"simulated {fault.arguments[0]}")
        self.ledger.record(message_id, token, *_seen(fault, refused))
        return fault, refused

    def _refusal(self, message: dict[str, Any], token: str, size: int) -> Nack | None:
        refused = gcm_rules.refusal(message, size)
        if refused is None and not self.device_rate.takes(token, time.monotonic()):
            return Nack("DEVICE_MESSAGE_RATE_EXCEEDED", "Downstream message rate exceeded")
        return refused


def _seen(fault: Fault | None, refused: Nack | None) -> tuple[int, str]:
    """Status and reason of a message in the ledger."""
    if refused is not None:
        return 400, refused.error
    if fault is None:
        return 200, ""
    if fault.action == "stanza-error":
        return 400, fault.action
    hidden = fault.action in gcm_faults.UNANSWERED and not fault.delivered
    return (0, fault.action) if hidden else (200, "")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `simulate gcm`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = "Simulates Google's XMPP connection server over TLS."
    parser.epilog = f"{gcm_faults.__doc__}\n{ORDERS}"
    listen = parser.add_argument_group("where it listens")
    listen.add_argument("--host", default="127.0.0.1")
    listen.add_argument("--port", type=int, default=5235, help="port; 0 = a free port (%(default)s)")
    listen.add_argument(
        "--tls-dir", metavar="DIR", help="directory that keeps the certificates (default: a temporary one)"
    )
    listen.add_argument(
        "--name", action="append", default=[], help="name of this host in its certificate; may be repeated"
    )
    rules = parser.add_argument_group("what it accepts and answers")
    rules.add_argument("--account", action="append", default=[], metavar="SENDER:KEY", help="known account (any)")
    rules.add_argument("--ack-delay-ms", type=float, default=0, metavar="MS", help="delay before each answer (0)")
    rules.add_argument(
        "--device-rate",
        type=int,
        default=0,
        metavar="N",
        help="limit of messages per minute to a device (0 = no limit)",
    )
    command.add_record_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Runs until SIGINT or SIGTERM; waits. Returns the exit status."""
    return command.run("gcm", "{host}:{port}", lambda: from_arguments(args), args)


def from_arguments(args: argparse.Namespace) -> GcmSimulator:
    """The simulator that the flags ask for. Raises OSError, ValueError."""
    accounts = dict(account.partition(":")[::2] for account in args.account)
    return GcmSimulator(
        accounts,
        args.fault,
        host=args.host,
        port=args.port,
        tls_dir=args.tls_dir,
        names=args.name,
        ack_delay_ms=args.ack_delay_ms,
        device_rate=args.device_rate,
        seed=args.seed,
        ledger_limit=args.ledger_limit,
    )
