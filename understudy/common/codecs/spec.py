"""What the configuration says of a model's payloads, and what a wire format declares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from understudy.common.codecs.table import Table, Undecodable

if TYPE_CHECKING:
    from understudy.common.codecs.llm.columns import Timing


@dataclass(frozen=True, slots=True)
class Classes:
    """Which prediction holds a score for each class, and the classes' names in their order."""

    of: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """``features`` and ``predictions`` name positional columns, where their number fits.

    ``protocol`` is ``auto`` or the name of a wire format. The ``json_*`` pairs are (name, JSON
    pointer) for the protocol ``json``.

    >>> ModelSpec("delays", features=("distance", "hour"), predictions=("late",)).protocol
    'auto'
    """

    name: str
    version: str = ""
    protocol: str = "auto"
    features: tuple[str, ...] = ()
    predictions: tuple[str, ...] = ()
    json_features: tuple[tuple[str, str], ...] = ()
    json_predictions: tuple[tuple[str, str], ...] = ()
    classes: Classes | None = None
    limits: tuple[tuple[str, float], ...] = ()
    """Of language models: the times within which an answer is good, in seconds."""
    prices: tuple[float, float, float] | None = None
    """Of language models: of one token of a prompt, of a cached one, and of an answer."""


Decoder = Callable[[object, ModelSpec], Table | Undecodable]
Parser = Callable[[bytes, bytes | memoryview], Any]
"""Headers and body to what JSON would say, or an Undecodable."""
Parsers = tuple[Parser, Parser]
"""Of requests and of responses."""


@dataclass(frozen=True, slots=True)
class WireFormat:
    """What a wire format declares about itself.

    ``decode_request`` and ``decode_response`` take parsed JSON and never raise. For ``protocol:
    auto``: ``paths`` are regular expressions of whole paths that ask for predictions,
    ``other_paths`` those of the format's paths that ask for none, and ``matches`` tells from a
    request's JSON object whether it is in this format. ``calls`` are paths like ``paths``, of
    requests whose bodies are not JSON, with what parses them.

    For answers whose times matter: ``timed`` decodes a whole one instead of ``decode_response``,
    and ``events`` one that is a stream, from the name and data of each event.
    """

    decode_request: Decoder
    decode_response: Decoder
    paths: tuple[str, ...] = ()
    other_paths: tuple[str, ...] = ()
    calls: tuple[tuple[str, Parsers], ...] = ()
    matches: Callable[[dict[str, object]], bool] = lambda payload: False
    timed: Callable[[object, Timing], Table | Undecodable] | None = None
    events: Callable[[Sequence[tuple[bytes, bytes]], Timing], Table | Undecodable] | None = None
