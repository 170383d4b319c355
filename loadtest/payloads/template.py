"""Bodies from a template: JSON in which an object with one key like ``$uniform`` stands for a value
that is drawn for every payload."""

from __future__ import annotations

import math
import random
import uuid
from collections.abc import Callable
from typing import Any

from understudy.loadtest.errors import PlanError

_SYLLABLES = ("la", "mo", "ri", "ten", "ka", "su", "vel", "no", "pi", "dor")


class Drawer:
    """Draws values, reproducibly for a ``seed``."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)  # noqa: S311  # payloads have to be repeatable
        self._number = 0

    def fill(self, template: Any, where: str = "template") -> Any:
        """Replace the generators of a template by drawn values. Raises PlanError with the path."""
        if isinstance(template, dict):
            if len(template) == 1:
                (key, argument), *_ = template.items()
                if key.startswith("$"):
                    return self._generate(key, argument, where)
            return {k: self.fill(v, f"{where}.{k}") for k, v in template.items()}
        if isinstance(template, list):
            return [self.fill(v, f"{where}[{n}]") for n, v in enumerate(template)]
        return template

    def _generate(self, key: str, argument: Any, where: str) -> Any:
        chance = self._chance
        generators: dict[str, Callable[[], Any]] = {
            "$uniform": lambda: chance.uniform(*argument),
            "$normal": lambda: chance.gauss(*argument),
            "$lognormal": lambda: chance.lognormvariate(*argument),
            "$int": lambda: chance.randint(*argument),
            "$choice": lambda: chance.choice(argument),
            "$weighted": lambda: chance.choices(
                [value for value, _ in argument], [weight for _, weight in argument]
            )[0],
            "$vector": lambda: [chance.gauss(0.0, 1.0) for _ in range(_length(argument))],
            "$text": lambda: " ".join(self._word() for _ in range(_length(argument))),
            "$number": self._next,
            "$uuid": lambda: str(uuid.UUID(int=chance.getrandbits(128), version=4)),
            "$repeat": lambda: [
                self.fill(argument[1], f"{where}.$repeat[{n}]") for n in range(argument[0])
            ],
        }
        if key not in generators:
            raise PlanError(
                f"{where}: unknown generator {key}: choose one of {', '.join(generators)}"
            )
        try:
            result = generators[key]()
        except PlanError:
            raise
        except (TypeError, ValueError, IndexError, KeyError) as error:
            raise PlanError(
                f"{where}: {key}: not a valid argument: {argument!r}: {error}"
            ) from error
        if isinstance(result, float):
            return result if math.isfinite(result) else 0.0
        return result

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _word(self) -> str:
        return "".join(self._chance.choices(_SYLLABLES, k=self._chance.randint(1, 4)))


def _length(argument: Any) -> int:
    if not isinstance(argument, int) or isinstance(argument, bool) or not 0 < argument <= 1_000_000:
        raise ValueError("length must be from 1 to 1,000,000")
    return argument
