"""Load: wrk in a closed loop for cost and throughput, an open loop of our own for latency."""

from __future__ import annotations

import asyncio
import json
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import cast

import uvloop

from benchmarks.proxy.contenders import PATH
from tests.parts import environment, find

LOAD_CORE = "1"
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


def body(rows: int) -> bytes:
    """A request of ``rows`` rows of 20 features in the Open Inference Protocol."""
    pick = random.Random(rows)
    data = [round(pick.random(), 4) for _ in range(rows * 20)]
    tensor = {"name": "x", "shape": [rows, 20], "datatype": "FP64", "data": data}
    return json.dumps({"id": "0", "inputs": [tensor]}).encode()


def closed_loop(port: int, script: Path, connections: int, seconds: int) -> dict[str, float]:
    """wrk for ``seconds``: requests, requests per second, errors, p50 and p99 in seconds."""
    wrk = find("wrk")
    if wrk is None:
        raise RuntimeError("wrk is not here; `make parts` fetches it")
    done = subprocess.run(
        ["taskset", "-c", LOAD_CORE, str(wrk), "-t1", f"-c{connections}", f"-d{seconds}s",
         "--latency", "-s", str(script), f"http://127.0.0.1:{port}{PATH}"],
        capture_output=True, text=True, env=environment(), check=True,
    )  # fmt: skip
    text = done.stdout

    def found(pattern: str) -> float:
        match = re.search(pattern, text)
        return float(match[1]) if match else 0.0

    def latency(name: str) -> float:
        match = re.search(rf"{name}%\s+([\d.]+)(us|ms|s)", text)
        return float(match[1]) * _UNITS[match[2]] if match else 0.0

    return {
        "requests": found(r"(\d+) requests in"),
        "per_second": found(r"Requests/sec:\s+([\d.]+)"),
        "errors": found(r"Non-2xx or 3xx responses: (\d+)"),
        "p50": latency("50"),
        "p99": latency("99"),
    }


def write_script(folder: Path, rows: int) -> Path:
    """wrk's Lua script that posts a body of ``rows`` rows."""
    payload = folder / f"body-{rows}.json"
    payload.write_bytes(body(rows))
    script = folder / f"post-{rows}.lua"
    script.write_text(
        f'local f = io.open("{payload}", "rb")\n'
        'wrk.method = "POST"\nwrk.body = f:read("*a")\nf:close()\n'
        'wrk.headers["Content-Type"] = "application/json"\n'
    )
    return script


class _Connection(asyncio.Protocol):
    """One request at a time; counts from the moment that was meant."""

    def __init__(self, loop: _OpenLoop) -> None:
        self.loop = loop
        self.due = 0.0
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.buffer[:end].lower()
        length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
        if len(self.buffer) < end + 4 + length:
            return
        ok = self.buffer.startswith(b"HTTP/1.1 200")
        self.buffer = b""
        self.loop.answered(self, time.perf_counter() - self.due, ok)

    def connection_lost(self, exc: Exception | None) -> None:
        self.loop.failed += 1


class _OpenLoop:
    def __init__(self, message: bytes) -> None:
        self.message = message
        self.idle: list[_Connection] = []
        self.latencies: list[float] = []
        self.waiting: list[float] = []
        self.failed = 0

    def send(self, due: float) -> None:
        if self.idle:
            connection = self.idle.pop()
            connection.due = due
            connection.transport.write(self.message)
        else:
            self.waiting.append(due)

    def answered(self, connection: _Connection, latency: float, ok: bool) -> None:
        self.latencies.append(latency)
        self.failed += not ok
        if self.waiting:
            connection.due = self.waiting.pop(0)
            connection.transport.write(self.message)
        else:
            self.idle.append(connection)

    async def run(self, port: int, rate: float, seconds: float, seed: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(64):
            _, connection = await loop.create_connection(
                lambda: _Connection(self), "127.0.0.1", port
            )
            self.idle.append(connection)
        pick = random.Random(seed)
        now = time.perf_counter()
        end = now + seconds
        due = now
        sent = 0
        while due < end:
            due += pick.expovariate(rate)
            while True:
                wait = due - time.perf_counter()
                if wait <= 0:
                    break
                # The loop's timer ticks in milliseconds; the last one is spun away, reading as it
                # goes.
                await asyncio.sleep(wait - 0.001 if wait > 0.0015 else 0)
            self.send(due)
            sent += 1
        for _ in range(500):
            if len(self.latencies) >= sent:
                break
            await asyncio.sleep(0.01)
        self.failed += sent - len(self.latencies)


def open_loop(port: int, rate: float, seconds: float, seed: int) -> dict[str, float]:
    """Poisson arrivals at ``rate`` per second in a process of its own on the load's core."""
    done = subprocess.run(
        ["taskset", "-c", LOAD_CORE, sys.executable, "-m", "benchmarks.proxy.load", str(port),
         str(rate), str(seconds), str(seed)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _main(port: int, rate: float, seconds: float, seed: int) -> None:
    payload = body(1)
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(payload)}\r\n\r\n"
    )
    load = _OpenLoop(head.encode() + payload)
    uvloop.run(load.run(port, rate, seconds, seed))
    ordered = sorted(load.latencies)

    def at(p: float) -> float:
        return ordered[min(len(ordered) - 1, int(p * len(ordered)))]

    quantiles = {"p50": at(0.5), "p99": at(0.99), "p99.9": at(0.999)}
    print(json.dumps({"requests": len(ordered), "failed": load.failed, **quantiles}))


if __name__ == "__main__":
    _main(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
