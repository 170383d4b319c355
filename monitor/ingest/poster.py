"""Posts records to Understudy's control API, without making their source wait.

It uses only the standard library, so that any server can include it. Records go into a bounded
queue, which a thread empties. When it is full they are dropped and counted.
"""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any

from understudy.monitor.errors import IngestError

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Ignores the proxies of the environment: the control address is local."""
MAX_WAITING = 10_000
MAX_WAITING_BYTES = 64 * 1024 * 1024
BATCH_RECORDS = 500
BATCH_BYTES = 4 * 1024 * 1024
"""Half of what the control API takes in one post."""
MAX_RECORD_BYTES = 7 * 1024 * 1024
_NONE_TAKEN = 422
_MAX_MESSAGE = 1000
INTERVAL_SECONDS = 1.0
"""Seconds between two posts."""


class RecordPoster:
    """``url`` is the control address of Understudy; ``token`` is sent as bearer token. ``source``
    names the sender in the metric of ingested records.

    Raises IngestError for a ``url`` that is not an HTTP address; afterwards nothing raises.
    """

    def __init__(self, url: str, token: str | None = None, source: str = "records") -> None:
        if not url.startswith(("http://", "https://")):
            raise IngestError(f"url: not an address of the form http://127.0.0.1:9090: {url!r}")
        self.dropped = 0
        """Number of records lost: the queue was full, or Understudy did not accept them."""
        self.sent = 0
        self.refused = 0
        """Records of those sent that Understudy could not use."""
        self.error = ""
        """Why the last post failed; empty if it did not."""
        self._url = f"{url.rstrip('/')}/v1/records?source={source}"
        self._headers = {"Content-Type": "application/x-ndjson"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._lock = threading.Lock()
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._unreported = 0
        """Dropped records that Understudy was not told of."""
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._post_all, name="understudy", daemon=True)
        self._thread.start()

    def put(self, record: Mapping[str, Any]) -> bool:
        """Queue a record; False if it was dropped. From any thread."""
        line = json.dumps(record).encode() + b"\n"
        with self._lock:
            full = len(self._lines) >= MAX_WAITING or self._bytes + len(line) > MAX_WAITING_BYTES
            if full or len(line) > MAX_RECORD_BYTES:
                self._drop(1)
                return False
            self._lines.append(line)
            self._bytes += len(line)
        return True

    def drop(self, count: int = 1) -> None:
        """Count records that were lost before they could be queued."""
        with self._lock:
            self._drop(count)

    def _drop(self, count: int) -> None:
        self.dropped += count
        self._unreported += count

    def close(self) -> None:
        """Send the queued records and stop the thread; waits up to 10 seconds."""
        self._stopped.set()
        self._thread.join(10.0)

    def _post_all(self) -> None:
        while True:
            ended = self._stopped.wait(INTERVAL_SECONDS)
            while batch := self._batch():
                if not self._post(batch):
                    break
            if ended:
                return

    def _batch(self) -> list[bytes]:
        batch: list[bytes] = []
        size = 0
        with self._lock:
            while self._lines and len(batch) < BATCH_RECORDS:
                size += len(self._lines[0])
                if batch and size > BATCH_BYTES:
                    break
                line = self._lines.popleft()
                self._bytes -= len(line)
                batch.append(line)
        return batch

    def _post(self, batch: list[bytes]) -> bool:
        """Whether Understudy got the batch."""
        with self._lock:
            told = self._unreported
        # The constructor has checked the scheme.
        request = urllib.request.Request(  # noqa: S310
            f"{self._url}&dropped={told}", b"".join(batch), self._headers
        )
        try:
            with _DIRECT.open(request, timeout=5.0) as answer:
                found = json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                self.error = error.read(_MAX_MESSAGE).decode("utf-8", "replace") or str(error)
            if error.code == _NONE_TAKEN:
                self.refused += len(batch)
                self.dropped += len(batch)
                return True
            self.drop(len(batch))
            return False
        except (OSError, HTTPException, ValueError) as error:
            self.error = str(error) or type(error).__name__
            self.drop(len(batch))
            return False
        self.error = ""
        with self._lock:
            self._unreported -= told
        if isinstance(found, dict):
            refused = found.get("refused") or ()
            self.refused += len(refused)
            if refused:
                self.error = str(refused[0].get("error", ""))
        self.sent += len(batch)
        return True
