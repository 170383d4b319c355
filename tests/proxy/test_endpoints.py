"""Which address gets the next request or connection: pure state."""

from __future__ import annotations

import socket
from collections import Counter
from random import Random

from understudy.monitor.proxy.endpoints import Endpoint, Endpoints

V4, V6 = int(socket.AF_INET), int(socket.AF_INET6)


def endpoints(*hosts: str) -> Endpoints:
    made = Endpoints(Random(1).random)
    made.update([(V6 if ":" in host else V4, host) for host in hosts])
    return made


def hosts(found: list[Endpoint]) -> list[str]:
    return [endpoint.address[1] for endpoint in found]


def test_requests_take_turns() -> None:
    some = endpoints("a", "b", "c")
    seen = Counter(some.next().address[1] for _ in range(300))
    assert seen == {"a": 100, "b": 100, "c": 100}


def test_an_address_that_does_not_answer_gets_fewer_requests() -> None:
    some = endpoints("a", "b", "c")
    hung = some.all[V4, "a"]
    hung.open = 5  # all of them busy
    seen = Counter(some.next().address[1] for _ in range(300))
    assert seen["a"] == 0
    # The others share what would have been its own.
    assert min(seen["b"], seen["c"]) > 110


def test_new_connections_go_where_there_are_fewest() -> None:
    some = endpoints("a", "b", "c")
    for host, count in (("a", 2), ("b", 0), ("c", 1)):
        some.all[V4, host].open = count
    assert hosts(some.candidates(8)) == ["b", "c", "a"]
    assert hosts(some.candidates(2)) == ["b", "c"]
    some.all[V4, "b"].opening = 3
    assert hosts(some.candidates(8)) == ["c", "a", "b"]
    assert endpoints().candidates(8) == []


def test_the_other_family_is_for_when_the_preferred_one_fails() -> None:
    some = endpoints("::1", "::2", "1.1.1.1", "2.2.2.2")
    assert hosts(some.used) == ["::1", "::2"]
    # A connection tries both families in turn: all addresses of one may be out of reach.
    families = [endpoint.address[0] for endpoint in some.candidates(8)]
    assert families == [V6, V4, V6, V4]
    for host in ("::1", "::2"):
        some.failed(some.all[V6, host], 0.0)
    assert hosts(some.used) == ["1.1.1.1", "2.2.2.2"]
    assert set(hosts(some.candidates(2))) == {"1.1.1.1", "2.2.2.2"}
    some.reached(some.all[V6, "::2"])
    assert hosts(some.used) == ["::2"]


def test_a_failed_address_is_set_aside_for_a_time_that_grows_and_is_bounded() -> None:
    some = endpoints("a", "b")
    bad = some.all[V4, "a"]
    now = 100.0
    pauses = []
    for _ in range(30):
        some.failed(bad, now)
        assert hosts(some.used) == ["b"]
        assert hosts(some.candidates(8)) == ["b", "a"]
        assert some.due(bad.aside_until - 0.01) == []
        assert some.due(bad.aside_until) == [bad]
        pauses.append(bad.aside_until - now)
        now = bad.aside_until
    assert pauses[:4] == [1.0, 2.0, 4.0, 8.0]
    assert set(pauses[4:]) == {10.0}
    assert some.aside == 1
    some.reached(bad)
    assert some.aside == 0
    assert set(hosts(some.used)) == {"a", "b"}
    some.failed(bad, now)
    assert bad.aside_until - now == 1.0


def test_if_all_have_failed_all_are_tried() -> None:
    some = endpoints("a", "b")
    for endpoint in some.all.values():
        some.failed(endpoint, 0.0)
    assert set(hosts(some.used)) == {"a", "b"}
    assert set(hosts(some.candidates(8))) == {"a", "b"}


def test_a_new_look_up_keeps_what_is_known_of_an_address() -> None:
    some = endpoints("a", "b")
    kept, gone = some.all[V4, "b"], some.all[V4, "a"]
    some.failed(kept, 0.0)
    assert some.update([(V4, "c"), (V4, "b")]) == [gone]
    assert gone.gone
    assert some.all[V4, "b"] is kept
    assert (kept.failures, kept.gone) == (1, False)
    assert hosts(some.used) == ["c"]
