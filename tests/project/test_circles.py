"""No module of the package imports itself by way of others, for types neither."""

from __future__ import annotations

import grimp

PRESENT = (
    # Their state becomes a declaration, and with that the modules that write it go.
    {"monitor.health.drift.saved", "monitor.health.drift.watch"},
    {"monitor.health.performance.saved", "monitor.health.performance.watch"},
    # One evaluation path for both modes takes these apart.
    {"monitor.pipeline.embedded", "monitor.pipeline.mode", "monitor.pipeline.plane"},
)
"""Circles that are known and about to be broken. Nothing is added here."""


def circles(imports: dict[str, set[str]]) -> list[set[str]]:
    """Groups of modules that all reach each other, of two or more."""
    reach = {}
    for module in imports:
        seen: set[str] = set()
        ahead = [module]
        while ahead:
            found = imports[ahead.pop()] - seen
            seen |= found
            ahead.extend(found)
        reach[module] = seen
    groups = {
        frozenset(other for other in reach[module] if module in reach[other])
        for module in imports
        if module in reach[module]
    }
    return sorted((set(group) for group in groups), key=sorted)


def test_circles_are_found() -> None:
    imports = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": {"d"}, "f": {"a"}}
    assert circles(imports) == [{"a", "b", "c"}, {"d", "e"}]


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = grimp.build_graph("understudy", exclude_type_checking_imports=False, cache_dir=None)
    assert len(graph.modules) > 300
    imports = {
        module.removeprefix("understudy."): {
            other.removeprefix("understudy.")
            for other in graph.find_modules_directly_imported_by(module)
        }
        for module in graph.modules
    }
    found = [circle for circle in circles(imports) if circle not in PRESENT]
    assert found == [], "\n".join(" <-> ".join(sorted(circle)) for circle in found)
