"""The plain send loop: the sender alone against a receiver, as fast as it goes.

    python -m tests.bench.send_loop --requests 200000 --concurrency 128

starts a receiver of its own and prints what was measured.
"""

import argparse
import asyncio
import json
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from ipaddress import IPv4Network

import uvloop

from dispatcher.core.addresses import AddressPolicy
from dispatcher.core.exchange import Request, Response
from dispatcher.core.urls import parse_endpoint_url
from dispatcher.http.sender import Sender

_BODY = b'{"id":"evt_0123456789","type":"user.created","created_at":"2026-01-15T10:30:00Z","data":{"id":"u_1","n":1}}'
_HEADERS = (
    "Content-Type: application/json\r\nUser-Agent: Dispatcher-Webhooks/1.0\r\nX-Webhook-Id: wh_0123456789abcdef\r\n"
    "X-Webhook-Event: user.created\r\nX-Webhook-Signature: sha256={hex}\r\nX-Signature-256: sha256={hex}\r\n"
    "X-Signature: {hex}\r\nwebhook-id: del_abcdefghijklmnopqrstuvwxyz\r\nwebhook-timestamp: 1768473000\r\n"
    "webhook-signature: v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=\r\nX-Webhook-Attempt: 1\r\n"
)


@dataclass(frozen=True)
class SendLoopResult:
    """What a send loop measured.

    Attributes:
        per_second: Answered requests a second.
        cpu_us_each: CPU time of this process for each, in microseconds, kernel time included.
        failed: Requests without a 2xx answer.
    """

    per_second: float
    cpu_us_each: float
    failed: int


class _Loop:
    """A closed loop: each answer sends the next request."""

    def __init__(self, sender: Sender, request: Request, requests: int) -> None:
        self._sender = sender
        self._request = request
        self._unsent = self._unanswered = requests
        self.failed = 0
        self.ended = asyncio.get_running_loop().create_future()

    def step(self) -> None:
        if self._unsent:
            self._unsent -= 1
            self._sender.send(self._request, self._answered)

    def _answered(self, response: Response) -> None:
        if not 200 <= response.status < 300:
            self.failed += 1
        self._unanswered -= 1
        if not self._unanswered:
            self.ended.set_result(None)
        elif self._unsent:
            self._unsent -= 1
            self._sender.send(self._request, self._answered)


def make_request(url: str, *, timeout_seconds: float = 30) -> Request:
    """Make a webhook of the usual size: 700 bytes of headers, 110 of body."""
    endpoint = parse_endpoint_url(url)
    head = (
        f"POST {endpoint.target} HTTP/1.1\r\nHost: {endpoint.host_header}\r\n"
        f"{_HEADERS.format(hex='0123456789abcdef' * 4)}Content-Length: {len(_BODY)}\r\n\r\n"
    )
    return Request(endpoint, head.encode(), _BODY, timeout_seconds, "bench")


async def measure_send_loop(url: str, requests: int, concurrency: int) -> SendLoopResult:
    """Send requests in a closed loop and measure this process's CPU time.

    Args:
        url: An http URL on the loopback.
        requests: How many are measured; a tenth more are sent before, to warm up.
        concurrency: How many are in flight at a time, each on its own connection.
    """
    sender = Sender(AddressPolicy(allow_http=True, allowed_networks=(IPv4Network("127.0.0.0/8"),)))
    request = make_request(url)
    try:
        await _run(sender, request, max(requests // 10, concurrency), concurrency)
        cpu, wall = time.process_time(), time.perf_counter()
        failed = await _run(sender, request, requests, concurrency)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    finally:
        await sender.close()
    return SendLoopResult(round(requests / wall, 1), round(cpu / requests * 1e6, 3), failed)


async def _run(sender: Sender, request: Request, requests: int, concurrency: int) -> int:
    loop = _Loop(sender, request, requests)
    for _ in range(min(concurrency, requests)):
        loop.step()
    await loop.ended
    return loop.failed


@asynccontextmanager
async def running_receiver():
    """Run a receiver in a process of its own; yields its base URL."""
    command = ("-m", "tests.bench.receiver", "--stop-with-parent")
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    try:
        port = json.loads(await process.stdout.readline())["port"]
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


async def _main(requests: int, concurrency: int) -> None:
    async with running_receiver() as url:
        result = await measure_send_loop(f"{url}/hook", requests, concurrency)
    print(json.dumps(asdict(result)))


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--requests", type=int, default=100_000)
    arguments.add_argument("--concurrency", type=int, default=128)
    options = arguments.parse_args()
    uvloop.run(_main(options.requests, options.concurrency))
