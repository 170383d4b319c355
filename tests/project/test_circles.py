"""No module of the package imports itself through others, not even for types."""

from __future__ import annotations

import grimp


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


def test_no_module_imports_itself_through_others() -> None:
    graph = grimp.build_graph("understudy", exclude_type_checking_imports=False, cache_dir=None)
    assert len(graph.modules) > 300
    imports = {
        module.removeprefix("understudy."): {
            other.removeprefix("understudy.")
            for other in graph.find_modules_directly_imported_by(module)
        }
        for module in graph.modules
    }
    found = circles(imports)
    assert found == [], "\n".join(" <-> ".join(sorted(circle)) for circle in found)
