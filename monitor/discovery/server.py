"""Which protocols a model server speaks, and which models it has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from understudy.monitor.discovery.asking import Asks, Reply

V2, V1, MLFLOW = "open-inference-v2", "kserve-v1", "mlflow"
SELDON, TORCHSERVE = "seldon-v1", "torchserve"
"""Wire formats of the configuration."""
OPENAI = "openai"
"""The paths tell its formats apart."""
PROTOCOLS = {
    V2: "Open Inference Protocol (V2)",
    V1: "KServe V1 / TensorFlow Serving",
    MLFLOW: "MLflow",
    OPENAI: "OpenAI API",
    SELDON: "Seldon V1",
    TORCHSERVE: "TorchServe",
}
"""Names for people."""
_MOST_MODELS = 50
_MOST_DETAILS = 10
"""Models whose inputs are asked for."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of a V2 model; -1 in ``shape`` is any number."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A model that the server has. Inputs and outputs are empty where it does not describe them."""

    name: str
    protocol: str
    version: str = ""
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()


@dataclass(slots=True)
class FoundServer:
    """What a model server says about itself. ``product`` is its name and version, if it says so;
    ``ready`` is None when it was not asked, or does not say; ``asked`` are the statuses of the
    paths that were tried."""

    url: str
    product: str = ""
    ready: bool | None = None
    protocols: list[str] = field(default_factory=list)
    models: list[FoundModel] = field(default_factory=list)
    asked: dict[str, int] = field(default_factory=dict)

    @property
    def description(self) -> str:
        """For people: ``MLServer 1.7.1: Open Inference Protocol (V2); models: delays``."""
        spoken = ", ".join(PROTOCOLS[name] for name in self.protocols)
        speaks = spoken or "no protocol that is known here"
        names = ", ".join(dict.fromkeys(model.name for model in self.models))
        text = f"{self.product}: {speaks}" if self.product else speaks
        return f"{text}; models: {names}" if names else text


def discover(asker: Asks, url: str, names: Sequence[str] = ()) -> FoundServer:
    """Ask a server what it is. ``names`` are models that it should have, for servers that cannot
    list theirs. Raises OSError when it cannot be reached."""
    return _Discovery(asker, url, names).run()


class _Discovery:
    """Asks one path after another. The first that fails with an OSError ends it; later ones, such
    as a server that closes the connection on a path that it does not know, do not."""

    def __init__(self, asker: Asks, url: str, names: Sequence[str]) -> None:
        self._asker = asker
        self._names = list(names)
        self._found = FoundServer(url)

    def run(self) -> FoundServer:
        first = self._asker.get("/v2")
        self._note("GET /v2", first)
        self._v2(first)
        self._lists()
        self._mlflow()
        self._torchserve()
        return self._found

    def _note(self, what: str, reply: Reply) -> Reply:
        self._found.asked[what] = reply.status
        return reply

    def _get(self, path: str) -> Reply:
        try:
            return self._note(f"GET {path}", self._asker.get(path))
        except OSError:
            return Reply(0, {}, b"")

    def _post(self, path: str, document: Any) -> Reply:
        try:
            return self._note(f"POST {path}", self._asker.post(path, document))
        except OSError:
            return Reply(0, {}, b"")

    # The Open Inference Protocol ------------------------------------------------------------------

    def _v2(self, first: Reply) -> None:
        about = first.document if first.status == 200 else None
        if not isinstance(about, dict) or not isinstance(about.get("name"), str):
            # OpenVINO Model Server and others have the health path only.
            if self._get("/v2/health/live").status != 200 or not self._v2_ready():
                return
            about = {}
        else:
            self._v2_ready()
        name, version = _text(about.get("name")), _text(about.get("version"))
        self._found.product = " ".join(
            part for part in (_PRODUCTS.get(name, name), version) if part
        )
        self._found.protocols.append(V2)
        listed = self._v2_names()
        for number, (model, of) in enumerate(listed.items()):
            details = self._v2_details(model, of) if number < _MOST_DETAILS else None
            self._found.models.append(details or FoundModel(model, V2, of))
        for name in self._names:
            details = self._v2_details(name, "") if name not in listed else None
            if details is not None:
                self._found.models.append(details)

    def _v2_ready(self) -> bool:
        self._found.ready = self._get("/v2/health/ready").status == 200
        return bool(self._found.ready)

    def _v2_names(self) -> dict[str, str]:
        """Names of the models, with a version where there is one."""
        listed = self._post("/v2/repository/index", {}).document
        found = {}
        for one in listed if isinstance(listed, list) else ():
            if isinstance(one, dict) and _text(one.get("name")):
                found[_text(one["name"])] = _text(one.get("version"))
        if not found:
            listed = self._get("/v2/models").document
            models = listed.get("models") if isinstance(listed, dict) else None
            for one in models if isinstance(models, list) else ():
                name = one.get("name") if isinstance(one, dict) else one
                if _text(name):
                    found[_text(name)] = ""
        return dict(list(found.items())[:_MOST_MODELS])

    def _v2_details(self, name: str, version: str) -> FoundModel | None:
        about = self._get(f"/v2/models/{quote(name, safe='')}").document
        if not isinstance(about, dict) or "inputs" not in about:
            return None
        return FoundModel(
            name, V2, version, _tensors(about["inputs"]), _tensors(about.get("outputs"))
        )

    # Others ---------------------------------------------------------------------------------------

    def _lists(self) -> None:
        """``/v1/models`` is a list of OpenAI's API, and another one of KServe's."""
        reply = self._get("/v1/models")
        document = reply.document if reply.status == 200 else None
        if isinstance(document, dict) and isinstance(document.get("data"), list):
            self._openai(document["data"])
        elif isinstance(document, dict) and isinstance(document.get("models"), list):
            self._v1([_text(name) for name in document["models"]])
        elif V2 not in self._found.protocols:
            self._v1([])

    def _openai(self, listed: list[Any]) -> None:
        self._found.protocols.append(OPENAI)
        owners = {_text(one.get("owned_by")) for one in listed if isinstance(one, dict)}
        if not self._found.product and owners & set(_OWNERS):
            self._found.product = _OWNERS[min(owners & set(_OWNERS))]
        for one in listed[:_MOST_MODELS]:
            if isinstance(one, dict) and _text(one.get("id")):
                self._found.models.append(FoundModel(_text(one["id"]), OPENAI))

    def _v1(self, listed: list[str]) -> None:
        known = {model.name for model in self._found.models}
        for name in [*listed, *(name for name in self._names if name not in listed)]:
            about = self._get(f"/v1/models/{quote(name, safe='')}")
            document = about.document if about.status == 200 else None
            if name not in listed and not isinstance(document, dict):
                continue
            if V1 not in self._found.protocols:
                self._found.protocols.append(V1)
            if not self._found.product and isinstance(document, dict):
                states = document.get("model_version_status")
                self._found.product = "TensorFlow Serving" if states else ""
            if name and name not in known:
                # A server that speaks both and lists its models only here.
                of_v2 = self._v2_details(name, "") if V2 in self._found.protocols else None
                self._found.models.append(of_v2 or FoundModel(name, V1))

    def _mlflow(self) -> None:
        """MLflow's scoring server has one model, without a name; its version is a plain text."""
        ping = self._get("/ping")
        self._ping = ping
        version = self._get("/version") if ping.status == 200 and not ping.body.strip() else None
        if version is None or version.status != 200:
            return
        text = version.body.decode("utf-8", "replace").strip()
        if not text[:1].isdigit() or len(text) > 40:
            return
        self._found.product = self._found.product or f"MLflow {text}"
        self._found.protocols.append(MLFLOW)
        self._found.ready = True
        self._found.models.append(FoundModel(self._names[0] if self._names else "model", MLFLOW))

    def _torchserve(self) -> None:
        document = self._ping.document if self._ping.status == 200 else None
        if not isinstance(document, dict) or "status" not in document or self._found.protocols:
            return
        self._found.protocols.append(TORCHSERVE)
        self._found.product = "TorchServe"
        self._found.ready = _text(document["status"]).lower() == "healthy"
        for name in self._names:
            self._found.models.append(FoundModel(name, TORCHSERVE))


_PRODUCTS = {"mlserver": "MLServer", "triton": "Triton", "kserve": "KServe"}
_OWNERS = {"vllm": "vLLM", "library": "Ollama", "llamacpp": "llama.cpp", "sglang": "SGLang"}


def _text(value: Any) -> str:
    return value if isinstance(value, str) and value.isprintable() and len(value) <= 200 else ""


def _tensors(value: Any) -> tuple[Tensor, ...]:
    found = []
    for one in value if isinstance(value, list) else ():
        if not isinstance(one, dict) or not _text(one.get("name")):
            continue
        shape = one.get("shape")
        sizes = shape if isinstance(shape, list) else [-1]
        found.append(
            Tensor(
                _text(one["name"]),
                _text(one.get("datatype")),
                tuple(size if isinstance(size, int) else -1 for size in sizes),
            )
        )
    return tuple(found)
