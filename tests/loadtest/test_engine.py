"""The open loop: arrivals as they should be, and latencies that count from when they were due."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from tests.support.certificates import self_signed
from tests.support.load_server import Server
from tests.support.outcomes import outcome_of
from tests.support.patience import patient
from understudy.loadtest.engine.arrivals import Piece, Profile, arrivals
from understudy.loadtest.engine.histogram import Histogram
from understudy.loadtest.engine.outcome import Outcome, percentiles
from understudy.loadtest.engine.pool import Loop, Open, Target, drive
from understudy.loadtest.engine.recorder import FinishedRequests
from understudy.loadtest.engine.sender import Endpoint, Sender
from understudy.loadtest.errors import LoadTestError, TargetError
from understudy.loadtest.payloads.checks import Checks
from understudy.loadtest.payloads.request import Payload
from understudy.loadtest.scenarios.shapes import steady


def moments(profile: Profile, processes: int = 1, kind: str = "poisson") -> np.ndarray:
    parts = [
        np.concatenate([np.zeros(0), *arrivals(profile, kind, (5, index), 1.0 / processes)])
        for index in range(processes)
    ]
    return np.sort(np.concatenate(parts))


@pytest.mark.parametrize("processes", [1, 3])
def test_arrivals_are_poisson_whatever_the_number_of_processes(processes: int) -> None:
    found = moments(steady(500.0, 40.0), processes)
    # Poisson of 20,000: six standard deviations.
    assert abs(len(found) - 20_000) < 6.0 * 20_000**0.5
    # A true one fails with probability 1e-7.
    assert kstest(np.diff(found) * 500.0, "expon").pvalue > 1e-7


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.floats(0.5, 20), st.floats(0, 200), st.floats(0, 200)), min_size=1, max_size=5
    )
)
def test_profiles_are_inverted_exactly(parts: list[tuple[float, float, float]]) -> None:
    profile = Profile(tuple(Piece(*part) for part in parts))
    assume(profile.count > 1.0)
    inside = np.linspace(0.0, profile.count, 50, endpoint=False)
    at = profile.moments(inside)
    assert np.isfinite(at).all()
    assert profile.passed(at) == pytest.approx(inside, rel=1e-6, abs=1e-5)
    assert (np.diff(at) >= -1e-6).all()


def test_even_arrivals_of_processes_interleave() -> None:
    found = moments(steady(10.0, 3.0), 3, "even")
    assert found == pytest.approx((np.arange(30) + 0.5) / 10.0)


@given(st.lists(st.floats(1e-6, 100.0), min_size=1, max_size=300), st.floats(0.01, 1.0))
def test_histograms_merge_and_hold_one_per_cent(values: list[float], p: float) -> None:
    x = np.array(values)
    whole, left, right = Histogram(), Histogram(), Histogram()
    whole.add(x)
    left.add(x[::2])
    right.add(x[1::2])
    left.merge(right)
    assert (left.counts == whole.counts).all()
    exact = np.sort(x)[max(1, int(np.ceil(p * len(x)))) - 1]
    assert whole.quantile(p) == pytest.approx(exact, rel=0.012)
    again = Histogram.from_dict(json.loads(json.dumps(whole.to_dict())))
    assert again.quantile(p) == whole.quantile(p)


def requests(path: str = "/", body: bytes = b"{}") -> list[bytes]:
    return [Payload(body, path=path).to_bytes("test")]


def test_a_steady_server_is_measured_correctly() -> None:
    with Server(slots=64, seconds=0.02) as server:
        target = Target("127.0.0.1", server.port)
        found = drive(target, requests(), Open(steady(100.0, 4.0), seed=3), processes=2)
    assert abs(found.count - 400) < 6 * 20
    assert found.failed == 0
    assert found.statuses == {"200": found.count}
    median = found.quantile(0.5)
    assert median is not None
    assert found.latency.min() >= 0.019
    assert median < found.seconds, "in seconds, from when each was due"
    assert found.lag_p99 is not None
    assert (np.diff(found.due) >= 0.0).all()
    assert [p for p, _ in percentiles(found)] == sorted(p for p, _ in percentiles(found))


def test_a_stall_cannot_hide() -> None:
    """The server is stopped for a second: everything that was due then waited for it."""
    with Server(slots=512) as server:
        assert server.process is not None
        pid = server.process.pid
        moments: list[float] = []
        under_way = threading.Event()

        def look(outcome: Outcome) -> bool:
            if outcome.count > 200:
                under_way.set()
            return False

        def stall() -> None:
            under_way.wait()
            os.kill(pid, signal.SIGSTOP)
            moments.append(time.time())
            time.sleep(1.0)
            moments.append(time.time())
            os.kill(pid, signal.SIGCONT)

        thread = threading.Thread(target=stall)
        thread.start()
        target = Target("127.0.0.1", server.port, connections=1024)
        found = drive(target, requests(), Open(steady(200.0, 8.0), seed=4), watch=look)
        under_way.set()
        thread.join()
    assert found.failed == 0
    begin, end = (at - found.begun for at in moments)
    waited = (found.latency > 0.1) & (found.due > begin) & (found.due < end)
    # Of 200 per second, those that were due 0.1 s before its end or earlier waited for that long.
    stalled = end - begin
    noise = 5.0 * (200.0 * stalled) ** 0.5
    assert 200.0 * (stalled - 0.1) - noise <= waited.sum() <= 200.0 * stalled + noise
    assert found.latency[waited].max() > stalled - 0.1
    # Latencies fall along a line while the stall lasts, as they do when nothing is left out.
    slow_due, slow = found.due[waited], found.latency[waited]
    assert np.corrcoef(slow_due, slow)[0, 1] < -0.9


def test_closed_loops_send_after_each_response() -> None:
    with Server(slots=64, seconds=0.05) as server:
        target = Target("127.0.0.1", server.port)
        single = drive(target, requests(), Loop(1, 1, 20, 30.0))
        many = drive(target, requests(), Loop(1, 8, 10, 30.0))
        timed = drive(target, requests(), Loop(4, 1, None, 1.0))
    assert (single.count, many.count) == (20, 80)
    assert single.seconds >= 1.0
    assert len(np.unique(many.due)) == 10
    by_query = np.sort(many.latency.reshape(10, 8), axis=1)
    # Eight in turn would take eight times as long as one.
    assert np.median(by_query[:, -1] / by_query[:, 0]) < 4.0, "eight at the same time"
    assert timed.count >= 8
    assert single.failed == many.failed == timed.failed == 0


def test_responses_are_checked() -> None:
    checks = Checks(
        schema={"type": "object", "required": ["predictions"]},
        expected=[{"/predictions/0": 0.5}, {"/predictions/0": 0.7}],
        tolerance=0.01,
    )
    with Server() as server:
        target = Target("127.0.0.1", server.port)
        both = [*requests(), *requests()]
        found = drive(target, both, Open(steady(100.0, 1.0), seed=5), checks)
        text = drive(target, requests("/text"), Open(steady(50.0, 0.5), seed=6), checks)
        broken = drive(target, requests("/broken"), Open(steady(50.0, 0.5), seed=7))
    assert found.errors == {"unexpected prediction": found.failed}
    assert abs(found.failed - found.count / 2) <= 1
    assert text.errors == {"response is not JSON": text.count}
    assert broken.failed == broken.count > 0
    assert broken.statuses == {"503": broken.count}


class Prepared:
    """A check that has to be prepared."""

    body = True
    ready = False

    def prepare(self) -> None:
        self.ready = True

    def __call__(self, payload: int, status: int, headers: bytes, body: bytes) -> str:
        return "" if self.ready else "not prepared"


def test_checks_are_prepared_before_the_first_request() -> None:
    """Importing and building the validator of a schema took a second, in which a sending process
    sent nothing: every gate with a schema had a late generator."""
    with Server() as server:
        target = Target("127.0.0.1", server.port)
        found = drive(target, requests(), Open(steady(50.0, 0.5), seed=9), Prepared())
    assert found.count > 0
    assert found.errors == {}
    checks = Checks(schema={"type": "object"})
    checks.prepare()
    assert checks._validator is not None


def test_an_unreachable_target_is_an_error_and_one_that_dies_is_measured() -> None:
    with pytest.raises(TargetError, match="no server listens"):
        drive(Target("127.0.0.1", 1), requests(), Open(steady(50.0, 0.5)))
    with pytest.raises(LoadTestError, match="nothing to send"):
        drive(Target("127.0.0.1", 1), [], Open(steady(50.0, 0.5)))
    with Server(last=150) as server:
        target = Target("127.0.0.1", server.port)
        found = drive(target, requests(), Open(steady(100.0, 4.0), seed=8))
    assert 0 < found.failed < found.count
    assert found.ok[:50].all()
    assert not found.ok[-50:].any()
    assert set(found.errors) <= {"refused", "reset", "closed early"}


def test_hanging_requests_time_out() -> None:
    with Server(slots=1, seconds=300.0) as server:
        target = Target("127.0.0.1", server.port, timeout=0.5)
        begun = time.monotonic()
        found = drive(target, requests(), Open(steady(20.0, 0.5), seed=9))
        closed = drive(target, requests(), Loop(2, 1, 4, 10.0))
    assert found.errors == {"timeout": found.count}
    assert closed.errors == {"timeout": 4}
    assert time.monotonic() - begun < 300.0, "ended before the server had its first response"


def test_finished_requests_are_sorted() -> None:
    rng = np.random.default_rng(11)
    due = rng.uniform(0.0, 50.0, 5000)
    parts = np.split(due, np.sort(rng.integers(0, 5000, 40)))
    whole, apart = outcome_of(np.sort(due), np.sort(due) / 10.0, np.ones(5000, np.bool_)), Outcome()
    for part in parts:
        if len(part):
            one = outcome_of(part, part / 10.0, np.ones(len(part), np.bool_))
            before = apart.part(0.0, 25.0)
            held = before.latency.copy()
            apart.add([finished_at(part)])
            assert (before.latency == held).all(), "what was cut out stays as it was"
            assert one.count == len(part)
    assert (apart.due == whole.due).all()
    assert (apart.latency == whole.latency).all()


class Whole:
    body = True

    def __init__(self, wanted: bytes) -> None:
        self.wanted = wanted

    def prepare(self) -> None:
        pass

    def __call__(self, payload: int, status: int, headers: bytes, body: bytes) -> str:
        return "" if body == self.wanted else "cut"


def finished_at(due: np.ndarray) -> FinishedRequests:
    count = len(due)
    status, payload = np.full(count, 200), np.zeros(count, np.int64)
    return FinishedRequests(
        due, due, due, np.full(count, np.nan), due + due / 10.0, status, payload,
        np.ones(count, np.bool_), {},
    )  # fmt: skip


def test_payloads_come_in_turns_over_all_processes() -> None:
    """The n-th request has the n-th payload, whichever process sends it: a trace needs that."""
    bodies = [requests(f"/{number}")[0] for number in range(20)]
    with Server() as server:
        load = Open(moments=np.linspace(0.0, 1.0, 50))
        found = drive(Target("127.0.0.1", server.port), bodies, load, processes=2)
    assert found.payload.tolist() == [number % 20 for number in range(50)]


@contextmanager
def serving(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port whose connections are each given to ``serve``, in a thread."""

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


@contextmanager
def raw(answers: list[bytes], close: bool, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Answers every request with these pieces, whatever they are."""

    def serve(client: socket.socket) -> None:
        with suppress(OSError):
            if tls is not None:
                client = tls.wrap_socket(client, server_side=True)
        with client, suppress(OSError):
            while client.recv(65536):
                for piece in answers:
                    client.sendall(piece)
                    time.sleep(0.005)
                if close:
                    return

    with serving(serve) as port:
        yield port


@pytest.mark.parametrize(
    ("answers", "close", "error"),
    [
        ([b"HTTP/1.1 200 OK\r\ncontent-le", b"ngth: 4\r\n\r\nab", b"cd"], False, ""),
        ([b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", b"0\r\n\r\n"], False, ""),
        ([b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na"], False, ""),
        ([b"HTTP/1.0 200 OK\r\n\r\nuntil the end"], True, ""),
        ([b"HTTP/1.1 204 No\r\n\r\n"], False, ""),
        ([b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\na"], True, ""),
        ([b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\na"], True, "closed early"),
        ([b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nab"], True, "closed early"),
        ([b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nabc"], True, "garbage"),
        ([b"SSH-2.0-nothing\r\n\r\n"], True, "garbage"),
        ([], True, "closed early"),
    ],
)  # fmt: skip
def test_answers_of_every_form(answers: list[bytes], close: bool, error: str) -> None:
    with raw(answers, close) as port:
        # Names may have several addresses; one without a listener is skipped.
        sender = Sender(Endpoint("localhost", port, timeout=5.0), requests())
        moments = iter([np.linspace(0.0, 0.2, 12)])
        sender.run(moments, time.monotonic_ns(), lambda: None)
        found = sender.drain()
    assert len(found.due) == 12
    said = {name.partition(":")[0]: count for name, count in found.errors.items()}
    assert said == ({error: 12} if error else {}), found.errors
    assert (found.status == 0).all() == bool(error)
    assert np.isfinite(found.first_byte).all() == bool(answers)


@contextmanager
def forgetful(start: bytes = b"", reset: bool = False) -> Iterator[int]:
    """Answers the first request of each connection; reads the second one, and closes."""

    def serve(client: socket.socket) -> None:
        with client, suppress(OSError):
            client.recv(65536)
            client.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na")
            client.recv(65536)
            client.sendall(start)
            if reset:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with serving(serve) as port:
        yield port


@pytest.mark.parametrize("reset", [False, True])
def test_a_request_on_a_kept_connection_that_was_closed_is_sent_again(reset: bool) -> None:
    with forgetful(reset=reset) as port:
        # One connection at a time, so that every second request meets one that is closed.
        target = Target("127.0.0.1", port, connections=1, timeout=5.0)
        found = drive(target, requests(), Open(steady(40.0, 0.5), kind="even", seed=1), processes=1)
        users = drive(target, requests(), Loop(1, 1, 10, 30.0), processes=1)
    for one in (found, users):
        assert (one.failed, one.errors) == (0, {})
        assert one.statuses == {"200": one.count}
        assert one.retried == one.summary()["retried"] > 0
    assert users.count == 10


def test_an_answer_that_has_begun_is_a_failure() -> None:
    with forgetful(start=b"HTTP/1.1 200 OK\r\n") as port:
        target = Target("127.0.0.1", port, connections=1, timeout=5.0)
        found = drive(target, requests(), Open(steady(40.0, 0.5), kind="even", seed=1), processes=1)
    assert found.retried == 0
    assert found.errors == {"closed early": found.failed}
    assert 0 < found.failed < found.count


def test_an_answer_to_head_has_no_body() -> None:
    with raw([b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"], False) as port:
        head = Payload(b"", method="HEAD").to_bytes("test")
        sender = Sender(Endpoint("127.0.0.1", port, timeout=5.0), [head])
        sender.run(iter([np.linspace(0.0, 0.1, 5)]), time.monotonic_ns(), lambda: None)
        assert sender.drain().status.tolist() == [200] * 5


def test_tls_is_spoken_and_an_unknown_authority_is_not_trusted(tmp_path: Path) -> None:
    chain, key = self_signed(tmp_path, "server", "127.0.0.1")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(chain, key)
    body = b"x" * 300_000
    answers = [b"HTTP/1.1 200 OK\r\ncontent-length: 300000\r\n\r\n", body]
    with raw(answers, False, tls) as port:
        for ca_file, error in (
            (str(chain), {}),
            (None, {"TLS (self-signed certificate)": 4}),
        ):
            target = Target("127.0.0.1", port, tls=True, ca_file=ca_file, timeout=10.0)
            sender = Sender(target.endpoint(), requests(), Whole(body))
            sender.run(iter([np.linspace(0.0, 0.1, 4)]), time.monotonic_ns(), lambda: None)
            found = sender.drain()
            assert (len(found.due), found.errors) == (4, error)


def test_large_requests_go_out_in_pieces() -> None:
    body = bytes(range(256)) * 20_000
    with Server() as server:
        whole = Payload(body, path="/echo").to_bytes("test")
        sender = Sender(Endpoint("127.0.0.1", server.port), [whole], Whole(body))
        sender.run(iter([np.linspace(0.0, 0.1, 4)]), time.monotonic_ns(), lambda: None)
        found = sender.drain()
    assert (found.status.tolist(), found.errors) == ([200] * 4, {})


def test_watch_sees_only_complete_intervals() -> None:
    """The quick ones end first: a look in the middle must not take them for all."""
    found = []

    def look(outcome: Outcome) -> bool:
        part = outcome.so_far()
        found.append((part.count, float(part.latency.max()) if part.count else 0.0))
        return False

    with Server(slots=512, seconds=0.3) as server:
        target = Target("127.0.0.1", server.port)
        whole = drive(target, requests(), Open(steady(100.0, 2.0), seed=10), watch=look)
    counts = [count for count, _ in found]
    assert counts == sorted(counts)
    assert 0 < max(counts) <= whole.count


UNGUARDED = """
import sys
from understudy.loadtest.engine.arrivals import Piece, Profile
from understudy.loadtest.engine.pool import Open, Target, drive

print("started")
request = b"POST / HTTP/1.1\\r\\nhost: h\\r\\ncontent-length: 0\\r\\n\\r\\n"
load = Open(Profile((Piece(1.0, 50.0, 50.0),)), kind="even")
print(drive(Target("127.0.0.1", int(sys.argv[1])), [request], load, processes=2).count)
"""


def test_senders_do_not_run_the_script_of_their_parent(tmp_path: Path) -> None:
    """Also where it has no ``if __name__ == "__main__"``, and modules that hide ours beside it."""
    (tmp_path / "load.py").write_text(UNGUARDED)
    (tmp_path / "multiprocessing.py").write_text("raise RuntimeError")
    with Server() as server:
        command = [sys.executable, "-P", str(tmp_path / "load.py"), str(server.port)]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, timeout=patient(60)
        )
    assert (done.returncode, done.stdout) == (0, "started\n50\n"), done.stderr


def test_a_sender_that_cannot_start_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for program, said in (("/no/such/python", "No such file"), ("/bin/false", "exit code 1")):
        monkeypatch.setattr(sys, "executable", program)
        with pytest.raises(LoadTestError, match=f"a sending process .*{said}"):
            drive(Target("127.0.0.1", 1), requests(), Open(steady(50.0, 0.5)))
