"""Models have the names that their servers give them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.support.patience import eventually
from tests.support.service import REAL, Service
from tests.support.world import Model
from understudy.monitor.config.load import parse
from understudy.monitor.errors import ConfigError

NAMES = ("meta-llama/Llama-3-8B:Q4", "модель@2", "a'b+c&d=<e>")


def test_odd_names_are_served_and_found_again(tmp_path: Path) -> None:
    server = Model()
    models = [{"name": name} for name in NAMES]
    service = Service(tmp_path, REAL, champion={"url": server.url}, models=models, monitoring={})
    tensor = {"name": "x", "shape": [1], "datatype": "FP64", "data": [1.0]}
    body = json.dumps({"inputs": [tensor]})
    try:
        with_state: dict[str, Any] = {}
        for _ in range(2):
            service.start()
            for name in NAMES:
                for safe in ("", "/:@!$&'()*+,;="):
                    path = f"/v2/models/{quote(name, safe=safe)}/infer"
                    assert httpx.post(service.url + path, content=body).status_code == 200

            def rows() -> dict[str, int]:
                found = httpx.get(service.control + "/v1/models").json()["models"]
                return {one["name"]: one["rows"] for one in found}

            more = {name: with_state.get(name, 0) + 2 for name in NAMES}
            with_state = eventually(lambda: rows() if rows() == more else None)  # noqa: B023
            metrics = httpx.get(service.control + "/metrics").text
            for name in NAMES:
                assert f'model="{name}"' in metrics
            assert service.stop() == 0, service.log
    finally:
        server.kill()


@pytest.mark.parametrize("name", ["", "a b", "a*", "a?b", "a#b", 'a"b', "a\\b", "a\nb", "x" * 201])
def test_names_that_are_rejected(name: str) -> None:
    text = json.dumps({"version": 1, "listen": "a:1", "models": [{"name": name}],
                       "champion": {"url": "http://h"}})  # fmt: skip
    with pytest.raises(ConfigError) as refused:
        parse(text, "test", Path("/"))
    assert "models[0].name" in str(refused.value)
