"""What the demo says while it runs: one line for each event, and details for who wants them."""

from __future__ import annotations

from understudy.common.terminal import echo, echo_lines
from understudy.demo.story import Story


class Teller:
    """Tells the story on standard error, as ``understudy demo`` does."""

    def __init__(self, verbose: bool) -> None:
        self.verbose = verbose
        self._story = Story("flights", screen=False, err=True)

    def does(self, text: str) -> None:
        """The demo does something."""
        self._story.demo(text)

    def says(self, text: str) -> None:
        """Understudy says something."""
        self._story.says(text)

    def detail(self, text: str) -> None:
        """Only for who asked for details."""
        if self.verbose:
            echo(f"        {text}", err=True)

    def plain(self, text: str) -> None:
        """Text without a time: what to look at, the summary."""
        echo_lines(text, err=True)
