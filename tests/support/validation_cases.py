"""Known cases of a continuous validation, and a model that answers them."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import BaseServer, ThreadingMixIn, UnixStreamServer
from typing import Any

from understudy.monitor.health.validation.rehearsal import MARK

CASES: list[dict[str, Any]] = [
    {"name": "one", "kind": "golden", "request": {"instances": [{"a": 1.0}]}, "expect": {"p": 0.1}},
    {"name": "two", "kind": "golden", "request": {"instances": [{"a": 1.0}, {"a": 2.0}]},
     "expect": {"p": [0.1, 0.2]}, "tolerance": 0.01},
    {"name": "keys", "kind": "invariance", "request": {"instances": [{"a": 3.0, "b": 1}]},
     "other": {"instances": [{"b": 1, "a": 3.0}]}},
    {"name": "more", "kind": "directional", "request": {"instances": [{"a": 1.0}]},
     "other": {"instances": [{"a": 5.0}]}, "prediction": "p", "direction": "up"},
    {"name": "broken", "kind": "malformed", "request": "{"},
    {"name": "late", "kind": "labelled", "request": {"instances": [{"a": 9.0}]}, "label": 1,
     "prediction": "p", "threshold": 0.5},
]  # fmt: skip


class _UnixServer(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True


class Model:
    """Answers a tenth of ``a``; ``factor`` makes it wrong, ``careless`` makes it take anything.

    ``path`` is that of a Unix socket to listen on.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.factor = 0.1
        self.careless = False
        self.marked = 0
        self.added = 0
        model = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                model.marked += self.headers.get(MARK) == "1"
                model.added += self.headers.get("x-added") is not None
                try:
                    rows = json.loads(body)["instances"]
                    code = 200
                    said: Any = {"predictions": [{"p": row["a"] * model.factor} for row in rows]}
                except ValueError:
                    code, said = (
                        (200, {"predictions": [{"p": 0.0}]}) if model.careless else (400, {})
                    )
                data = json.dumps(said).encode()
                self.send_response(code)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.server: BaseServer
        if path is not None:
            self.server = _UnixServer(str(path), Handler)
            self.url = f"unix:{path}"
        else:
            server = self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            self.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def write(path: Path, cases: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(case) + "\n" for case in cases))
    return path
