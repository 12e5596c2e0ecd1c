"""Writes push requests for a load test, one JSON message a line, for `pusher enqueue` or Kafka's console producer.

Asks for what the command line does not say. The same seed gives the same file.
"""

import argparse
import random
import string
import sys
from collections.abc import Iterator
from pathlib import Path

ALPHABET = string.ascii_uppercase + string.digits

#: service -> (characters of a token, message before the token, message after it)
MESSAGES = {
    "apns": (
        64,
        '{"DeviceToken":"',
        (
            '","Payload":{"aps":{"alert":"Helena miss you! come play!"}},"push_expiry":0,'
            ' "metadata": {"jobId": "86edb3c3-6b5e-40dc-9f14-4ba831daf87c"}}'
        ),
    ),
    "gcm": (
        152,
        '{"to": "',
        (
            '", "notification": {"title": "Come play!", "body": "Helena miss you! come play!"}, "dry_run": true,'
            ' "metadata": {"jobId": "77372c1e-c124-4552-b77a-f4775bbad850"}}'
        ),
    ),
}


def messages(service: str, number: int, seed: int | None = None) -> Iterator[str]:
    """That many messages for "apns" or "gcm", each to another random token."""
    length, head, tail = MESSAGES[service]
    source = random.Random(seed)
    for _ in range(number):
        yield head + "".join(source.choices(ALPHABET, k=length)) + tail


def ask(question: str) -> str:
    """One line from the terminal; the question goes to stderr so that the output can be piped."""
    print(question, end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    if not line:
        sys.exit("create_bench: no answer; see --help for the options")
    return line.strip()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--service", choices=sorted(MESSAGES))
    parser.add_argument("--number", type=int, help="of messages")
    parser.add_argument("--seed", type=int, help="default: another one each time")
    arguments = parser.parse_args()
    if arguments.service is None and arguments.file.exists():
        ask(f"{arguments.file} will be erased: RETURN to go on, ^C to stop ")
    service = arguments.service or ("apns" if ask("service (apns or gcm): ") == "apns" else "gcm")
    number = int(ask("number of messages: ")) if arguments.number is None else arguments.number
    with arguments.file.open("w") as file:
        file.writelines(f"{message}\n" for message in messages(service, number, arguments.seed))


if __name__ == "__main__":
    main()
