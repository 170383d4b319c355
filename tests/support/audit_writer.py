"""A writer of the audit log to be killed: says each line's number once it is on disk."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from understudy.monitor.records.audit import AuditLog


def event(version: int) -> dict[str, object]:
    return {
        "experiment": "delays",
        "challenger": "candidate",
        "kind": "advanced",
        "at": 1e9 + version,
        "version": version,
        "why": "x" * (version % 97),
    }


def keep_writing(path: Path, file_bytes: int, version: int) -> None:
    log = AuditLog(path, file_bytes, 4)
    while True:
        # As after a crash: what may not have been written is handed over once more.
        log.catch_up([event(v) for v in (version - 1, version) if v > 0])
        print(version, flush=True)
        version += 1


def fill_the_disk(path: Path, limit: int) -> None:
    log = AuditLog(path)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    written = 0
    try:
        while True:
            written = log.append(event(written + 1))
    except OSError as error:
        print(written, error.errno, path.stat().st_size, log.verify(), flush=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    print(log.append(event(written + 1)), log.verify(), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "write":
        keep_writing(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    else:
        fill_the_disk(Path(sys.argv[2]), int(sys.argv[3]))
