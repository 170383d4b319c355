"""Probes for experiments of the Chaos Toolkit."""

from __future__ import annotations

import urllib.parse

from understudy.common.http import call


def answers(url: str, status: int = 200, timeout: float = 2.0, body: str | None = None) -> bool:
    """Whether ``url`` responds with ``status`` within ``timeout`` seconds; ``body`` is posted as
    JSON."""
    data = body.encode() if body is not None else None
    headers = {"content-type": "application/json"} if data is not None else {}
    method = "GET" if data is None else "POST"
    try:
        return call(url, method, data, headers, timeout_seconds=timeout).status == status
    except OSError:
        return False


def alert_firing(url: str, alert: str, timeout: float = 5.0) -> bool:
    """Whether ``alert`` fires in the Prometheus or Alertmanager at ``url``."""
    for path in ("/api/v1/alerts", "/api/v2/alerts"):
        try:
            response = call(url.rstrip("/") + path, timeout_seconds=timeout, outside=True)
            data = response.json()
        except (OSError, ValueError):
            continue
        if response.status >= 300:
            continue
        alerts = data["data"]["alerts"] if isinstance(data, dict) else data
        for one in alerts:
            state = one.get("state") or (one.get("status") or {}).get("state")
            if one["labels"].get("alertname") == alert and state in ("firing", "active"):
                return True
    return False


def query(url: str, expression: str, timeout: float = 5.0) -> float | None:
    """The value of a PromQL expression; None if it has no sample. Raises OSError."""
    encoded = urllib.parse.urlencode({"query": expression})
    address = f"{url.rstrip('/')}/api/v1/query?{encoded}"
    response = call(address, timeout_seconds=timeout, outside=True)
    if response.status >= 300:
        raise OSError(f"{url}: answered {response.status}")
    result = response.json()["data"]["result"]
    return float(result[0]["value"][1]) if result else None


def metric(
    url: str, name: str, labels: dict[str, str] | None = None, otherwise: float | None = None
) -> float | None:
    """The sum of a metric's samples that have the ``labels``, read from the metrics page at
    ``url``; ``otherwise`` if there is none. Raises OSError."""
    from prometheus_client.parser import text_string_to_metric_families

    response = call(url, timeout_seconds=5.0)
    if response.status >= 300:
        raise OSError(f"{url}: answered {response.status}")
    text = response.body.decode()
    values = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and (labels or {}).items() <= sample.labels.items()
    ]
    return float(sum(values)) if values else otherwise
