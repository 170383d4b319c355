"""The stories that the demo can tell, by name: each runs in a :class:`..world.World`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from understudy.demo.world import World

SCENARIOS = {
    "canary": "two candidates: one is rolled back, the other is promoted",
    "drift": "an input breaks, then the flights change: findings that name both",
    "outage": "a challenger hangs and dies, then the champion: who notices, and how soon",
    "llm": "two variants of a chat model that streams, and a stream that stalls",
}
"""By name, what each is about."""


def scenario(name: str) -> Callable[[World], None]:
    """The function that tells the story of that name."""
    run: Callable[[World], None] = import_module(f"{__name__}.{name}").run
    return run
