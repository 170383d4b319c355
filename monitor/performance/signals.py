"""What the performance of a model says, in words."""

from __future__ import annotations

from monitor.findings.finding import Signal, Size
from monitor.performance.watch import PerformanceWatch

_EXPECTED, _REALISED, _CALIBRATION = range(3)


def performance_signals(watch: PerformanceWatch, model: str, version: str) -> list[Signal]:
    """What is wrong at present."""
    found = []
    if watch.latches.alarmed[_REALISED]:
        found.append(_realised(watch, model, version))
    if watch.latches.alarmed[_EXPECTED]:
        found.append(_expected(watch, model, version))
    if watch.latches.alarmed[_CALIBRATION] and watch.calibration is not None:
        found.append(
            Signal(
                key=f"performance/{model}/{version}//calibration",
                kind="performance",
                model=model,
                version=version,
                segment="",
                severity="warning",
                title=f"Scores have changed their meaning: {watch.calibration.words()}",
                rule="calibration e-detector on labelled scores",
                guarantee=_guarantee(watch),
                advice="Inputs and outcomes relate in another way, or another build is served. "
                "Recalibrate on recent labels, or retrain; do not trust estimates without labels.",
            )
        )
    return found


def _expected(watch: PerformanceWatch, model: str, version: str) -> Signal:
    estimate = watch.estimate()
    known = watch.reference[0] if watch.reference is not None else None
    change = watch.history.estimate(0)
    said = "Accuracy is estimated to have fallen, before any label"
    size = None
    doubts: tuple[str, ...] = ()
    if estimate is not None:
        was = f", was {known * 100:.1f} %" if known is not None else ""
        said = (
            f"Accuracy is estimated at {estimate.value * 100:.1f} % "
            f"({estimate.low * 100:.1f} to {estimate.high * 100:.1f} %){was}: no labels yet"
        )
        size = Size("accuracy", "", known, estimate.value, estimate.low, estimate.high)
        doubts = estimate.doubts
    return Signal(
        key=f"performance/{model}/{version}//estimated",
        kind="performance",
        model=model,
        version=version,
        segment="",
        severity="warning",
        title=said,
        since=change.time,
        size=size,
        rule="Shiryaev-Roberts e-detector on the errors to be expected from the scores",
        guarantee=_guarantee(watch),
        advice="See which inputs have changed: the drift and quality findings name them. Labels "
        "will tell whether it is so.",
        assumptions=(
            "scores mean what they meant in the baseline; a change of that itself shows only in "
            "labels",
            *doubts,
        ),
    )


def _realised(watch: PerformanceWatch, model: str, version: str) -> Signal:
    now = 1.0 - float(watch.latches.recent[_REALISED])
    known = watch.reference[0] if watch.reference is not None else None
    change = watch.history.estimate(1)
    was = f", was {known * 100:.1f} %" if known is not None else ""
    outlook = watch.outlook()
    advice = "Look at the examples, and at the segments with the largest loss. "
    if outlook is not None:
        advice += f"Retraining: {outlook.words}."
    return Signal(
        key=f"performance/{model}/{version}//realised",
        kind="performance",
        model=model,
        version=version,
        segment="",
        severity="critical",
        title=f"Accuracy has fallen to {now * 100:.1f} %{was}: labels say so",
        since=change.time,
        size=Size("accuracy", "", known, now, None, None),
        rule="Shiryaev-Roberts e-detector on the share of wrong predictions",
        guarantee=_guarantee(watch),
        examples=tuple(reversed(watch.examples)),
        advice=advice,
    )


def _guarantee(watch: PerformanceWatch) -> str:
    return (
        f"on average at most one false alarm in {watch.run_length:,.0f} predictions or labels, of "
        "all tests of the performance together, if the baseline is right"
    )
