"""Columns of prompts and answers: sizes, parameters, times, tokens, and what is told of texts.

All are derived, and no text is among them. A column is always there; its cell is None where the
value is not known: a number of tokens that the server does not tell is not 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import ceil, nan

from understudy.common.codecs.llm import text
from understudy.common.codecs.llm.prompt import Prompt
from understudy.common.codecs.llm.reply import NONE, Reply
from understudy.common.codecs.table import Table
from understudy.common.events import EventTimes, gap_quantile

PROMPT = (
    *("requested_model", "streamed", "messages", "prompt_chars", "system_hash", "tools_offered"),
    *("attachments", "response_format", "temperature", "top_p", "max_tokens", "choices"),
    *("digit_share", "symbol_share", "non_latin_share", "script", "language"),
)
"""Columns of a request."""
TIMES = (
    *("ttfc_seconds", "ttft_seconds", "ttfo_seconds", "tpot_seconds", "e2e_seconds"),
    *("gap_p50_seconds", "gap_p99_seconds", "longest_gap_seconds", "tokens_per_second"),
)
"""Columns of an answer that hold its times."""
TOKENS = ("prompt_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")
ANSWER_HASH = "answer_hash"
"""Only answers of language models have it."""
HASHES = frozenset((ANSWER_HASH, "tools_hash"))
"""Columns that differ from answer to answer."""
CONTENT = ("finish_reason", ANSWER_HASH, "tools_hash", "is_refusal", "is_json")
"""Columns that two answers to the same request are compared by."""
ANSWER = (
    *("finish_reason", ANSWER_HASH, "tools_hash", "is_refusal", "is_json", "is_empty"),
    *(
        "is_cut_off",
        "is_good",
        "token_cost",
        "answer_chars",
        "reasoning_chars",
        "tool_calls",
        "repetition",
    ),
    *("answer_script", "answer_language", *TOKENS, "tokens_source", "output_events", "stalls"),
    *TIMES,
)
"""Columns of an answer."""
NOT_COMPARED = tuple(name for name in ANSWER if name not in CONTENT)


@dataclass(frozen=True, slots=True)
class Timing:
    """``seconds`` is the time from the request to the end of its answer; ``events`` are the times
    of the events of a stream, ``limits`` those within which an answer is good."""

    seconds: float = nan
    events: EventTimes | None = None
    limits: tuple[tuple[str, float], ...] = ()
    """Names of :data:`TIMES`, each with its largest value in seconds."""
    prices: tuple[float, float, float] | None = None
    """Of one token of a prompt, of a cached one, and of an answer."""


def prompt_table(prompt: Prompt) -> Table:
    """The columns of a request."""
    last = prompt.texts[-1] if prompt.texts else ""
    script = text.script(last)
    values: list[object] = [
        prompt.model,
        "yes" if prompt.streamed else "no",
        float(prompt.messages),
        float(sum(map(len, prompt.texts)) + sum(map(len, prompt.system))),
        text.digest("\n".join(prompt.system)) or "none",
        float(prompt.tools),
        float(prompt.attachments),
        prompt.format,
        prompt.temperature,
        prompt.top_p,
        prompt.max_tokens,
        prompt.choices,
        *text.shares(last),
        script,
        text.language(last, script),
    ]
    return Table(PROMPT, 1, values)


def answer_table(reply: Reply, timing: Timing) -> Table:
    """The columns of an answer."""
    answer = reply.text
    script = text.script(answer)
    tools = reply.tools
    called = "\n".join(f"{name} {text.canonical(args)}" for name, args in sorted(tools))
    source = reply.tokens_source if reply.output_tokens is not None else NONE
    stalls, *times = times_of(reply, timing)
    values: list[object] = [
        reply.finish or "none",
        text.digest(text.normal(answer)),
        text.digest(called),
        float(reply.refused or text.refuses(answer)),
        float(text.is_json(answer)),
        float(not answer.strip() and not tools),
        float(reply.finish == "length"),
        _good(dict(zip(TIMES, times, strict=True)), timing.limits),
        _cost(reply, timing.prices),
        float(len(answer)),
        float(len(reply.reasoning)),
        float(len(tools)),
        text.repetition(answer),
        script,
        text.language(answer, script),
        *(_float(getattr(reply, name)) for name in TOKENS),
        source,
        float(len(reply.outputs)) if reply.streamed else None,
        stalls,
        *times,
    ]
    return Table(ANSWER, 1, values)


def _good(times: dict[str, float | None], limits: tuple[tuple[str, float], ...]) -> float | None:
    """1 if an answer keeps all limits, 0 if it does not or a time that is needed is not known; None
    without limits."""
    if not limits:
        return None
    found = ((times[name], limit) for name, limit in limits)
    return float(all(value is not None and value <= limit for value, limit in found))


def _cost(reply: Reply, prices: tuple[float, float, float] | None) -> float | None:
    """What the tokens of a request and its answer cost; None without prices, or if a number of
    tokens that has a price is not known. Cached tokens that are not told are taken for others."""
    if prices is None:
        return None
    prompt, cached, output = prices
    asked, answered = reply.prompt_tokens, reply.output_tokens
    if (asked is None and prompt) or (answered is None and output):
        return None
    saved = min(reply.cached_tokens or 0, asked or 0)
    return ((asked or 0) - saved) * prompt + saved * cached + (answered or 0) * output


def times_of(reply: Reply, timing: Timing) -> list[float | None]:
    """Stalls, and the columns :data:`TIMES`, in seconds: see docs/language-models.md."""
    tokens = reply.output_tokens
    times = timing.events
    if not reply.streamed or times is None:
        # Without events there is no other time than that of the whole answer.
        whole = timing.seconds if timing.seconds > 0.0 and not reply.streamed else None
        rate = tokens / whole if whole and tokens is not None else None
        return [None, None, None, None, None, whole, None, None, None, rate]
    outputs = reply.outputs
    first = times.at(reply.first) if reply.first is not None else None
    token = times.at(outputs[0].index) if outputs else None
    answer = next((times.at(one.index) for one in outputs if one.answer), None)
    last = times.at(outputs[-1].index) if outputs else None
    per_token = None
    if tokens is not None and token is not None and last is not None and tokens >= 2:
        after = tokens - (outputs[0].tokens or 1)
        if after > 0:
            per_token = (last - token) / after
    rate = tokens / last if tokens is not None and last else None
    half, most = _gaps(reply, times)
    longest = times.longest * 1e-6 if times.events > 1 else None
    return [
        float(times.stalls), first, token, answer, per_token, last, half, most, longest, rate
    ]  # fmt: skip


def _gaps(reply: Reply, times: EventTimes) -> tuple[float | None, float | None]:
    """Median and 99th percentile of the gaps between output events, in seconds.

    Without those in which the client did not read. Of streams with more events than are kept one by
    one it is that of all events, from their sketch.
    """
    if times.gaps:
        return gap_quantile(times.gaps, 0.5), gap_quantile(times.gaps, 0.99)
    excused = frozenset(times.excused)
    known = [(one.index, times.at(one.index)) for one in reply.outputs]
    gaps = sorted(
        now - before
        for (start, before), (end, now) in pairwise(known)
        if before is not None
        and now is not None
        and (not excused or excused.isdisjoint(range(start + 1, end + 1)))
    )
    if not gaps:
        return None, None
    return gaps[ceil(0.5 * len(gaps)) - 1], gaps[ceil(0.99 * len(gaps)) - 1]


def _float(value: int | None) -> float | None:
    return None if value is None else float(value)
