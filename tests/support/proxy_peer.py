"""The evaluation plane's end of the hand-off, in the test."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from understudy.monitor.records import frames
from understudy.monitor.records.record import Record, decode_batch


class Peer:
    """The evaluation plane's side of the protocol, as small as can be."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last_seq = 0
        self.received = 0
        self.seen: list[int] = []
        self.records: list[Record] = []
        self.hellos: list[dict[str, object]] = []
        self.names: list[dict[str, object]] = []
        self.commit = True
        self.acknowledge = True
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self.path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, str(self.path))

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in tuple(self._writers):
            writer.transport.abort()
        self.path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        cutter = frames.FrameReader()
        try:
            while data := await reader.read(1 << 16):
                for kind, payload in cutter.feed(data):
                    self._take(writer, kind, payload)
        except ConnectionError:
            pass
        self._writers.discard(writer)

    def _take(self, writer: asyncio.StreamWriter, kind: int, payload: bytes) -> None:
        if kind == frames.HELLO:
            self.hellos.append(json.loads(payload))
            told = {"last_seq": self.last_seq, "received": self.received}
            writer.write(frames.frame(frames.WELCOME, json.dumps(told).encode()))
        elif kind == frames.NAMES:
            self.names.append(json.loads(payload))
        elif kind == frames.BATCH:
            seq, count = frames.BATCH_HEAD.unpack_from(payload)
            records = decode_batch(payload[frames.BATCH_HEAD.size :])
            assert len(records) == count
            self.seen.append(seq)
            if seq > self.last_seq:
                self.last_seq = seq
                self.received += count
                self.records += records
            if self.acknowledge:
                writer.write(frames.frame(frames.ACK, frames.SEQ.pack(seq)))
            if self.commit and self.acknowledge:
                writer.write(frames.frame(frames.COMMIT, frames.SEQ.pack(seq)))
