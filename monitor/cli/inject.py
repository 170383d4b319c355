"""``understudy inject``: the sidecar in manifests, or in pods as they are created."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from understudy.common.terminal import echo, echo_lines
from understudy.monitor.cli.options import FILE, json_option
from understudy.monitor.errors import ConfigError

_SIDECAR = click.option(
    "--sidecar",
    "sidecar_path",
    type=FILE,
    required=True,
    help="The sidecar: sidecar.yaml of the ConfigMap <release>-understudy-injector.",
)


@click.group()
def inject() -> None:
    """Put the sidecar into pods that ask for it by the annotation understudy/inject.

    \b
    Examples:
      understudy inject file deployment.yaml --sidecar sidecar.yaml | kubectl apply -f -
      understudy inject serve --sidecar sidecar.yaml --certificate tls.crt --key tls.key
    """


@inject.command("file")
@click.argument("manifest", type=FILE)
@_SIDECAR
@json_option
def file(manifest: Path, sidecar_path: Path, as_json: bool) -> None:
    """Print MANIFEST with the sidecar in its pods and templates of pods.

    Exits 2 if a pod asks for the sidecar and cannot get it.

    \b
    Example:
      understudy inject file deployment.yaml --sidecar sidecar.yaml | kubectl apply -f -
    """
    import yaml

    from understudy.monitor.inject.pod import InjectionRefused, asks, load_sidecar
    from understudy.monitor.inject.pod import inject as into

    sidecar = load_sidecar(sidecar_path)
    try:
        objects = [one for one in yaml.safe_load_all(manifest.read_text("utf-8")) if one]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(str(manifest), [("", f"cannot be read: {error}")]) from error
    for index, one in enumerate(objects):
        try:
            holder, key = _place(objects, index)
            if isinstance(holder[key], dict) and asks(holder[key]):
                holder[key] = into(holder[key], sidecar)
        except InjectionRefused as error:
            name = one.get("metadata", {}).get("name", "")
            raise ConfigError(str(manifest), [(f"{one.get('kind')} {name}", str(error))]) from error
    if as_json:
        echo(json.dumps(objects))
    else:
        echo_lines(yaml.safe_dump_all(objects, sort_keys=False), end="")


def _place(objects: list[Any], index: int) -> tuple[Any, Any]:
    """The parents of the pods or pod templates in an object, each with the key."""
    one = objects[index]
    spec = one.get("spec") if isinstance(one, dict) else None
    if isinstance(spec, dict) and one.get("kind") == "CronJob":
        spec = (spec.get("jobTemplate") or {}).get("spec") or {}
    if isinstance(spec, dict) and "template" in spec:
        return spec, "template"
    return (objects, index) if isinstance(one, dict) and one.get("kind") == "Pod" else ([None], 0)


@inject.command("serve")
@_SIDECAR
@click.option(
    "--listen", default="0.0.0.0:8443", show_default=True, help="Host and port to listen on."
)
@click.option(
    "--certificate",
    type=FILE,
    required=True,
    help="Certificate in PEM format; reloaded when it changes.",
)
@click.option("--key", type=FILE, required=True, help="Its private key in PEM format.")
def serve(sidecar_path: Path, listen: str, certificate: Path, key: Path) -> None:
    """Answer the API server's admission reviews, over HTTPS, until SIGTERM.

    \b
    Example:
      understudy inject serve --sidecar sidecar.yaml --certificate tls.crt --key tls.key
    """
    import asyncio

    from understudy.monitor.config.fields import split_address
    from understudy.monitor.inject.pod import load_sidecar
    from understudy.monitor.inject.server import Server
    from understudy.monitor.logs import set_up

    set_up("info", "json")
    try:
        host, port = split_address(listen)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--listen") from error
    server = Server(load_sidecar(sidecar_path), host, port, certificate, key)
    echo(f"understudy injector is ready: https://{listen}/inject", err=True)
    asyncio.run(server.run())
    sys.exit(0)
