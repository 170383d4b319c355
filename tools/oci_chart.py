"""The chart as an OCI image layout, byte for byte the same from the same tree.

What Helm pushes to a registry (https://helm.sh/docs/topics/registries/): a manifest whose config is
``Chart.yaml`` as JSON and whose layer is the chart's archive. `oras` and `skopeo` copy a layout to a
registry; the archive alone is what ``helm push`` and ``helm install`` take.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import yaml

CONFIG = "application/vnd.cncf.helm.config.v1+json"
LAYER = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
_IGNORED = (".tgz", ".swp", "~")


def archive(chart: Path, epoch: int) -> bytes:
    """The chart as ``helm package`` would pack it, with ``epoch`` as the time of every file."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(chart.rglob("*")):
            if not path.is_file() or path.name.endswith(_IGNORED):
                continue
            name = f"{chart.name}/{path.relative_to(chart).as_posix()}"
            info = tarfile.TarInfo(name)
            data = path.read_bytes()
            info.size, info.mtime, info.mode = len(data), epoch, 0o644
            tar.addfile(info, io.BytesIO(data))
    return gzip.compress(packed.getvalue(), 9, mtime=epoch)


def write_layout(chart: Path, folder: Path, epoch: int) -> Path:
    """Write the layout to ``folder`` and the archive beside it; returns the archive's path."""
    described = yaml.safe_load((chart / "Chart.yaml").read_text(encoding="utf-8"))
    packed = archive(chart, epoch)
    config = _blob(folder, json.dumps(described, sort_keys=True).encode(), CONFIG)
    layer = _blob(folder, packed, LAYER)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config,
        "layers": [layer],
        "annotations": {
            "org.opencontainers.image.title": described["name"],
            "org.opencontainers.image.version": described["version"],
            "org.opencontainers.image.description": described["description"],
        },
    }
    entry = _blob(folder, json.dumps(manifest, sort_keys=True).encode(), MANIFEST)
    entry["annotations"] = {"org.opencontainers.image.ref.name": described["version"]}
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}
    (folder / "index.json").write_text(json.dumps(index, sort_keys=True), encoding="utf-8")
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}', encoding="utf-8")
    file = folder.parent / f"{described['name']}-{described['version']}.tgz"
    file.write_bytes(packed)
    return file


def _blob(folder: Path, data: bytes, kind: str) -> dict[str, Any]:
    """Write a blob under its digest; its descriptor."""
    digest = hashlib.sha256(data).hexdigest()
    path = folder / "blobs" / "sha256" / digest
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}


def check_layout(folder: Path) -> None:
    """Raises ValueError when a blob is missing or is not what its descriptor says."""
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    waiting = list(index["manifests"])
    while waiting:
        one = waiting.pop()
        path = folder / "blobs" / "sha256" / one["digest"].removeprefix("sha256:")
        data = path.read_bytes() if path.is_file() else b""
        if len(data) != one["size"] or hashlib.sha256(data).hexdigest() != path.name:
            raise ValueError(f"{path}: is not what {one['mediaType']} says")
        if one["mediaType"] == MANIFEST:
            manifest = json.loads(data)
            waiting += [manifest["config"], *manifest["layers"]]
