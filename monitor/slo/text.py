"""YAML as people write it: long expressions as blocks, keys in our order."""

from __future__ import annotations

from typing import Any

import yaml

HEADER = "# Made by `understudy slo generate`; change the objectives instead.\n"


class _Dumper(yaml.SafeDumper):
    """Blocks for texts of several lines, lists indented below their key."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def dumped(data: Any, header: str = HEADER) -> str:
    """A document, with a comment before it."""
    body = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return header + body
