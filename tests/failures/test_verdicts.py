"""Verdicts with real processes: what an arm causes stays in the evidence, what is ours does not."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.canaries import GUARDRAILS, challenger
from tests.support.patience import eventually, patient
from tests.support.world import PATH, Load, Model, World, total


def experiment(**changes: Any) -> dict[str, Any]:
    return {
        "name": "ramp",
        "challengers": ["other0"],
        "mode": "shadow",
        "metrics": GUARDRAILS,
        "minimum_duration": 0,
        **changes,
    }


def body(number: int, padding: int = 0) -> bytes:
    tensor = {"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [1.0, 2.0]}
    parameters = {"note": "x" * padding}
    return json.dumps({"id": str(number), "inputs": [tensor], "parameters": parameters}).encode()


def accounted(world: World, requests: int) -> dict[str, Any]:
    """The challenger once all ``requests`` are compared or left out."""

    def check() -> dict[str, Any] | None:
        found = challenger(world)
        left_out = sum(n for reason, n in found["left_out"].items() if reason != "unreadable")
        return found if found["requests"]["pairs"] + left_out >= requests else None

    found: dict[str, Any] = eventually(check)
    return found


def mixed_sizes(world: World) -> dict[str, Any]:
    """The challenger after 600 requests of which every fourth is larger than what is kept."""
    with httpx.Client() as client:
        for number in range(600):
            padding = 400 if number % 4 == 0 else 0
            answer = client.post(world.service.url + PATH, content=body(number, padding))
            assert answer.status_code == 200
            if number % 100 == 99:
                # Never more than the queue of mirrored requests holds.
                world.settled()
    return accounted(world, 600)


def test_answers_that_cannot_be_read_block_promotion(tmp_path: Path) -> None:
    with World(
        tmp_path, Model("text"), experiments=[experiment()], capture={"max_body": "300B"}
    ) as world:
        found = mixed_sizes(world)
        assert found["left_out"]["unreadable"] >= 450
        assert found["decision"] == "continue"
        eventually(lambda: any("models[].protocol" in line for line in challenger(world)["why"]))
        assert world.total("understudy_experiment_left_out", reason="unreadable") > 0


def test_a_challenger_that_fails_on_bodies_that_are_not_kept_is_rolled_back(tmp_path: Path) -> None:
    """Size is no reason to leave a request out: it is mirrored while it arrives."""
    with World(
        tmp_path, Model("picky"), experiments=[experiment()], capture={"max_body": "300B"}
    ) as world:
        found = mixed_sizes(world)
        assert found["left_out"].keys() <= {"unreadable"}
        assert world.total("understudy_mirror_total", outcome="server_error") == 150
        found = eventually(lambda: (c := challenger(world))["decision"] == "rollback" and c)
        assert any("error_rate is worse" in line for line in found["reasons"])


def test_a_challenger_that_hangs_until_its_clients_leave_is_rolled_back(tmp_path: Path) -> None:
    split = experiment(mode="split", weights={"other0": 0.5})
    mirror = {"timeout": "1s"}
    with World(tmp_path, Model("hang"), experiments=[split], mirror=mirror) as world:
        address = world.service.url.removeprefix("http://")
        asked = 0

        def only_the_challenger_has_not_answered() -> bool:
            found = world.metrics()
            in_flight = "understudy_in_flight_requests"
            hanging = total(found, in_flight, arm="other0", role="primary")
            ended = total(found, "understudy_requests_total", role="primary")
            return hanging + ended == asked

        for _ in range(5):
            clients = [http.client.HTTPConnection(address, timeout=patient(20)) for _ in range(20)]
            for connection in clients:
                connection.request("POST", PATH, body(asked))
                asked += 1
            eventually(only_the_challenger_has_not_answered)
            for connection in clients:
                connection.close()
        found: dict[str, Any] = eventually(
            lambda: (c := challenger(world))["decision"] == "rollback" and c
        )
        assert any("error_rate is worse" in line for line in found["reasons"])
        assert found["cause"] == "harm"


@pytest.mark.parametrize(
    "mirror",
    [
        pytest.param({"timeout": "100ms"}, id="a shorter limit"),
        pytest.param({"connections": 1, "queue": {"requests": 10}}, id="one connection"),
    ],
)
def test_identical_slow_servers_are_neither_rolled_back_nor_promoted_for_our_limits(
    tmp_path: Path, mirror: dict[str, Any]
) -> None:
    """Both take 0.3 s. Mirrored requests have 0.1 s, or wait for one connection."""
    champion, other = Model("slow"), Model("slow")
    try:
        with World(
            tmp_path,
            other,
            experiments=[experiment()],
            champion={"url": champion.url},
            challengers=[{"name": "other0", "url": other.url, "mirror": mirror}],
        ) as world:
            load = Load(world.service.url, clients=20)
            load.answered(400)
            seen = load.stop()
            assert set(seen) == {"200"}
            found = accounted(world, 400)
            assert found["decision"] == "continue", found["reasons"]
            rates = {m["metric"]: (m["champion"], m["challenger"]) for m in found["metrics"]}
            if "timeout" in mirror:
                # After the first ones the breaker spares the challenger: these are not its either.
                assert rates["timeout_rate"] == (1.0, 1.0)
            else:
                assert found["left_out"]["queue_full"] > 0
                assert rates["error_rate"] == (0.0, 0.0)
    finally:
        champion.kill()
