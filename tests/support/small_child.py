"""A worker or an evaluation plane that only speaks the supervisor's protocol.

It writes down what it hears, one JSON object a line, in ``<state_dir>/heard-<name>.jsonl``. Files
beside that one make it misbehave: ``hold`` keeps it from ending when it is told to drain, ``crash``
makes it end as soon as it starts, ``refuse`` makes it refuse a new plan, ``leave`` makes it close
its control line and live on, ``babble`` makes it say something that is no event, ``hang`` makes it
do nothing when it starts. When ``ask`` appears, the evaluation plane asks for a reload.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from understudy.monitor.stats.heartbeat import Heartbeat


class ChildProgram:
    def __init__(self, options: argparse.Namespace) -> None:
        self.name = "evaluation" if options.slot is None else f"worker-{options.slot}"
        self.folder = Path((options.run_dir / "state_dir").read_text())
        self.plan: Path | None = options.plan
        self.line = socket.socket(fileno=options.control_fd)
        self.listeners = [socket.socket(fileno=number) for number in options.listen_fds]
        self.listener = self.listeners[options.slot] if self.listeners else None
        self.heartbeat = Heartbeat(options.heartbeat_fd)
        self.generation = json.loads(self.plan.read_text())["generation"] if self.plan else 0
        self.note({"started": options.run_id, "generation": self.generation})

    def note(self, entry: dict[str, Any]) -> None:
        with (self.folder / f"heard-{self.name}.jsonl").open("a") as file:
            file.write(json.dumps({"pid": os.getpid(), **entry}) + "\n")

    def flag(self, name: str) -> bool:
        return (self.folder / name).exists() or (self.folder / f"{name}-{self.name}").exists()

    def say(self, message: Any) -> None:
        self.line.sendall(json.dumps(message).encode() + b"\n")

    def run(self) -> int:
        if self.flag("crash"):
            return 7
        while self.flag("hang"):
            time.sleep(0.02)
        if self.flag("babble"):
            self.line.sendall(b"this is no JSON\n")
        self.say({"event": "ready", "generation": self.generation})
        if self.flag("leave"):
            self.line.shutdown(socket.SHUT_WR)
            time.sleep(60)
        pending = b""
        while True:
            self.heartbeat.beat()
            sources = [self.line, *([self.listener] if self.listener else [])]
            readable, _, _ = select.select(sources, [], [], 0.02)
            if self.listener in readable:
                self.answer()
            if self.name == "evaluation" and self.flag("ask"):
                (self.folder / "ask").unlink()
                self.say({"ask": "reload", "id": 5})
            if self.line in readable:
                data = self.line.recv(65536)
                if not data:
                    return self.drain("hung up")
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    message = json.loads(line)
                    self.note(message)
                    if message.get("do") == "drain":
                        return self.drain("drained")
                    if message.get("do") == "reload":
                        self.reload(message)

    def answer(self) -> None:
        assert self.listener is not None
        client, _ = self.listener.accept()
        client.recv(65536)
        body = json.dumps({"pid": os.getpid(), "generation": self.generation})
        client.sendall(f"HTTP/1.0 200 OK\r\n\r\n{body}".encode())
        client.close()

    def reload(self, message: dict[str, Any]) -> None:
        if self.flag("refuse"):
            self.say({"event": "reload_failed", "error": "it does not suit me"})
            return
        if self.plan is not None:
            self.generation = json.loads(Path(message["plan"]).read_text())["generation"]
        else:
            assert json.loads(Path(message["config"]).read_text())["version"] == 1
            self.generation = message["generation"]
        self.say({"event": "reloaded", "generation": self.generation})

    def drain(self, how: str) -> int:
        if self.listener is not None:
            self.listener.shutdown(socket.SHUT_RD)
        for listener in self.listeners:
            listener.close()
        self.note({"end": how, "began": time.monotonic()})
        while self.flag("hold"):
            self.heartbeat.beat()
            time.sleep(0.02)
        self.note({"end": "exit", "at": time.monotonic()})
        return 0


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--plan", type=Path)
    parser.add_argument("--config-json", type=Path)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--run-id", required=True)
    parser.add_argument("--slot", type=int)
    parser.add_argument("--listen-fds", type=int, nargs="+", default=[])
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--heartbeat-fd", type=int, required=True)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    return ChildProgram(parser.parse_args()).run()


if __name__ == "__main__":
    sys.exit(main())
