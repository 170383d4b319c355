"""Production monitoring and online evaluation for machine-learning models.

The names below are the public API. Each is imported when it is first used, so that
``import understudy`` costs nothing; what needs an extra raises ImportError then. Everything else in
the package may change between versions.

Compare two models, valid however often you look (``docs/sequential.md``):
    :class:`LabelBetting`, :func:`log_odds_effect`, :class:`SplitDifference`, :class:`RateTest`,
    :class:`SplitCheck`, :class:`PairedTest`, :class:`PairedMean`, :class:`BettingInterval`,
    :class:`BettingTest`, :class:`BernoulliInterval`, :class:`QuantileSequence`
Read what is recorded (``docs/records.md``, ``docs/codecs.md``):
    :func:`decode_block`, :class:`RecordBlock`, :func:`decode_exchange`, :class:`ModelSpec`
Baselines and drift on files (``docs/baseline.md``):
    :class:`BaselineBuilder`, :class:`Baseline`, :class:`DriftAnalysis`, :class:`ReportOptions`
Inside a model server, and load tests (``docs/gate.md``):
    :class:`UnderstudyMiddleware`, :class:`OpenLoopUser`, :func:`load_plan`, :class:`Gate`
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from understudy.common.codecs.decode import decode_exchange
    from understudy.common.codecs.spec import ModelSpec
    from understudy.loadtest.gate.plan_file import load_plan
    from understudy.loadtest.gate.run import Gate
    from understudy.loadtest.locust.user import OpenLoopUser
    from understudy.monitor.baseline.builder import Builder as BaselineBuilder
    from understudy.monitor.baseline.model import Baseline
    from understudy.monitor.evidence.blocks import RecordBlock
    from understudy.monitor.evidence.blocks import decode as decode_block
    from understudy.monitor.health.report.analysis import Analysis as DriftAnalysis
    from understudy.monitor.health.report.analysis import ReportOptions
    from understudy.monitor.ingest.asgi import UnderstudyMiddleware
    from understudy.shadow.sequential import (
        BernoulliInterval,
        BettingInterval,
        BettingTest,
        LabelBetting,
        PairedMean,
        PairedTest,
        QuantileSequence,
        RateTest,
        SplitCheck,
        SplitDifference,
        log_odds_effect,
    )

__version__ = "0.2.0"

__all__ = [
    "Baseline",
    "BaselineBuilder",
    "BernoulliInterval",
    "BettingInterval",
    "BettingTest",
    "DriftAnalysis",
    "Gate",
    "LabelBetting",
    "ModelSpec",
    "OpenLoopUser",
    "PairedMean",
    "PairedTest",
    "QuantileSequence",
    "RateTest",
    "RecordBlock",
    "ReportOptions",
    "SplitCheck",
    "SplitDifference",
    "UnderstudyMiddleware",
    "__version__",
    "decode_block",
    "decode_exchange",
    "load_plan",
    "log_odds_effect",
]

_WHERE = {
    "Baseline": "monitor.baseline.model:Baseline",
    "BaselineBuilder": "monitor.baseline.builder:Builder",
    "BernoulliInterval": "shadow.sequential:BernoulliInterval",
    "BettingInterval": "shadow.sequential:BettingInterval",
    "BettingTest": "shadow.sequential:BettingTest",
    "DriftAnalysis": "monitor.health.report.analysis:Analysis",
    "Gate": "loadtest.gate.run:Gate",
    "LabelBetting": "shadow.sequential:LabelBetting",
    "ModelSpec": "common.codecs.spec:ModelSpec",
    "OpenLoopUser": "loadtest.locust.user:OpenLoopUser",
    "PairedMean": "shadow.sequential:PairedMean",
    "PairedTest": "shadow.sequential:PairedTest",
    "QuantileSequence": "shadow.sequential:QuantileSequence",
    "RateTest": "shadow.sequential:RateTest",
    "RecordBlock": "monitor.evidence.blocks:RecordBlock",
    "ReportOptions": "monitor.health.report.analysis:ReportOptions",
    "SplitCheck": "shadow.sequential:SplitCheck",
    "SplitDifference": "shadow.sequential:SplitDifference",
    "UnderstudyMiddleware": "monitor.ingest.asgi:UnderstudyMiddleware",
    "decode_block": "monitor.evidence.blocks:decode",
    "decode_exchange": "common.codecs.decode:decode_exchange",
    "load_plan": "loadtest.gate.plan_file:load_plan",
    "log_odds_effect": "shadow.sequential:log_odds_effect",
}
"""Where each name is; strings, since no package may import one above it."""


def __getattr__(name: str) -> Any:
    where = _WHERE.get(name)
    if where is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module, _, attribute = where.partition(":")
    value = globals()[name] = getattr(import_module(f"{__name__}.{module}"), attribute)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _use_compiled() -> None:
    """Import the data plane in its compiled form if there is one; see ``docs/compiled.md``."""
    from os import environ, path

    place = environ.get("UNDERSTUDY_COMPILED") or path.join(path.dirname(__file__), "_compiled")
    if not environ.get("UNDERSTUDY_PURE") and path.isdir(place):
        from pathlib import Path

        from understudy.common.compiled import install

        install(Path(place))


_use_compiled()
