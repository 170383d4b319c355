"""``python -m examples.flights.settings MODELS``: settings for one model server in a container each."""

from __future__ import annotations

import sys
from pathlib import Path

from examples.flights.serving import write_settings

if __name__ == "__main__":
    for model in ("champion", "challenger", "faulty"):
        write_settings(Path(sys.argv[1]) / model, "0.0.0.0", 8080, 8081)
