"""Loading a file of objectives, and what is wrong with one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from understudy.monitor.errors import ConfigError
from understudy.monitor.slo.compiled import Compiled
from understudy.monitor.slo.load import load


def loaded(folder: Path, data: Any, **more: Any) -> Compiled:
    path = folder / "slo.yaml"
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data))
    return load(path, **more)


def problems(folder: Path, data: Any) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        loaded(folder, data)
    assert caught.value.exit_code == 2
    return dict(caught.value.problems)
