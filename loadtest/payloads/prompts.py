"""Requests for language models, made of lengths: prompts of words that most tokenizers have as one
token, shared prefixes, sessions of several turns, and clients that leave."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from understudy.loadtest.errors import PlanError
from understudy.loadtest.payloads.request import Payload
from understudy.loadtest.payloads.template import Drawer
from understudy.loadtest.payloads.traces import BLOCK_TOKENS, Traced

_MOST_COMMON = (
    "time year people way day man thing woman life child world school state family student "
    "group country problem hand part place case week company system program question work "
    "government number night point home water room mother area money story fact month lot right "
    "study book eye job word business issue side kind head house service friend father power "
    "hour game line end member law car city community name president team minute idea body "
    "information back parent face level office door health person art war history party result "
    "change morning reason research girl guy moment air teacher force education "
)
_WORDS = _MOST_COMMON.split()
_MOST_TOKENS = 2_000_000
_MOST_TURNS = 100


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked: see ``payloads.prompts`` of a plan. Lengths, turns and think time are numbers
    or generators of a template."""

    model: str
    path: str
    count: int
    headers: Mapping[str, str]
    input_tokens: Any
    output_tokens: Any
    traced: Sequence[Traced] = ()
    prefix_tokens: int = 0
    prefixes: int = 1
    words_per_token: float = 1.0
    exact: bool = True
    turns: Any = 1
    think: Any = 0.0
    cancelled: float = 0.0
    cancel_after: float | None = None


def of_lengths(wanted: Wanted, seed: int) -> list[Payload]:
    """``count`` requests, or those of the trace, with the further turns of each after all first
    ones. Raises PlanError."""
    build = _builder(wanted)
    drawer = Drawer(seed)
    chance = random.Random(seed)  # noqa: S311  # payloads have to be repeatable
    shared = [_text(wanted, f"{seed} prefix {n}", wanted.prefix_tokens) for n in
              range(wanted.prefixes if wanted.prefix_tokens else 0)]  # fmt: skip
    first: list[Payload] = []
    later: list[list[Payload]] = []
    for number in range(len(wanted.traced) or wanted.count):
        row = wanted.traced[number] if wanted.traced else None
        prefix = chance.choice(shared) if shared else ""
        turns = _whole(drawer, wanted.turns, "turns", _MOST_TURNS)
        history: list[dict[str, str]] = []
        session: list[Payload] = []
        for turn in range(turns):
            asked, answered = _lengths(wanted, drawer, row)
            name = f"{seed} {number} {turn}"
            text = _blocks(wanted, row, name) if row is not None else _text(wanted, name, asked)
            history.append({"role": "user", "content": text})
            leaves = wanted.cancel_after if chance.random() < wanted.cancelled else None
            session.append(
                Payload(
                    build(prefix, history, answered), path=wanted.path, headers=wanted.headers,
                    start=not turn, leaves=leaves, think=_think(drawer, wanted.think),
                )
            )  # fmt: skip
            # The place of the server's own answer, which is not known before it comes.
            history.append({"role": "assistant", "content": _text(wanted, f"{name} a", answered)})
        first.append(session[0])
        later.append(session[1:])
    return _linked(first, later)


def _linked(first: Sequence[Payload], later: Sequence[Sequence[Payload]]) -> list[Payload]:
    """First turns, then all further ones, each turn with the index of the next."""
    payloads = list(first)
    for number, rest in enumerate(later):
        before = number
        for payload in rest:
            payloads[before] = replace(payloads[before], then=len(payloads))
            before = len(payloads)
            payloads.append(payload)
    return payloads


def _lengths(wanted: Wanted, drawer: Drawer, row: Traced | None) -> tuple[int, int]:
    if row is not None:
        return row.input_tokens, row.output_tokens
    return (
        _whole(drawer, wanted.input_tokens, "input_tokens", _MOST_TOKENS),
        _whole(drawer, wanted.output_tokens, "output_tokens", _MOST_TOKENS),
    )


def _whole(drawer: Drawer, declared: Any, name: str, most: int) -> int:
    """A number of at least one: what a distribution draws below that is one."""
    where = f"payloads.prompts.{name}"
    value = drawer.fill(declared, where)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value > most:
        raise PlanError(f"{where}: not a number up to {most:,}: {value!r}")
    return max(1, round(value))


def _think(drawer: Drawer, declared: Any) -> float:
    value = drawer.fill(declared, "payloads.prompts.think")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise PlanError(f"payloads.prompts.think: not a number of seconds: {value!r}")
    return max(0.0, float(value))


def _text(wanted: Wanted, name: str, tokens: int) -> str:
    """So many words, the same for the same name."""
    chance = random.Random(name)  # noqa: S311  # payloads have to be repeatable
    return " ".join(chance.choices(_WORDS, k=max(1, round(tokens * wanted.words_per_token))))


def _blocks(wanted: Wanted, row: Traced, name: str) -> str:
    """A prompt of the length of a trace's: equal ids of blocks are equal texts."""
    parts, left = [], row.input_tokens
    for block in row.blocks:
        if left <= 0:
            break
        words = _text(wanted, f"block {block}", BLOCK_TOKENS).split()
        parts.append(" ".join(words[: max(1, round(left * wanted.words_per_token))]))
        left -= BLOCK_TOKENS
    if left > 0:
        parts.append(_text(wanted, name, left))
    return " ".join(parts)


Builder = Callable[[str, Sequence[Mapping[str, str]], int], bytes]


def _builder(wanted: Wanted) -> Builder:
    """Makes the bodies of the API that the path asks for."""
    path = wanted.path.partition("?")[0]
    common: dict[str, Any] = {
        "model": wanted.model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
    }

    def lengths(tokens: int) -> dict[str, Any]:
        exact = {"min_tokens": tokens, "ignore_eos": True} if wanted.exact else {}
        return {"max_tokens": tokens, **exact}

    def chat(prefix: str, history: Sequence[Mapping[str, str]], tokens: int) -> bytes:
        system = [{"role": "system", "content": prefix}] if prefix else []
        return json.dumps({**common, **lengths(tokens), "messages": [*system, *history]}).encode()

    def completion(prefix: str, history: Sequence[Mapping[str, str]], tokens: int) -> bytes:
        text = "\n".join([*([prefix] if prefix else []), *(one["content"] for one in history)])
        return json.dumps({**common, **lengths(tokens), "prompt": text}).encode()

    if path.endswith("/chat/completions"):
        return chat
    if path.endswith("/completions"):
        return completion
    raise PlanError(
        f"payloads.path: {path!r}: prompts are for /v1/chat/completions and /v1/completions"
    )
