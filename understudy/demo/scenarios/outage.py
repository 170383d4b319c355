"""A challenger hangs and dies, and clients do not notice; then the champion dies, and they do."""

from __future__ import annotations

import signal
from typing import Any

from understudy.demo.airline import Airline
from understudy.demo.flights import LateModel
from understudy.demo.story import duration, share
from understudy.demo.world import World

RATE = 100.0
_USUAL = 400

CONFIG = """\
# Written by `understudy demo`. Time limits and the breaker's pauses are short, so that a fault and
# its end are seen within seconds.
version: 1
listen: 127.0.0.1:{listen}              # clients connect here instead of to the model server
control: {{listen: "127.0.0.1:{control}"}}  # metrics, page, control API
workers: 1
state_dir: state
models:
  - name: delays
    version: "1"
champion:
  url: http://127.0.0.1:{champion}
  timeouts: {{first_byte: 2s}}
challengers:                          # get mirrored requests; clients never see their responses
  - name: candidate
    url: http://127.0.0.1:{candidate}
    timeouts: {{first_byte: 2s}}
    mirror: {{breaker: {{failures: 5, open: 1s, max_open: 2s}}}}
objectives: {{error_rate: <= 1 %}}      # a finding when it is missed
monitoring: {{hold: 10s}}
"""


def run(world: World) -> None:
    """Tell the story."""
    story = world.story
    airline = Airline()
    for name, hours in (("champion", True), ("candidate", False)):
        airline.serve(world, name, LateModel.learn(airline.flights.learned, hours=hours))
    world.serve(CONFIG.format(listen=world.listen, control=world.control, **world.ports))
    story.demo(
        "Clients ask whether flights will be late. The champion answers; each request is "
        "mirrored to 'candidate'."
    )
    airline.send(world, RATE)
    clients = world.clients
    assert clients is not None
    world.answered(_USUAL)
    usual = clients.quantile(0.99)

    candidate = world.servers["candidate"]
    cause = story.demo("The candidate hangs (SIGSTOP): it accepts requests and never answers.")
    candidate.send(signal.SIGSTOP)
    if _warned(world, "candidate", cause):
        world.expect("the hanging candidate is reported", True)
    world.answered(150)
    candidate.send(signal.SIGCONT)
    cause = story.demo("It goes on.")
    _recovered(world, "candidate", cause)
    cause = story.demo("The candidate is killed (SIGKILL).")
    candidate.kill()
    if _warned(world, "candidate", cause):
        world.expect("the dead candidate is reported", True)
    world.answered(150)
    world.restart_model("candidate")
    cause = story.demo("It is started again.")
    if _recovered(world, "candidate", cause):
        world.expect("it is compared again after its return", True)
    story.note(
        f"Clients saw {clients.failed:,} errors so far, and a p99 of "
        f"{duration(clients.quantile(0.99))} (before: {duration(usual)})."
    )
    world.expect("clients saw no error of the candidate", clients.failed == 0)

    cause = story.demo(
        "Now the champion is killed (SIGKILL). Clients get 502 at once, with the reason."
    )
    clients.tell(hold=True)  # errors are meant here: the rate stays
    world.servers["champion"].kill()
    problem = world.wait(
        lambda: next(iter(world.status["problems"]), None), "a report of the dead champion"
    )
    if problem:
        story.says(f"not ready: {problem}.", cause, "bad")
        world.expect("the dead champion is reported", "champion" in problem)
    story.note("An objective is judged by blocks of 10 seconds: one pause is one event.")
    found = world.wait(lambda: _missed(world), "a finding: error_rate is missed")
    if found:
        story.says(f"{found['severity']}: {found['title']}", cause, "bad")
        world.expect("a finding says that error_rate is missed", True)
    world.restart_model("champion")
    cause = story.demo("The champion is started again.")
    ready = world.wait(lambda: not world.status["problems"], "the champion serves again")
    if ready:
        story.says("ready: clients are served.", cause, "good")
        world.expect("clients are served after its return", True)
    failed = clients.failed
    clients.tell(hold=False)
    world.answered(200)
    world.expect(
        "no error after its return", clients.failed - failed <= _in_between(clients.errors)
    )
    story.note(
        f"{clients.failed:,} of {clients.answered:,} requests failed "
        f"({share(clients.failed, clients.answered)}), all while the champion was away."
    )


def _in_between(errors: dict[str, int]) -> int:
    """Failures that may still be on their way when the champion is back."""
    return min(20, sum(errors.values()))


def _missed(world: World) -> dict[str, Any] | None:
    for one in world.findings():
        if one["kind"] == "objective" and one["state"] == "open":
            return one
    return None


def _warned(world: World, name: str, cause: float) -> bool:
    """Wait for the warning about a challenger, and tell it; whether it came."""

    def warning() -> str | None:
        return next((text for text in world.status["warnings"] if f"'{name}'" in text), None)

    text = world.wait(warning, f"a warning about '{name}'")
    if text is None:
        return False
    world.story.says(f"{text}.", cause, "neutral")
    return True


def _recovered(world: World, name: str, cause: float) -> bool:
    """Wait until a challenger is compared again, and tell it; whether that happened."""

    def well() -> bool:
        arm = world.arm(name)
        breaker = (arm["mirror"] or {})["breaker"]
        return arm["state"] == "ok" and set(breaker) == {"closed"}

    if not world.wait(well, f"'{name}' is compared again"):
        return False
    world.story.says(
        f"'{name}' answers, its circuit breaker is closed: it is compared again.", cause
    )
    return True
