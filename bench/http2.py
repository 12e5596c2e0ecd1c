"""What a request costs the HTTP/2 engine: CPU of this process, sender and reader together, TLS included.

    python -m bench.http2 [--requests 100000] [--in-flight 300] [--body 200] [--runs 3] [--profile]

A child process answers every request with ":status 200" and an apns-id; it works on raw frames and costs little, and
its CPU is not counted. Times on a shared machine scatter upwards: the minimum of the runs is the figure to compare.
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402 - gevent patches first
import cProfile  # noqa: E402
import os  # noqa: E402
import pstats  # noqa: E402
import resource  # noqa: E402
import ssl  # noqa: E402
import struct  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
from gevent.queue import SimpleQueue  # noqa: E402

from pusher.http2 import End, Exchange, Fields, Origin, Pool, literal_field  # noqa: E402
from tests.http2_server import Files, make_files  # noqa: E402

HEAD = struct.Struct(">IBI")
BLOCKING_SOCKET: Any = monkey.get_original("socket", "socket")
ID = b"eabeae54-14a8-11e5-b60b-1697f925ec7b"
ANSWER = b"\x88" + literal_field(b"apns-id", ID)
PREFACE_OCTETS = 24
PATH = b"/3/device/740f4707bebcf74f9b7c25d48e3358945f6aa01da5ddb387462c7eaf61bb78ad"
FIELDS = Fields(
    (b"authorization", b"bearer " + b"x" * 230),
    (b"apns-topic", b"com.example.game"),
    (b"apns-push-type", b"alert"),
)


def serve(listener: Any, context: ssl.SSLContext) -> None:
    """Answer the requests of one connection until it closes. Blocks; runs in the child."""
    sock, _ = listener.accept()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_side=True)
    ready = False
    data, position = b"", PREFACE_OCTETS
    while chunk := sock.recv(65536):
        incoming.write(chunk)
        out = []
        try:
            if not ready:
                tls.do_handshake()
                ready = True
                # At most 1000 streams; the client's SETTINGS acknowledged; a large window for the connection.
                out += [HEAD.pack(6 << 8 | 4, 0, 0), b"\0\x03\0\0\x03\xe8", HEAD.pack(4, 1, 0)]
            while part := tls.read(65536):
                data += part
        except ssl.SSLWantReadError:
            pass
        taken, answers = answers_to(data, position)
        out += answers
        if taken > PREFACE_OCTETS:
            data, position = data[taken:], 0
        if out:
            tls.write(b"".join(out))
        if outgoing.pending:
            sock.sendall(outgoing.read())


def answers_to(data: bytes, position: int) -> tuple[int, list[bytes]]:
    """Where the first incomplete frame begins, and the frames that answer the requests before it."""
    received = 0
    out = []
    while len(data) - position >= 9:
        word, _, stream_id = HEAD.unpack_from(data, position)
        if position + 9 + (word >> 8) > len(data):
            break
        position += 9 + (word >> 8)
        if word & 0xFF == 0:
            received += word >> 8
            out += [HEAD.pack(len(ANSWER) << 8 | 1, 5, stream_id), ANSWER]
    if received:
        out += [HEAD.pack(4 << 8 | 8, 0, 0), struct.pack(">I", received)]
    return position, out


def start_server(files: Files) -> tuple[int, int]:
    """Fork the responder; returns its port and process id."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    context.set_alpn_protocols(["h2"])
    listener = BLOCKING_SOCKET()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    process = os.fork()
    if not process:
        try:
            serve(listener, context)
        finally:
            os._exit(0)
    port: int = listener.getsockname()[1]
    listener.close()
    return port, process


def exercise(pool: Pool, answers: "SimpleQueue[list[Exchange]]", requests: int, body: bytes) -> None:
    """Send them all, as a service does: a sender greenlet, and a responder that reads lists of ended exchanges."""

    def send() -> None:
        sent = 0
        while sent < requests:
            count = min(pool.wait_for_room(10), 64, requests - sent)
            pool.send([Exchange(None, FIELDS, PATH, literal_field(b"apns-id", ID), body) for _ in range(count)])
            sent += count

    sender = gevent.spawn(send)
    answered = 0
    while answered < requests:
        for exchange in answers.get():
            if exchange.end is not End.RESPONSE or exchange.status != 200:
                sys.exit(f"unexpected: {exchange!r}")
            answered += 1
    sender.get()


def run(files: Files, requests: int, in_flight: int, body: bytes) -> tuple[float, float]:
    """CPU us a request, and requests a second, over one connection."""
    port, process = start_server(files)
    answers: SimpleQueue[list[Exchange]] = SimpleQueue()
    pool = Pool(Origin("localhost", port), files.client_context, answers, max_in_flight=in_flight)
    pool.start()
    if not pool.wait_for_room(10):
        sys.exit(f"no link: {pool.state()}")
    cpu_s, clock_s = time.process_time(), time.monotonic()
    exercise(pool, answers, requests, body)
    cpu_s, clock_s = time.process_time() - cpu_s, time.monotonic() - clock_s
    pool.close(1)
    os.waitpid(process, 0)
    return cpu_s / requests * 1e6, requests / clock_s


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--in-flight", type=int, default=300)
    parser.add_argument("--body", type=int, default=200, help="octets")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="show where the time goes; distorts the figures")
    options = parser.parse_args()
    profile = cProfile.Profile() if options.profile else None
    with tempfile.TemporaryDirectory() as directory:
        files = make_files(Path(directory))
        figures = []
        for _ in range(options.runs):
            if profile:
                profile.enable()
            figures.append(run(files, options.requests, options.in_flight, b"x" * options.body))
            if profile:
                profile.disable()
            cpu_us, rate = figures[-1]
            print(f"{cpu_us:6.2f} us CPU a request, {rate:7.0f} requests/s")
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"minimum {min(figures)[0]:.2f} us; peak memory {peak_mib:.1f} MiB")
    if profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
