"""Simulated and measured traffic for the acceptance and decision benchmarks.

Every generator takes a numpy Generator and returns one stream; everything is reproducible from
its seed, except :func:`measured_latencies`, which times a real server on this machine.
"""

from __future__ import annotations

import json
import multiprocessing
import socket
import struct
import time
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import signal

Array = npt.NDArray[np.float64]

MEDIAN_SECONDS = 0.020


def arms(rng: np.random.Generator, n: int, share: float) -> Array:
    """1 where the challenger serves."""
    return (rng.random(n) < share).astype(np.float64)


def ar1(rng: np.random.Generator, n: int, phi: float) -> Array:
    """A stationary AR(1) sequence with variance 1."""
    noise = rng.standard_normal(n) * np.sqrt(1.0 - phi * phi)
    noise[0] = rng.standard_normal()
    return np.asarray(signal.lfilter([1.0], [1.0, -phi], noise))


def wandering_rate(rng: np.random.Generator, n: int, base: float) -> Array:
    """A success probability with AR(.99) bursts on the logit scale and a drift over the stream."""
    logit = np.log(base / (1.0 - base)) + ar1(rng, n, 0.99) + np.linspace(-0.5, 0.5, n)
    return np.asarray(1.0 / (1.0 + np.exp(-logit)))


def latencies(rng: np.random.Generator, n: int, sigma: float = 0.5) -> Array:
    """Lognormal with median 20 ms, in seconds."""
    return MEDIAN_SECONDS * np.exp(sigma * rng.standard_normal(n))


def bursty_latencies(rng: np.random.Generator, n: int, sigma: float = 0.5) -> Array:
    """The same under a common AR(.99) level and a drift of a factor e^0.5."""
    level = 0.5 * ar1(rng, n, 0.99) + np.linspace(0.0, 0.5, n)
    return latencies(rng, n, sigma) * np.exp(level)


# --- a real server ------------------------------------------------------------------------------

_HEAD = struct.Struct("<I")


def _serve(end: socket.socket) -> None:
    """Answers requests of JSON features with the prediction of a small dense model."""
    rng = np.random.default_rng(0)
    layers = [rng.standard_normal((30, 64)), rng.standard_normal((64, 64)), rng.standard_normal(64)]
    while True:
        head = end.recv(4, socket.MSG_WAITALL)
        if len(head) < 4:
            return
        body = end.recv(_HEAD.unpack(head)[0], socket.MSG_WAITALL)
        x = np.array(json.loads(body)["features"])
        for layer in layers[:-1]:
            x = np.maximum(x @ layer, 0.0)
        answer = json.dumps({"prediction": float(x @ layers[-1])}).encode()
        end.sendall(_HEAD.pack(len(answer)) + answer)


@lru_cache(maxsize=2)
def measured_latencies(n: int) -> Array:
    """``n`` round trips to a model server in another process, in order, in seconds.

    A request is 30 features as JSON over a Unix socket; the answer is a small network's prediction.
    What the operating system, the garbage collector and the other processes of the machine do to it
    gives a heavy, autocorrelated tail that no formula made.
    """
    here, there = socket.socketpair()
    server = multiprocessing.get_context("fork").Process(target=_serve, args=(there,), daemon=True)
    server.start()
    there.close()
    rng = np.random.default_rng(1)
    bodies = [
        json.dumps({"features": rng.standard_normal(30).round(4).tolist()}).encode()
        for _ in range(64)
    ]
    out = np.empty(n)
    for i in range(n):
        body = bodies[i % 64]
        begin = time.perf_counter()
        here.sendall(_HEAD.pack(len(body)) + body)
        size = _HEAD.unpack(here.recv(4, socket.MSG_WAITALL))[0]
        json.loads(here.recv(size, socket.MSG_WAITALL))
        out[i] = time.perf_counter() - begin
    here.close()
    server.join(5.0)
    return out


def measured_stream(n: int, trace: Array) -> Callable[[np.random.Generator], Array]:
    """Stretches of a measured trace, from a random start and wrapping around, order kept."""

    def draw(rng: np.random.Generator) -> Array:
        start = int(rng.integers(trace.size))
        return np.take(trace, np.arange(start, start + n), mode="wrap")

    return draw
