"""service."""

import understudy.monitor.api  # before any module here imports FastAPI  # noqa: F401
