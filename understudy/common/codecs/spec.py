"""What the configuration says of a model's payloads, and what a wire format declares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from understudy.common.codecs.table import Table, Undecodable


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


Decoder = Callable[[object, ModelSpec], Table | Undecodable]


@dataclass(frozen=True, slots=True)
class WireFormat:
    """What a wire format declares about itself.

    ``decode_request`` and ``decode_response`` take parsed JSON and never raise. For ``protocol:
    auto``: ``paths`` are regular expressions of whole paths that ask for predictions,
    ``other_paths`` those of the format's paths that ask for none, and ``matches`` tells from a
    request's JSON object whether it is in this format.
    """

    decode_request: Decoder
    decode_response: Decoder
    paths: tuple[str, ...] = ()
    other_paths: tuple[str, ...] = ()
    matches: Callable[[dict[str, object]], bool] = lambda payload: False
