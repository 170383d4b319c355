"""Whose series a rule is about: the matchers of its selectors, and the labels that tell one
installation of a model from another."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from understudy.monitor.slo import promql

IDENTITY = ("namespace",)
"""Labels of the scraped series that tell installations of a model apart, by default."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Matchers of the scrape (``job``, ``namespace``, ``cluster`` …), models, version and arm; all
    are optional. ``identity`` are labels by which every rule is grouped: series that differ in them
    belong to different installations."""

    scrape: Mapping[str, str] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    version: str = ""
    arm: str = ""
    identity: tuple[str, ...] = IDENTITY

    def labels(self, *names: str) -> dict[str, str]:
        """Matchers for a metric with the labels ``names``, in addition to those of the scrape."""
        own = {"version": self.version, "arm": self.arm}
        result = dict(self.scrape)
        if "model" in names and len(self.models) > 1:
            result["model=~"] = "|".join(re.escape(model) for model in self.models)
        elif "model" in names and self.models:
            result["model"] = self.models[0]
        return {**result, **{name: own[name] for name in names if own.get(name)}}

    def example(self, *names: str) -> dict[str, str]:
        """Labels of a trial's series that the matchers accept."""
        plain = {"model": "m", "version": "1", "arm": "champion"}
        return {**{name: plain[name] for name in names}, **promql.example(self.labels(*names))}

    def by(self, *names: str) -> str:
        """``by (…)`` with the identity and more labels; empty without any."""
        labels = dict.fromkeys((*self.identity, *names))
        return f" by ({', '.join(labels)}) " if labels else ""

    def on(self, *names: str) -> str:
        """``on (…)`` with the identity and more labels."""
        return f"on ({', '.join(dict.fromkeys((*self.identity, *names)))})"

    def only(self, *names: str) -> Scope:
        """The same without models, version or arm, unless ``names`` has them."""
        empty = {"models": (), "version": "", "arm": ""}
        kept = {"models" if name == "model" else name for name in names}
        return replace(self, **{name: value for name, value in empty.items() if name not in kept})  # type: ignore[arg-type]

    def unused(self, *names: str) -> list[str]:
        """Matchers that metrics with the labels ``names`` cannot have."""
        own = {"model": bool(self.models), "version": bool(self.version), "arm": bool(self.arm)}
        return [name for name, given in own.items() if given and name not in names]

    def describe(self) -> str:
        """The scope in words, for explanations."""
        parts = [f"model{'s' if len(self.models) > 1 else ''} {' and '.join(self.models)}"]
        if not self.models:
            parts = ["all models"]
        parts += [
            f"{what} {own}" for what, own in (("version", self.version), ("arm", self.arm)) if own
        ]
        return f"{', '.join(parts)} {self.describe_scrape()}"

    def describe_scrape(self) -> str:
        """The matchers of the scrape in words."""
        others = dict(self.scrape)
        job = others.pop("job", "")
        matchers = f" with {promql.matchers(others)}" if others else ""
        return f"of the job {job}{matchers}" if job else f"of all scraped jobs{matchers}"
