"""Log lines on standard error: one event, one line, for people or for machines."""

from __future__ import annotations

import json
import logging
import os
import sys
import time

from understudy.common.text import visible

LEVEL_VARIABLE = "UNDERSTUDY_LOG_LEVEL"
FORMAT_VARIABLE = "UNDERSTUDY_LOG_FORMAT"
"""Environment variables that pass the user's choice to child processes."""


class _Plain(logging.Formatter):
    """One line, and the traceback below it if there is one; control characters are escaped."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        """The line without its traceback."""
        return visible(super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        """All lines."""
        return visible(super().format(record), lines=True)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def set_up(level: str | None = None, style: str | None = None) -> None:
    """Send logs of ``level`` and above to standard error, as ``text`` or ``json``.

    Missing arguments are taken from the environment; the defaults are info and text. Child
    processes inherit the choice.
    """
    level = level or os.environ.get(LEVEL_VARIABLE, "info")
    style = style or os.environ.get(FORMAT_VARIABLE, "text")
    os.environ[LEVEL_VARIABLE], os.environ[FORMAT_VARIABLE] = level, style
    handler = logging.StreamHandler(sys.stderr)
    if style == "json":
        handler.setFormatter(_Json())
    else:
        handler.setFormatter(_Plain("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
