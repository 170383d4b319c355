"""Two candidates for the champion's place: one is rolled back, the other is promoted."""

from __future__ import annotations

from typing import Any

from understudy.demo.airline import Airline
from understudy.demo.flights import LateModel
from understudy.demo.story import share
from understudy.demo.world import World

RATE = 120.0
_READ = 350
"""Answers that pass while a person reads a verdict."""

CONFIG = """\
# Written by `understudy demo`. It decides within seconds, which takes a strong effect, wide margins
# and no minimum_duration: a real rollout has margins of about 1 pp and lasts hours.
version: 1
listen: 127.0.0.1:{listen}              # clients connect here instead of to the model server
control: {{listen: "127.0.0.1:{control}"}}  # metrics, page, control API
workers: 1
state_dir: state
models:
  - name: delays
    version: "1"
champion: {{url: "http://127.0.0.1:{champion}"}}
challengers:                          # get mirrored requests; clients never see their responses
  - {{name: {name}, url: "http://127.0.0.1:{port}", credentials: remove}}
experiments:
  - name: {name}
    challengers: [{name}]
    mode: canary
    minimum_duration: 0
    metrics:
      - {{metric: accuracy, role: success, effect: 3 pp, base_rate: 0.85}}
      - {{metric: error_rate, margin: 4 pp}}
      - {{metric: latency_p50, margin: 200 %, planned: 500}}
    label: {{prediction: p_late, threshold: 0.5}}
    stages:
      - {{weight: 0, requests: 200, requires: decision}}      # mirrored requests only
      - {{weight: 0.25, requests: 100}}                       # then a quarter of the clients
      - {{weight: 0.5, requests: 300, requires: decision}}
      - {{weight: 1}}
"""


def run(world: World) -> None:
    """Tell the story."""
    story = world.story
    airline = Airline()
    champion = LateModel.learn(airline.flights.learned, hours=True)
    better = LateModel.learn(airline.flights.learned, hours=False)
    strict = LateModel.learn(airline.flights.learned, hours=False, strict=True)
    for name, model in (("champion", champion), ("strict", strict), ("minutes", better)):
        airline.serve(world, name, model)

    def config(name: str) -> str:
        ports = {"champion": world.ports["champion"], "port": world.ports[name]}
        return CONFIG.format(listen=world.listen, control=world.control, name=name, **ports)

    world.serve(config("strict"))
    story.demo(
        "Clients ask whether flights will be late. The champion answers; it knows a delay at "
        "departure only in whole hours. Labels (was it late?) come 2 seconds later."
    )
    airline.send(world, RATE)
    cause = story.demo(
        "A first candidate, 'strict', knows the delay in minutes. Each request is mirrored to it; "
        "clients never see its answers."
    )
    story.note("It fails when the air pressure is missing. Understudy has not been told.")
    first = _decision(world, "strict")
    if first is not None:
        _tell(world, first, cause)
        world.expect("strict is rolled back", first["phase"] == "rolled_back")
        world.expect(
            "because of its errors",
            any("error" in one or "unusable" in one for one in first["reasons"]),
        )
        world.expect("before it served a client", first["requests"]["served"] == 0)
        world.answered(_READ)
    cause = story.demo("A second candidate, 'minutes', uses the mean where a value is missing.")
    world.reload(config("minutes"))
    second = _decision(world, "minutes", cause)
    if second is not None:
        _tell(world, second, cause)
        world.expect("minutes is promoted", second["phase"] == "promoted")
        story.note(
            f"On flights that no model has seen, the champion is right in "
            f"{share(champion.accuracy(airline.flights.sent), 1)} and 'minutes' in "
            f"{share(better.accuracy(airline.flights.sent), 1)}."
        )
        world.answered(2 * _READ)
        world.expect(
            "no client saw an error", world.clients is not None and not world.clients.failed
        )


def _decision(world: World, name: str, cause: float | None = None) -> dict[str, Any] | None:
    """Wait until an experiment has ended, and tell each of its stages; its challenger."""
    seen: list[float] = []

    def ended() -> dict[str, Any] | None:
        one = world.challenger(name)
        if one["phase"] == "running" and one["weight"] not in seen:
            if seen:
                world.story.says(
                    f"'{name}' serves {share(one['weight'], 1)} of the clients: no harm is proven.",
                    cause,
                )
            seen.append(one["weight"])
        return one if one["phase"] in ("promoted", "rolled_back") else None

    found = world.wait(ended, f"a decision on '{name}'")
    if found is None and (one := world.experiments.get(name)):
        for line in (*one["why"][:2], *one["next"][:2]):
            world.story.says(line)
    return found


def _tell(world: World, one: dict[str, Any], cause: float) -> None:
    requests = one["requests"]
    world.story.says(f"{one['headline']}.", cause, one["tone"])
    for reason in one["reasons"][: 3 if one["phase"] == "promoted" else 1]:
        world.story.says(f"{reason}.")
    world.story.note(
        f"{requests['pairs']:,} mirrored requests were compared; it served {requests['served']:,}."
    )
