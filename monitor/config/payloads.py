"""How the payloads of a configured model are read, for parts that do so without the pipeline."""

from __future__ import annotations

from understudy.common.codecs import ModelSpec
from understudy.monitor.config.model import Model


def spec_of(model: Model) -> ModelSpec:
    """The rules by which a codec reads the model's payloads."""
    mapping = model.json_
    return ModelSpec(
        model.name,
        model.version,
        model.protocol,
        tuple(model.features),
        tuple(model.predictions),
        tuple(mapping.features.items()) if mapping else (),
        tuple(mapping.predictions.items()) if mapping else (),
    )


def path_of(model: Model) -> str:
    """A path of its inference requests: the first without a pattern, or its protocol's."""
    if model.paths:
        return next((p for p in model.paths if "*" not in p), model.paths[0])
    if model.protocol in ("auto", "open-inference-v2"):
        return f"/v2/models/{model.name}/infer"
    return "/invocations" if model.protocol == "mlflow" else f"/v1/models/{model.name}:predict"
