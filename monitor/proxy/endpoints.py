"""The addresses of one model server: which of them gets the next connection or request.

Pure state, without sockets, clock or threads. A headless Service of Kubernetes has an address per
pod, and each should get its share. Addresses of the family that the system prefers are used; those
of the other family when none of the first can be connected to (RFC 8305). An address to which no
connection could be made is set aside for a short time, and tried again beside the traffic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from understudy.monitor.proxy.resolver import Address

ASIDE_SECONDS: Final = 1.0
"""How long an address is set aside after the first failure; doubled with each further one."""
MOST_ASIDE_SECONDS: Final = 10.0


class Endpoint:
    """An address. ``idle`` are its connections without an exchange (:class:`UpstreamConnection`),
    ``open`` counts all of them, ``opening`` the attempts to make one.

    ``failures`` are those in a row, ``aside_until`` is the monotonic time in seconds until which it
    is not tried. ``gone``: the name does not have it any more.
    """

    __slots__ = ("address", "aside_until", "failures", "gone", "idle", "open", "opening")

    def __init__(self, address: Address) -> None:
        self.address = address
        self.idle: list[Any] = []
        self.open = 0
        self.opening = 0
        self.failures = 0
        self.aside_until = 0.0
        self.gone = False


class Endpoints:
    """All addresses of a model server. ``random()`` is a random number in [0, 1).

    ``used`` are the addresses that requests are spread over.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._next = 0
        self._next_opened = 0
        self.all: dict[Address, Endpoint] = {}
        self.used: list[Endpoint] = []

    def update(self, addresses: Sequence[Address]) -> list[Endpoint]:
        """The name has these addresses now, the preferred first; the endpoints that are gone."""
        before = self.all
        self.all = {a: before.get(a) or Endpoint(a) for a in addresses}
        gone = [endpoint for address, endpoint in before.items() if address not in self.all]
        for endpoint in gone:
            endpoint.gone = True
        self._choose()
        return gone

    def failed(self, endpoint: Endpoint, now: float) -> None:
        """No connection could be made to it."""
        pause = min(MOST_ASIDE_SECONDS, ASIDE_SECONDS * 2.0 ** min(endpoint.failures, 10))
        endpoint.failures += 1
        endpoint.aside_until = now + pause
        if endpoint.failures == 1:
            self._choose()

    def reached(self, endpoint: Endpoint) -> None:
        """A connection was made to it."""
        if endpoint.failures:
            endpoint.failures = 0
            self._choose()

    @property
    def aside(self) -> int:
        """How many addresses are set aside."""
        return sum(1 for endpoint in self.all.values() if endpoint.failures)

    def due(self, now: float) -> list[Endpoint]:
        """Those set aside whose time is over."""
        return [
            endpoint
            for endpoint in self.all.values()
            if endpoint.failures and not endpoint.opening and now >= endpoint.aside_until
        ]

    def next(self) -> Endpoint:
        """The address for the next request; there must be at least one.

        In turn, unless a second one, at random, has fewer requests in flight: so one that hangs, or
        is slower, gets fewer.
        """
        used = self.used
        count = len(used)
        index = self._next = (self._next + 1) % count
        first = used[index]
        if count > 1:
            second = used[(index + 1 + int(self._random() * (count - 1))) % count]
            if second.open - len(second.idle) < first.open - len(first.idle):
                return second
        return first

    def others(self, endpoint: Endpoint) -> list[Endpoint]:
        """The other addresses that are used, beginning with the one after ``endpoint``."""
        used = self.used
        index = used.index(endpoint)
        return used[index + 1 :] + used[:index]

    def candidates(self, most: int) -> list[Endpoint]:
        """At most ``most`` addresses to which to open a connection, the first one to try first.

        Those with the fewest connections come first, of both families in turn, and those that were
        set aside last.
        """
        every = list(self.all.values())
        if not every:
            return []
        start = self._next_opened = (self._next_opened + 1) % len(every)
        every = every[start:] + every[:start]
        every.sort(key=lambda e: e.aside_until if e.failures else e.open + e.opening)
        family = self._family()
        found: list[Endpoint] = []
        for aside in (False, True):
            some = [e for e in every if (e.failures > 0) == aside]
            first = [e for e in some if e.address[0] == family]
            other = [e for e in some if e.address[0] != family]
            both = min(len(first), len(other))
            for pair in zip(first[:both], other[:both], strict=True):
                found += pair
            found += first[both:] + other[both:]
        return found[:most]

    def _family(self) -> int:
        """The family that the system prefers: that of the first address."""
        return next(iter(self.all))[0] if self.all else 0

    def _choose(self) -> None:
        family = self._family()
        every = list(self.all.values())
        well = [e for e in every if not e.failures]
        preferred = [e for e in well if e.address[0] == family]
        self.used = preferred or well or [e for e in every if e.address[0] == family]
