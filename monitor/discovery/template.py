"""Writes a commented configuration for a model server."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

import yaml

from understudy.monitor.config.fields import MODEL_NAME
from understudy.monitor.discovery.sample import path_of
from understudy.monitor.discovery.server import (
    MLFLOW,
    OPENAI,
    SELDON,
    TORCHSERVE,
    FoundModel,
)

Mode = Literal["shadow", "split", "canary"]
_DOCS = "https://github.com/understudy-serving/understudy/blob/main/docs"
_MOST_MODELS = 20
_COLUMN = 34
"""Where comments begin."""
_EXPERIMENTS: dict[Mode, tuple[str, str, bool]] = {
    "shadow": ("mode: shadow", "mirrored requests only: it serves no client", False),
    "split": ("mode: split", "A/B: a fixed share of the clients", True),
    "canary": ("mode: canary", "shadow, then 1, 5, 25, 50 and 100 % of the clients", False),
}
"""Setting and comment of each mode, and whether it has weights."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the configuration is for. ``challengers`` are names and URLs; ``state`` is the state
    folder; ``about`` is a line on what the server said of itself."""

    url: str
    models: Sequence[FoundModel]
    challengers: Sequence[tuple[str, str]] = ()
    mode: Mode = "shadow"
    listen: str = "127.0.0.1:8080"
    control: str = "127.0.0.1:9090"
    state: str = "understudy-state"
    about: str = ""


def configuration(wanted: Wanted) -> str:
    """The text of the file."""
    parts = [_head(wanted), _models(wanted.models), _servers(wanted)]
    if wanted.challengers:
        parts.append(_experiments(wanted))
    parts.append(_MONITORING)
    parts.append(f"# All settings: {_DOCS}/configuration.md\n")
    return "\n".join(parts)


def names_of(models: Sequence[FoundModel]) -> list[str]:
    """A name of the configuration for each model: distinct, and that of the server where such a
    name is allowed."""
    names: list[str] = []
    for model in models:
        name = model.name
        if re.fullmatch(MODEL_NAME, name) is None:
            name = re.sub(r"[^A-Za-z0-9._-]", "-", name).strip("-._")[:60] or "model"
        number = 2
        while name in names:
            name, number = f"{name[:55]}-{number}", number + 1
        names.append(name)
    return names


def _head(wanted: Wanted) -> str:
    about = f"# The model server is {wanted.about}\n" if wanted.about else ""
    return (
        "# Written by `understudy init`.\n"
        f"{about}version: 1\n\n"
        + _line(f"listen: {_text(wanted.listen)}", "clients connect here, not to the model server")
        + "control:\n"
        + _line(f"  listen: {_text(wanted.control)}", "page, metrics, control API")
        + _line("  # token_env: UNDERSTUDY_TOKEN", "needed once other machines can reach it")
        + _line(f"state_dir: {_text(wanted.state)}", "counters and decisions, kept over restarts")
    )


def _line(setting: str, comment: str) -> str:
    return f"{setting.ljust(_COLUMN - 1)} # {comment}\n"


def _text(value: str) -> str:
    """``value`` in YAML: plain where that is read as the same text."""
    plain = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:/-]*", value) is not None
    try:
        return value if plain and yaml.safe_load(value) == value else json.dumps(value)
    except yaml.YAMLError:
        return json.dumps(value)


def _models(models: Sequence[FoundModel]) -> str:
    text = "models:\n"
    for model, name in list(zip(models, names_of(models), strict=True))[:_MOST_MODELS]:
        text += f"  - name: {_text(name)}\n"
        if model.protocol == OPENAI:
            text += "    paths: [/v1/chat/completions, /v1/completions, /v1/embeddings]\n"
            break  # all models of such a server share these paths
        if model.protocol in (SELDON, TORCHSERVE):
            text += f"    protocol: {model.protocol}\n"
            text += f"    paths: {json.dumps([path_of(model)])}\n"
        elif model.protocol == MLFLOW:
            text += "    paths: [/invocations]\n"
        elif name != model.name:
            known = quote(model.name, safe="")
            paths = (f"/v2/models/{known}/infer", f"/v1/models/{known}:predict")
            text += f"    paths: {json.dumps(paths)}\n"
        text += _line(
            "    # baseline: baseline.json", "from `understudy baseline build`: finds drift"
        )
    return text


def _servers(wanted: Wanted) -> str:
    text = _line("champion:", "answers the clients")
    text += f"  url: {_text(wanted.url)}\n"
    text += "  # timeouts: {connect: 2s, first_byte: 2m, between_bytes: 2m}\n"
    if not wanted.challengers:
        text += _line("# challengers:", "get mirrored requests; clients never see their answers")
        return text + "#   - {name: candidate, url: http://127.0.0.1:8082}\n"
    text += _line("challengers:", "get mirrored requests; clients never see their answers")
    for name, url in wanted.challengers:
        text += f"  - name: {_text(name)}\n    url: {_text(url)}\n"
        text += _line("    credentials: remove", "or forward: it gets those of the clients")
        text += _line("    mirror: {rate: 1.0}", "share of the requests")
    return text


def _experiments(wanted: Wanted) -> str:
    chat = any(model.protocol == OPENAI for model in wanted.models)
    setting, comment, weights = _EXPERIMENTS[wanted.mode]
    count = len(wanted.challengers)
    text = _line("experiments:", "may a challenger replace the champion? ends in a verdict")
    for number, (name, _) in enumerate(wanted.challengers):
        text += f"  - name: {_text(f'{name}-{wanted.mode}')}\n"
        text += f"    challengers: [{_text(name)}]\n"
        text += f"    model: {_text(names_of(wanted.models)[0])}\n"
        text += _line(f"    {setting}", comment)
        if weights:
            text += f"    weights: {{{_text(name)}: 0.5}}\n"
        if count > 1 and wanted.mode != "shadow":
            ends = f"[{number / count:.6g}, {(number + 1) / count:.6g}]"
            text += _line(f"    slice: {ends}", "its part of the requests")
        text += _line("    minimum_duration: 5m", "some faults show only after minutes")
        text += _line("    metrics:", "what must not get worse, and by how much")
        text += "      - {metric: error_rate, margin: 1 pp}\n"
        text += "      - {metric: latency_p99, margin: 20 %}\n"
        if chat:
            text += "      # - {metric: prediction, field: ttft_seconds, better: lower}\n"
        else:
            text += "      # - {metric: accuracy, role: success, effect: 1 pp}   # needs labels\n"
    return text


_MONITORING = """\
monitoring:
  learn: 10000                    # rows to learn from what is usual, without a baseline
# notify:
#   - {kind: webhook, url: "http://127.0.0.1:8090/findings"}
"""
