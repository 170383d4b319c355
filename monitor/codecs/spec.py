"""What the configuration says of a model's payloads."""

from __future__ import annotations

from dataclasses import dataclass


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
