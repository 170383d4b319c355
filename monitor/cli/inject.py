"""``understudy inject``: the sidecar in manifests, or in pods as they are created."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from understudy.common.terminal import echo, echo_lines
from understudy.common.unreadable import why_unreadable
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
@click.argument("manifest", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@_SIDECAR
@click.option("--require", is_flag=True, help="Print nothing and exit 1 if no pod has the sidecar.")
@json_option
def file(manifest: Path, sidecar_path: Path, require: bool, as_json: bool) -> None:
    """Print MANIFEST with the sidecar in its pods and pod templates.

    MANIFEST is a file of one or more objects, also of kind List, or - for standard input: in a
    pipe, and as a post-renderer of Helm. Objects that do not change are printed as they are. What
    happened to each pod is printed on standard error. Exits 2 if a pod requests the sidecar and
    cannot get it.

    \b
    Examples:
      understudy inject file deployment.yaml --sidecar sidecar.yaml | kubectl apply -f -
      kustomize build | understudy inject file - --sidecar sidecar.yaml | kubectl apply -f -
    """
    from understudy.monitor.inject.manifests import inject_manifests
    from understudy.monitor.inject.pod import load_sidecar

    sidecar = load_sidecar(sidecar_path)
    source = "stdin" if str(manifest) == "-" else str(manifest)
    try:
        raw = sys.stdin.buffer.read() if source == "stdin" else manifest.read_bytes()
        text = raw.decode("utf-8-sig").replace("\r\n", "\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            source, [("", f"cannot be read: {why_unreadable(manifest, error)}")]
        ) from error
    outcome = inject_manifests(text, sidecar, source)
    for note in outcome.notes:
        echo(note, err=True)
    echo(f"{outcome.injected} injected, {outcome.present} had the sidecar", err=True)
    if require and not outcome.injected + outcome.present:
        echo("no pod has the sidecar: nothing is printed (--require)", err=True)
        sys.exit(1)
    if as_json:
        echo(json.dumps(outcome.objects))
    else:
        echo_lines(outcome.text, end="")


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
