"""gRPC through a real worker: a server and clients of grpcio, without generated code."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from time import sleep
from typing import Any

import grpc

from tests.support.proxy import plan_for
from understudy.monitor.routing.plan import Challenger, Model, Plan

SERVICE = "/inference.GRPCInferenceService/"
INFER = SERVICE + "ModelInfer"
STREAM = SERVICE + "ModelStreamInfer"
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def same(data: bytes) -> bytes:
    """Messages are bytes."""
    return data


@dataclass
class GrpcServer:
    """A model server. The methods, by the last part of their path:

    ``ModelInfer`` answers ``mark`` and the message; ``ModelStreamInfer`` each message in turn;
    ``Fail`` a status without a message; ``Large`` as many bytes as the message says; ``Slow`` waits
    until its call is cancelled; ``Never`` sends one message, then waits so.
    """

    mark: bytes = b""
    seen: list[tuple[str, list[tuple[str, Any]], bytes]] = field(default_factory=list)
    left: list[float | None] = field(default_factory=list)
    """Seconds that each call had left."""
    cancelled: threading.Event = field(default_factory=threading.Event)
    begun: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    def service(self, details: Any) -> Any:
        name = details.method.rpartition("/")[2]
        metadata = [tuple(one) for one in details.invocation_metadata]

        def note(data: bytes, context: Any) -> None:
            self.seen.append((details.method, metadata, data))
            self.left.append(context.time_remaining())

        def unary(data: bytes, context: Any) -> bytes:
            note(data, context)
            context.send_initial_metadata([("x-model", "m"), ("x-raw-bin", b"\x00\xff")])
            context.set_trailing_metadata([("x-cost", "3"), ("x-more-bin", b"\x01")])
            return self.mark + data

        def stream(messages: Any, context: Any) -> Any:
            for data in messages:
                note(data, context)
                yield self.mark + data

        def fail(data: bytes, context: Any) -> bytes:
            note(data, context)
            context.set_trailing_metadata([("grpc-status-details-bin", b"\x08\x05")])
            context.abort(getattr(grpc.StatusCode, data.decode()), "not here: \u00e9 100%")
            raise AssertionError

        def large(data: bytes, context: Any) -> Any:
            for _ in range(int(data) >> 16):
                yield bytes(1 << 16)

        def slow(data: bytes, context: Any) -> bytes:
            note(data, context)
            wait(context)
            return b""

        def never(data: bytes, context: Any) -> Any:
            yield b"one"
            wait(context)

        def wait(context: Any) -> None:
            context.add_callback(self.cancelled.set)
            self.begun.set()
            self.cancelled.wait(30)

        single = {"ModelInfer": unary, "Fail": fail, "Slow": slow}
        if name in single:
            return grpc.unary_unary_rpc_method_handler(single[name])
        if name == "ModelStreamInfer":
            return grpc.stream_stream_rpc_method_handler(stream)
        several = {"Large": large, "Never": never}
        return grpc.unary_stream_rpc_method_handler(several[name]) if name in several else None


@contextlib.contextmanager
def grpc_server(mark: bytes = b"", port: int = 0, **options: Any) -> Iterator[GrpcServer]:
    """A running server."""
    state = GrpcServer(mark)
    pool = ThreadPoolExecutor(16)
    server = grpc.server(pool, options=[*UNLIMITED, *options.items(), ("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((state,))
    state.port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield state
    finally:
        stopped = server.stop(0)
        state.cancelled.set()
        stopped.wait()
        pool.shutdown()


def grpc_plan(champion: int, *challengers: Challenger, **limits: Any) -> Plan:
    """A plan whose model servers speak HTTP/2, and whose model is called over gRPC."""
    plan = plan_for(champion, *challengers, **limits)
    paths = tuple(SERVICE + name for name in ("ModelInfer", "ModelStreamInfer", "Fail", "Slow"))
    return replace(
        plan,
        champion=replace(plan.champion, http2=True),
        models=(Model("m", "1", "auto", (*paths, SERVICE + "Never", SERVICE + "Large")),),
        challengers=tuple(
            replace(one, upstream=replace(one.upstream, http2=True)) for one in challengers
        ),
    )


@contextlib.contextmanager
def channel(port: int, **options: Any) -> Iterator[grpc.Channel]:
    """A client's channel of its own."""
    given = [*UNLIMITED, *options.items(), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=given) as found:
        yield found


def call(
    port: int, data: bytes, path: str = INFER, **options: Any
) -> tuple[bytes, list[Any], list[Any]]:
    """One unary call: the message, and the metadata in front of it and behind it."""
    with channel(port) as found:
        message, about = found.unary_unary(path).with_call(data, timeout=20, **options)
        return message, list(about.initial_metadata()), list(about.trailing_metadata())


def failure(work: Callable[[], Any]) -> grpc.Call:
    """The error that a call ends with."""
    try:
        work()
    except grpc.RpcError as error:
        assert isinstance(error, grpc.Call)
        return error
    raise AssertionError("the call succeeded")


def slowly(messages: list[bytes], seconds: float) -> Iterator[bytes]:
    """The messages, with a pause after each."""
    for data in messages:
        yield data
        sleep(seconds)
