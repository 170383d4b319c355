"""Which format a payload is taken for."""

from __future__ import annotations

import pytest

from tests.support.codecs import SPEC, V1, V2, decode, reason, v2
from understudy.common.codecs import ModelSpec, Reason, Table, detect

PATHS = [
    ("/v2/models/m/infer", "open-inference-v2"),
    ("/v2/models/m/versions/3/infer", "open-inference-v2"),
    ("/prefix/v2/models/m/infer?x=/invocations", "open-inference-v2"),
    ("http://host/v2/models/m/infer", "open-inference-v2"),
    ("/v1/models/m:predict", "kserve-v1"),
    ("/v1/models/m/versions/3:predict", "kserve-v1"),
    ("/v1/models/m/labels/stable:predict", "kserve-v1"),
    ("/invocations", "mlflow"),
    ("/gateway/late/invocations", "mlflow"),
    ("/v2/models/m/ready", detect.NOT_INFERENCE),
    ("/v2/models/m", detect.NOT_INFERENCE),
    ("/v2/models/m/versions/3/ready", detect.NOT_INFERENCE),
    ("/v2/health/live", detect.NOT_INFERENCE),
    ("/v1/models/m", detect.NOT_INFERENCE),
    ("/v1/models/m/metadata", detect.NOT_INFERENCE),
    ("/v1/models/m:explain", detect.NOT_INFERENCE),
    ("/v1/models/m%3Apredict", "kserve-v1"),
    ("/v2/models/a%2Fb/infer", "open-inference-v2"),
    ("/v1/models/a%2fb%3apredict", "kserve-v1"),
    ("/v1/models/m:classify", "tf-examples"),
    ("/v1/models/m/versions/3:regress", "tf-examples"),
    ("/seldon/team/m/api/v1.0/predictions", "seldon-v1"),
    ("/api/v1.0/feedback", detect.NOT_INFERENCE),
    ("/predictions/m/1.0", "torchserve"),
    ("/inference.GRPCInferenceService/ModelInfer", "open-inference-v2"),
    ("/inference.GRPCInferenceService/ModelStreamInfer", "open-inference-v2"),
    ("/inference.GRPCInferenceService/ModelReady", detect.NOT_INFERENCE),
    ("/grpc.health.v1.Health/Check", None),
    ("/v2/models/m/generate", "triton-generate"),
    ("/my-invocations", None),
    ("/", None),
    ("", None),
    ("\udc80", None),
]


@pytest.mark.parametrize(("path", "protocol"), PATHS)
def test_paths(path: str, protocol: str | None) -> None:
    assert detect.by_path(path) == protocol
    assert detect.by_path(path.encode("utf-8", "replace")) == protocol


def test_the_cache_of_paths_is_bounded() -> None:
    for number in range(3000):
        assert detect.by_path(f"/v2/models/m{number}/infer") == "open-inference-v2"
        assert detect.by_path(b"/" + b"x" * 600 + b"/%d/invocations" % number) == "mlflow"
    known = detect._known.cache_info()
    assert known.maxsize == 1024
    assert known.currsize <= 1024
    before = detect._known.cache_info()
    detect.by_path(b"/" + b"x" * 600 + b"/invocations")
    assert detect._known.cache_info() == before


def test_a_query_is_not_remembered() -> None:
    detect.by_path("/v2/models/q/infer")
    before = detect._known.cache_info().currsize
    for number in range(50):
        detect.by_path(f"/v2/models/q/infer?n={number}")
    assert detect._known.cache_info().currsize == before


def test_other_requests_are_not_inference() -> None:
    for part in decode(b"/v2/models/m/ready", {"inputs": []}, {"ready": True}):
        assert reason(part) == Reason.NOT_INFERENCE


def test_without_a_known_path_the_request_selects_the_format_of_both() -> None:
    features, predictions = decode(b"/own", {"instances": [4]}, {"predictions": [5]})
    assert features == Table(("x",), 1, [4])
    assert predictions == Table(("y",), 1, [5])
    others: tuple[object, ...] = (7, [], {}, {"text": "u"})
    for request in others:
        features, predictions = decode(b"/own", request, {"predictions": [5]})
        assert reason(features) == reason(predictions) == Reason.UNKNOWN_PROTOCOL


def test_the_content_does_not_override_the_path() -> None:
    assert reason(decode(V1, v2(("a", [1], [1])))[0]) is None
    assert reason(decode(V2, {"instances": [1]})[0]) == Reason.WRONG_SHAPE


def test_the_configuration_overrides_the_path() -> None:
    spec = ModelSpec("m", protocol="kserve-v1")
    assert decode(V2, {"instances": [4]}, spec=spec)[0] == Table(("x",), 1, [4])
    assert decode(b"/v2/health/live", {"instances": [4]}, spec=spec)[0] == Table(("x",), 1, [4])
    assert SPEC.protocol == "auto"


def test_an_unknown_format_is_undecodable() -> None:
    features, predictions = decode(V2, {"inputs": []}, spec=ModelSpec("m", protocol="grpc"))
    assert reason(features) == reason(predictions) == Reason.UNKNOWN_PROTOCOL
