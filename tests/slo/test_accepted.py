"""What ``slo generate`` accepts passes ``slo test``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from understudy.monitor.cli.main import main

pytestmark = pytest.mark.integration
SHARES = ["50 %", "90 %", "95 %", "99 %", "99.9 %", "99.99 %", "99.999 %"]
INDICATORS: list[dict[str, Any]] = [
    {"availability": {}},
    {"latency": {"within": "60ms", "by": "interpolate"}},
    {"quantile": {"quantile": "p99", "at_most": "80ms"}},
    {"ttft": {"within": "500ms"}},
]


# promtool evaluates each minute of the period: a quarter takes it a minute.
@pytest.mark.parametrize("longest", [14, pytest.param(90, marks=pytest.mark.slow)])
@settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate),
)
@given(
    data=st.data(),
    objective=st.sampled_from(SHARES),
    indicator=st.sampled_from(INDICATORS),
)
def test_what_is_accepted_passes_its_tests(
    tmp_path: Path,
    promtool: Path,
    longest: int,
    data: st.DataObject,
    objective: str,
    indicator: dict[str, Any],
) -> None:
    """Periods of up to ``longest`` days."""
    hours = data.draw(st.one_of(st.integers(1, 143), st.integers(144, 24 * longest)))
    file = tmp_path / "slo.yaml"
    slo = {"name": "one", "objective": objective, **indicator}
    document = {"version": 1, "service": "s", "period": f"{hours}h", "alerts": "none"}
    file.write_text(json.dumps({**document, "slos": [slo]}))
    runner = CliRunner()
    made = runner.invoke(main, ["slo", "generate", str(file), "--json"])
    if made.exit_code:
        assert made.exit_code == 2
        assert any(why in made.output for why in ("too short", "never fire", "ever fires"))
        return
    arguments = ["slo", "test", str(file), "--quick", "--promtool", str(promtool)]
    tested = runner.invoke(main, arguments)
    assert tested.exit_code == 0, tested.output
