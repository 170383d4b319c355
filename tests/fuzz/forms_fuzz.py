"""Hold the two forms of the data plane against each other: the same inputs, the same bytes.

``python -m tests.fuzz.forms_fuzz --inputs 1000000 --seed 1``

One process plays the inputs with the sources, another one with the compiled modules in the folder
that ``UNDERSTUDY_COMPILED`` names (``python -m tools.compiled`` makes them). The inputs are those of
:mod:`tests.fuzz.proxy_fuzz`, requests and answers by turns, with all that it demands of each, and on
a clock that both processes share; and records with random content. After each input both must
have sent the same bytes to clients, and handed over the same records. Inputs in which peers break
off at random are only held to what :mod:`tests.fuzz.proxy_fuzz` demands.

A difference prints the input and how to play it again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from hashlib import blake2b
from pathlib import Path
from types import ModuleType

import uvloop

from tests.fuzz.oracles import Failure
from tests.fuzz.proxy_fuzz import Bench
from understudy.common import compiled
from understudy.monitor.records.encode import FIXED, encode
from understudy.monitor.records.frames import FrameReader, frame
from understudy.monitor.records.record import decode_batch

KINDS = ("requests", "answers", "records")
_SIZE = 8


class Clock:
    """The time of all modules of the data plane: what a process does must not depend on how fast it
    is."""

    def __init__(self) -> None:
        self.now_ns = 0

    def set(self, number: int) -> None:
        """The time at which input ``number`` begins."""
        self.now_ns = 1_000_000_000_000 + number * 10_000_000_000

    def monotonic_ns(self) -> int:
        # It stands still during an input: how many turns of the loop that takes depends on the machine.
        return self.now_ns

    def monotonic(self) -> float:
        return self.monotonic_ns() * 1e-9

    def time(self) -> float:
        return 1_800_000_000.0 + self.monotonic()

    def take_over(self) -> None:
        for name, module in tuple(sys.modules.items()):
            if name.startswith("understudy.monitor.proxy.") and isinstance(module, ModuleType):
                for function in ("monotonic", "monotonic_ns", "time"):
                    if hasattr(module, function):
                        setattr(module, function, getattr(self, function))


class _Bench(Bench):
    """Without real time in it."""

    def __init__(self, folder: Path, loop: asyncio.AbstractEventLoop, kind: str) -> None:
        super().__init__(folder, loop, kind)
        self.worker.runtime.refused_turns._pause = 0.0
        self.worker.runtime.wall.offset_ns = 1_700_000_000_000_000_000


class Player:
    """Plays inputs, and gives a digest of what came of each."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._seed = seed
        self._clock = Clock()
        self._clock.take_over()
        loop = asyncio.get_running_loop()
        self._benches = {}
        for kind in ("requests", "answers"):
            (folder / kind).mkdir()
            self._benches[kind] = _Bench(folder / kind, loop, kind)

    async def play(self, number: int) -> tuple[bytes, str]:
        """The digest, and in words what it is a digest of. Raises Failure."""
        kind = KINDS[number % len(KINDS)]
        self._clock.set(number)
        if kind == "records":
            text = _record(random.Random(f"{self._seed}/{number}"))
        else:
            text = await self._exchange(self._benches[kind], number)
        return blake2b(text.encode(), digest_size=_SIZE).digest(), text

    async def _exchange(self, bench: Bench, number: int) -> str:
        handoff = bench.worker._handoff
        handoff._current.clear()
        await bench.one(f"{self._seed}/{number}")
        answers = [bytes(client.wire.out) for client in bench.clients]
        records = sorted(
            b"".join(handoff._current[at : at + 9]) for at in range(0, len(handoff._current), 9)
        )
        handoff._current.clear()
        handoff._current_bytes = handoff._current_count = 0
        if bench.wild:
            # Which peer breaks off, and when, follows the order in which connections come about.
            return "wild"
        return f"clients got {answers}\nrecords {records}"


def _record(pick: random.Random) -> str:
    """Pack a record with random content, in a frame that arrives in pieces, and read it."""

    def text(most: int) -> bytes:
        return pick.randbytes(pick.choice((0, 1, 16, pick.randrange(most))))

    wide = pick.choice((0, 1, 1 << 16, (1 << 64) - 1, pick.getrandbits(64)))
    numbers = [pick.choice((0, 1, 255, pick.getrandbits(16))) for _ in range(3)]
    bodies = [pick.choice((None, b"", text(5000))) for _ in range(2)]
    arguments = (
        *numbers, pick.getrandbits(1), pick.randrange(20), pick.choice((0.0, 1.5, pick.random() * 1e9)),
        wide, pick.getrandbits(64), pick.getrandbits(32), pick.getrandbits(40), wide,
        text(64), text(64), text(300), text(300), text(300), text(300), *bodies,
        pick.choice((0, 3, 256)), wide, pick.random() < 0.5, pick.random() < 0.2,
    )  # fmt: skip
    try:
        size, parts = encode(*arguments)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    data = b"".join(parts)
    if size != len(data) or len(parts[0]) != FIXED.size:
        raise Failure(f"a record of {len(data)} bytes says {size}")
    (record,) = decode_batch(data)
    sent = frame(3, data) + frame(2, b"")
    reader = FrameReader()
    got = []
    at = 0
    while at < len(sent):
        step = pick.choice((1, 3, 700, len(sent)))
        got += list(reader.feed(sent[at : at + step]))
        at += step
    if got != [(3, data), (2, b"")]:
        raise Failure(f"frames: {got!r}")
    read = {name: getattr(record, name) for name in record.__slots__}
    return f"{data!r} {read}"


async def play(first: int, count: int, seed: int, words: bool) -> None:
    """The process of one form: digests on standard output."""
    out = sys.stdout.buffer
    with tempfile.TemporaryDirectory() as folder:
        player = Player(Path(folder), seed)
        for number in range(first, first + count):
            try:
                digest, text = await player.play(number)
            except Exception as error:
                digest, text = bytes(_SIZE), repr(error)
                print(f"{compiled.form().name}: input {number}: {error!r}", file=sys.stderr)
            out.write(digest)
            if words:
                print(text, file=sys.stderr)


def _start(form: str, options: argparse.Namespace) -> subprocess.Popen[bytes]:
    environment = dict(os.environ)
    if form == compiled.PURE:
        environment["UNDERSTUDY_PURE"] = "1"
    else:
        environment.pop("UNDERSTUDY_PURE", None)
    command = [sys.executable, "-m", "tests.fuzz.forms_fuzz", "--form", form]
    command += ["--first", str(options.first), "--inputs", str(options.inputs)]
    command += ["--seed", str(options.seed)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--words", action="store_true", help="with --form: print what was compared")
    parser.add_argument("--form", choices=(compiled.PURE, compiled.COMPILED),
                        help="play the inputs in one form, digests on standard output")  # fmt: skip
    options = parser.parse_args()
    if options.form is not None:
        if compiled.form().name != options.form:
            print(f"this process is {compiled.form()}", file=sys.stderr)
            return 2
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(play(options.first, options.inputs, options.seed, options.words))
        return 0
    began = told = time.monotonic()
    players = [_start(form, options) for form in (compiled.PURE, compiled.COMPILED)]
    outputs = [player.stdout for player in players]
    failure = None
    done = 0
    for number in range(options.first, options.first + options.inputs):
        digests = [output.read(_SIZE) for output in outputs if output is not None]
        if len(set(digests)) != 1 or len(digests[0]) != _SIZE or not any(digests[0]):
            failure = (
                f"input {number} of seed {options.seed} differs\nagain, with --form 'pure Python' "
                f"and --form compiled: --words --seed {options.seed} --first {number} --inputs 1"
            )
            break
        done += 1
        now = time.monotonic()
        if not options.quiet and now - told > 5:
            told = now
            print(f"{done:,} inputs, {done / (now - began):,.0f}/s", file=sys.stderr)
    for player in players:
        if failure:
            player.kill()
        if player.wait() and not failure:
            failure = "a form could not be played"
    if failure:
        print(f"FAILED: {failure}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps({"inputs": done, "forwarded": 0, "outcomes": {}}))
    else:
        print(f"{done:,} inputs, both forms did the same")
    return 0


if __name__ == "__main__":
    sys.exit(main())
