"""Sends pushes with aioapns and prints what they cost, as JSON.

    send_with_aioapns.py PORT CERTIFICATE.pem KEY.p8 PUSHES IN-FLIGHT

Runs in a virtual environment of its own, with aioapns in it and nothing of pusher.
"""

import asyncio
import json
import ssl
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from aioapns import APNs, NotificationRequest, PushType
from aioapns.connection import APNsProductionClientProtocol

PAYLOAD = {
    "aps": {"alert": "Helena miss you! come play!"},
    "M": {"jobId": "86edb3c3-6b5e-40dc-9f14-4ba831daf87c"},
}


async def push(client: APNs, number: int) -> None:
    """Send one and wait for its answer."""
    request = NotificationRequest(
        device_token=f"{number:064X}",
        message=PAYLOAD,
        notification_id=f"0f8fad5b-d9cb-469f-a165-{number:012x}",
        push_type=PushType.ALERT,
    )
    result = await client.send_notification(request)
    if not result.is_successful:
        sys.exit(f"refused: {result.status} {result.description}")


async def work(client: APNs, numbers: Iterator[int]) -> None:
    """Send one after the other, while there are any."""
    for number in numbers:
        await push(client, number)


async def main(port: str, certificate: str, key: str, pushes: str, in_flight: str) -> None:
    """Send them all over one connection; key is the text of the file."""
    APNsProductionClientProtocol.APNS_SERVER = "localhost"
    APNsProductionClientProtocol.APNS_PORT = int(port)
    context = ssl.create_default_context(cafile=certificate)
    context.set_alpn_protocols(["h2"])
    client = APNs(
        key=key,
        key_id="BENCH12345",
        team_id="BENCHTEAM1",
        topic="com.example.game",
        max_connections=1,
        ssl_context=context,
    )
    await push(client, 0)  # connected from here on
    cpu_s, clock_s = time.process_time(), time.monotonic()
    numbers = iter(range(1, int(pushes) + 1))
    await asyncio.gather(*(work(client, numbers) for _ in range(int(in_flight))))
    cpu_s, clock_s = time.process_time() - cpu_s, time.monotonic() - clock_s
    print(json.dumps([[cpu_s / int(pushes) * 1e6, int(pushes) / clock_s]]))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]).read_text(), sys.argv[4], sys.argv[5]))
