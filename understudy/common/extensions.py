"""Wire formats by name, and how a table finds the code that it names."""

from __future__ import annotations

import importlib
from typing import Any

WIRE_FORMATS = {
    "mlflow": "common.codecs.mlflow:FORMAT",
    "open-inference-v2": "common.codecs.open_inference:FORMAT",
    "kserve-v1": "common.codecs.kserve_v1:FORMAT",
    "tf-examples": "common.codecs.tf_examples:FORMAT",
    "seldon-v1": "common.codecs.seldon_v1:FORMAT",
    "torchserve": "common.codecs.torchserve:FORMAT",
    "openai-chat": "common.codecs.llm.formats:CHAT",
    "openai-completions": "common.codecs.llm.formats:COMPLETIONS",
    "openai-responses": "common.codecs.llm.formats:RESPONSES",
    "openai-embeddings": "common.codecs.llm.formats:EMBEDDINGS",
    "anthropic-messages": "common.codecs.llm.formats:MESSAGES",
    "triton-generate": "common.codecs.llm.formats:TRITON",
    "ollama": "common.codecs.llm.formats:OLLAMA",
    "tgi": "common.codecs.llm.formats:GENERATE",
    "bentoml": "common.codecs.bentoml:FORMAT",
    "json": "common.codecs.pointer:FORMAT",
}
"""Wire formats by name: a :class:`understudy.common.codecs.spec.WireFormat` each. Order is the
order of detection."""


def implementation(code: str) -> Any:
    """What ``code`` names, as ``package.module:attribute`` below ``understudy``."""
    module, _, attribute = code.partition(":")
    return getattr(importlib.import_module(f"understudy.{module}"), attribute)
