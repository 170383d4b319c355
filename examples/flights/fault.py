"""What is wrong with the faulty challenger: now and then it stops to think.

Part of its pipeline, so that the model server runs it; its predictions are right. Runs in the model
servers' environment.
"""

from __future__ import annotations

import random
import time
from typing import Any

SHARE = 0.2
SECONDS = 0.06


def pause_now_and_then(rows: Any) -> Any:
    """Pass rows on, some of them late."""
    if random.random() < SHARE:
        time.sleep(SECONDS)
    return rows
