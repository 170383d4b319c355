"""Writes the reference pages: ``python -m tools.docs`` (or ``make docs``).

``docs/configuration.md`` comes from the JSON Schema of the configuration file, so that it says what
the program does; ``docs/commands.md`` from the commands; ``docs/metrics.md`` from the code of the
metrics; and the rules in ``deploy/prometheus`` from the objectives there. A test checks that what is in the repository is
current.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tools import (
    chart_reference,
    commands_reference,
    docs_pictures,
    man_page,
    metrics_reference,
    versions,
)
from understudy.monitor.cli.slo import files_of
from understudy.monitor.config.schema import json_schema
from understudy.monitor.slo import alertmanager
from understudy.monitor.slo.load import load
from understudy.monitor.slo.text import dumped

DOCS = Path(__file__).resolve().parent.parent / "docs"
EXAMPLE = DOCS / "understudy.yaml"

INTRODUCTION = """\
<!-- Written by `make docs` from the JSON Schema; change monitor/config/ instead. -->
# Configuration

One YAML file configures one sidecar. `understudy config check FILE` validates it and prints one line per
problem. `understudy config schema` prints its JSON Schema, for editors.

* Unknown and duplicate keys are rejected, so a misspelt limit is never silently ignored.
* **Durations, shares, rates and sizes** are written as in every file of Understudy:
  see [numbers and units](units.md). A duration or a rate without a unit is rejected.
* File names are relative to the folder of the configuration file.
* Secrets come from environment variables, of which the file contains the name. Values of headers may also come
  from files.
* SIGHUP, or a call to the control API, reloads the file. With `reload: watch`, so does a change of the file, or of
  a file that it names, once it has stayed the same for two seconds; this includes a mounted ConfigMap. If the file
  is invalid, the running configuration stays
  active, and the reason is logged and shown in the status. Changes of `listen` (except the certificate
  files), `control`, `workers` and `state_dir` need a restart.
"""


def human(value: Any, unit: str | None) -> str:
    """A default as one would write it in the file."""
    if isinstance(value, str) and value:
        return f"`{value}`"
    if unit == "bytes/s":
        return f"{human(value, 'bytes')[:-1]}/s`"
    if unit == "rate" and value is not None:
        return f"`{value:g}/s`"
    if unit == "seconds" and value == 0:
        return "`0`"
    if unit == "bytes":
        for name, factor in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
            if value % factor == 0:
                return f"`{value // factor}{name}`"
    if unit == "seconds":
        for name, factor in (("d", 86400), ("h", 3600), ("m", 60)):
            if value % factor == 0 and value > factor:
                return f"`{value / factor:g}{name}`"
        return f"`{value:g}s`"
    if value is None or value in ("", [], {}):
        return "–"
    if isinstance(value, str):
        return f"`{value}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{json.dumps(value)}`"


def _number(value: float) -> str:
    return f"{value:,}".replace(",", " ") if isinstance(value, int) else f"{value:g}"


class Page:
    """Renders the schema, each kind of mapping once."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self.definitions = schema["$defs"]
        self.schema = schema
        self.places: dict[str, str] = {}

    def target(self, value: dict[str, Any]) -> tuple[str, str] | None:
        """Name of the section that a value holds, and what to add to its path for a list, or for
        a mapping with any keys."""
        for part in (value, *value.get("anyOf", []), *value.get("allOf", [])):
            if "$ref" in part:
                return part["$ref"].rpartition("/")[2], ""
            if "$ref" in part.get("items", {}):
                return part["items"]["$ref"].rpartition("/")[2], "[]"
        inner = value.get("additionalProperties")
        for part in inner.get("anyOf", ()) if isinstance(inner, dict) else ():
            if "$ref" in part:
                return part["$ref"].rpartition("/")[2], ".NAME"
        return None

    def kind(self, value: dict[str, Any]) -> str:
        """The kind of a value, in words."""
        written = {
            "seconds": "duration", "bytes": "size", "share": "share", "ratio": "number or share",
            "rate": "rate", "bytes/s": "size per second", "quantile": "percentile",
        }  # fmt: skip
        if value.get("x-unit") in written:
            return written[value["x-unit"]]
        if "enum" in value:
            return ", ".join(f"`{choice}`" for choice in value["enum"])
        if "const" in value:
            return f"`{value['const']}`"
        if "anyOf" in value:
            kinds = [self.kind(part) for part in value["anyOf"] if part.get("type") != "null"]
            return " or ".join(dict.fromkeys(kinds))
        name = {"string": "text", "object": "mapping", "array": "list"}.get(
            value.get("type", ""), value.get("type", "mapping")
        )
        if value.get("type") == "array":
            return f"list of {self.kind(value['items'])}"
        low, high = value.get("minimum"), value.get("maximum")
        if low is not None:
            name += f", {_number(low)}"
            name = f"{name} to {_number(high)}" if high is not None else f"{name} or more"
        return str(name)

    def section(self, name: str, path: str) -> Iterator[str]:
        """A heading and a table for one mapping, then those inside of it."""
        section = self.definitions[name] if name else self.schema
        required = section.get("required", [])
        inner = []
        if path:
            yield f"\n## `{path}`\n"
            yield section.get("description", "").partition("\n\n")[0].replace("\n", " ")
        yield "\n| key | value | default | meaning |\n| --- | --- | --- | --- |"
        for key, value in section["properties"].items():
            target = self.target(value)
            kind = self.kind(value)
            if target is not None:
                place = f"{path}.{key}{target[1]}" if path else f"{key}{target[1]}"
                seen = self.places.setdefault(target[0], place)
                what = {"": "", "[]": "list of ", ".NAME": "mapping of text or "}[target[1]]
                kind = f"{what}mapping, see `{seen}`"
                if key == "listen" and not path:
                    kind = f"address, or {kind}"
                if seen == place:
                    inner.append((target[0], place))
            default = (
                "**required**"
                if key in required
                else "–"
                if target is not None
                else human(value.get("default"), value.get("x-unit"))
            )
            text = value.get("description") or self.definitions[target[0]]["description"]  # type: ignore[index]
            text = " ".join(text.split()).replace("|", "\\|")
            examples = [] if target else value.get("examples", [])
            if (
                examples
                and value.get("x-unit") in (None, "ratio")
                and value.get("default") in (None, "", [], {})
            ):
                text += f" Example: {human(examples[0], None)}"
            yield f"| `{key}` | {kind} | {default} | {text} |"
        for inner_name, place in inner:
            yield from self.section(inner_name, place)


def configuration() -> str:
    """The text of ``docs/configuration.md``."""
    example = EXAMPLE.read_text(encoding="utf-8")
    lines = "\n".join(Page(json_schema()).section("", ""))
    return f"{INTRODUCTION}\n## A complete file\n\n```yaml\n{example}```\n\n## The file\n{lines}\n"


def _rules() -> dict[Path, Callable[[], str]]:
    """The files that ``understudy slo generate`` makes of the objectives in ``deploy/prometheus``."""
    folder = DOCS.parent / "deploy" / "prometheus"
    result = files_of(load(folder / "slo.yaml"))
    return {folder / name: partial(dumped, data) for name, data in result.items()}


STACK = DOCS.parent / "examples" / "kubernetes" / "values-prometheus.yaml"
STACK_HEAD = """\
# Written by `make docs`. For kube-prometheus-stack: Alertmanager's routes and inhibitions (a page inhibits its
# ticket; a model server that is down inhibits its consequences), a Grafana folder for dashboards, and data for as
# long as an error budget of 30 days needs.
#   helm install kube-prometheus-stack kube-prometheus-stack -n monitoring --create-namespace \\
#     --repo https://prometheus-community.github.io/helm-charts -f examples/kubernetes/values-prometheus.yaml
# Pages and tickets appear in Alertmanager but are not sent: add your receivers.
"""


def prometheus_stack() -> str:
    """Values for kube-prometheus-stack. Helm replaces whole lists, so this repeats the chart's
    own entries: its Watchdog is silenced, and critical alerts inhibit warnings."""
    config = alertmanager.document({})
    quiet = {"receiver": "null", "matchers": ['alertname=~"Watchdog|InfoInhibitor"']}
    config["route"]["routes"].insert(0, quiet)
    config["receivers"].insert(0, {"name": "null"})
    for hiding, hidden in (
        ('severity="critical"', 'severity=~"warning|info"'),
        ('severity="warning"', 'severity="info"'),
    ):
        equal = ["namespace", "alertname"]
        config["inhibit_rules"].append(
            # Where there is a namespace: without, alerts of ours about one model would hide another's.
            {
                "source_matchers": [hiding, 'namespace!=""'],
                "target_matchers": [hidden],
                "equal": equal,
            }
        )
    config["inhibit_rules"].append(
        {
            "source_matchers": ['alertname="InfoInhibitor"'],
            "target_matchers": ['severity="info"'],
            "equal": ["namespace"],
        }
    )
    folders = {
        "folderAnnotation": "grafana_folder",
        "provider": {"foldersFromFilesStructure": True},
    }
    values = {
        "alertmanager": {"config": config},
        "grafana": {"sidecar": {"dashboards": folders}},
        # The chart's own 10 days are less than the 30 of an error budget.
        "prometheus": {"prometheusSpec": {"retention": "35d"}},
    }
    return dumped(values, STACK_HEAD)


PAGES: dict[Path, Callable[[], str]] = {
    DOCS / "configuration.md": configuration,
    DOCS / "commands.md": commands_reference.commands,
    DOCS / "metrics.md": metrics_reference.page,
    DOCS / "runbooks.md": commands_reference.runbooks,
    STACK: prometheus_stack,
    **_rules(),
    **chart_reference.PAGES,
    **docs_pictures.PICTURES,
    man_page.MAN: man_page.man,
    **versions.PAGES,
}


def main() -> int:
    """Write every page, and say which have changed."""
    for path, text in PAGES.items():
        new = text()
        if not path.exists() or path.read_text(encoding="utf-8") != new:
            path.write_text(new, encoding="utf-8")
            print(f"{path.relative_to(DOCS.parent)} written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
