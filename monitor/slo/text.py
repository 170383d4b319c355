"""Readable YAML: long expressions as blocks, keys in a fixed order."""

from __future__ import annotations

from typing import Any

import yaml

HEADER = "# Made by `understudy slo generate`; change the objectives instead.\n"


class _Dumper(yaml.SafeDumper):
    """Writes multi-line texts as blocks, and indents lists below their key."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def dumped(data: Any, header: str = HEADER) -> str:
    """A YAML document, with ``header`` as a comment before it."""
    body = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return header + body
