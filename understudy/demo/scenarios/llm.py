"""Two variants of a chat model that streams its answers, and a stream that stalls."""

from __future__ import annotations

import json
import signal
from typing import Any

from understudy.common.units import percent
from understudy.demo.story import duration
from understudy.demo.text_server import MODEL
from understudy.demo.traffic import Message
from understudy.demo.world import World

RATE = 12.0
_SLOW_MS, _FAST_MS = 20.0, 11.0
"""Time for a token of the two variants, in milliseconds."""
_STALL_SECONDS = 2.0
_ENOUGH = 20
"""Answers of a variant whose times are told."""
_QUESTIONS = (
    "What is a player?",
    "What dreams may come?",
    "Who is ambitious?",
    "How should I speak the speech?",
    "What comes tomorrow?",
)

CONFIG = """\
# Written by `understudy demo`. It decides within a minute, which takes a strong effect and no
# minimum_duration: a real comparison lasts hours.
version: 1
listen: 127.0.0.1:{listen}              # clients connect here instead of to the model server
control: {{listen: "127.0.0.1:{control}"}}  # metrics, page, control API
workers: 1
state_dir: state
models:
  - name: chat
    paths: [/v1/chat/completions]
    goodput: {{ttft: 1s, tpot: 16ms}}   # an answer is good if its tokens come this soon
champion:
  name: large
  url: http://127.0.0.1:{large}
  timeouts: {{between_bytes: 2s}}       # a stream that pauses for longer is ended
challengers:
  - name: small
    url: http://127.0.0.1:{small}
    credentials: remove
    timeouts: {{between_bytes: 2s}}
experiments:
  - name: faster-chat
    challengers: [small]
    mode: split                       # half of the clients get the other variant
    weights: {{small: 0.5}}
    minimum_duration: 0
    metrics:
      - {{metric: latency_p50, role: success, planned: 200}}
      - {{metric: error_rate, margin: 10 pp}}
"""


def run(world: World) -> None:
    """Tell the story."""
    story = world.story
    for name, milliseconds in (("large", _SLOW_MS), ("small", _FAST_MS)):
        world.serve_model(name, "text_server", str(milliseconds))
    world.serve(
        CONFIG.format(listen=world.listen, control=world.control, **world.ports), ready="/health"
    )
    cause = story.demo(
        "Clients chat with two variants of a model, which stream their answers token by token. "
        "Half of the clients get 'large', the others 'small'."
    )
    story.note(
        "The 'model' is a Markov chain over Shakespeare. Understudy passes events on as they come, "
        "times the tokens of each stream, and compares whole streams "
        "(docs/language-models.md)."
    )
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{world.listen}\r\n"
        "Content-Type: application/json\r\n"
    )
    questions = [
        {
            "model": MODEL,
            "stream": True,
            # Without it, a stream does not say how many tokens it has.
            "stream_options": {"include_usage": True},
            "messages": [{"role": "user", "content": text}],
        }
        for text in _QUESTIONS
    ]
    world.send([Message(head, (json.dumps(one),)) for one in questions], RATE, late=4.0)
    world.answered(60)
    timed = world.wait(lambda: _timed(world), "tokens of both variants")
    for name, measured in (timed or {}).items():
        story.says(_tokens(name, measured))
    clients = world.clients
    assert clients is not None
    failed = clients.failed
    world.expect("no stream failed before the stall", failed == 0)

    stall = story.demo(
        "One stream of 'large' stalls in the middle. Its client has read half of an answer."
    )
    world.servers["large"].send(signal.SIGUSR1)
    outcome = world.wait(lambda: _cut(world), "the stream that stalls is ended")
    if outcome:
        story.says(
            f"the stream was ended after a pause of {_STALL_SECONDS:g} s: 1 {outcome} of 'large'.",
            stall,
        )
        world.expect("the stalled stream is ended and counted", True)
        world.wait(lambda: clients.failed > failed, "its client sees the end")
        world.expect("no other stream was harmed", clients.failed == failed + 1)

    one = world.wait(lambda: _decided(world), "a decision on 'small'")
    if one:
        story.says(f"{one['headline']}.", cause, one["tone"])
        for reason in one["reasons"][:2]:
            story.says(reason)
        world.expect("small is promoted, since it is faster", one["decision"] == "promote")


def _cut(world: World) -> str | None:
    """The outcome of requests to 'large' that is a time-out, if there is one."""
    outcomes = world.arm("large")["windows"]["start"]["outcomes"]
    return next((name for name in outcomes if "timeout" in name), None)


def _decided(world: World) -> dict[str, Any] | None:
    one = world.challenger("faster-chat")
    return one if one["decision"] in ("promote", "rollback") else None


def _timed(world: World) -> dict[str, dict[str, Any]] | None:
    """What was measured of the tokens of both variants in the last minute, once there is enough."""
    found = {
        name: one
        for name in ("large", "small")
        for one in world.arm(name)["language_models"]
        if one["answers"] >= _ENOUGH and one["tpot"]["p50"] is not None
    }
    return found if len(found) == 2 else None


def _tokens(name: str, one: dict[str, Any]) -> str:
    """A line about one variant."""
    first, per = one["ttft"], one["tpot"]
    good = percent(one["goodput"]["share"], 3) if one["goodput"] else "none"
    return (
        f"'{name}': first token {duration(first['p50'])} (p99 {duration(first['p99'])}), "
        f"{duration(per['p50'])} per token, {one['output_tokens_per_second']:.0f} tokens per "
        f"second in all; {good} of the answers keep the limits of `goodput`."
    )
