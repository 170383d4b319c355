"""Who may import whom, beyond what the contracts can say: nothing that is not on the list."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FOLDERS = ("monitor", "shadow", "loadtest", "understudy/common", "understudy/demo")
DISTRIBUTIONS = {
    "yaml": "pyyaml",
    "prometheus_client": "prometheus-client",
    "chaoslib": "chaostoolkit-lib",
    "kafka": "kafka-python",
    "grpc": "grpcio",
}
BROUGHT = {
    "starlette": "fastapi",
    "pydantic_core": "pydantic",
    "gevent": "locust",
    "markupsafe": "jinja2",
    "opentelemetry": "opentelemetry-sdk",
}
"""Modules that come with a distribution that we depend on, and belong to its interface."""


def imported(folder: str) -> Iterator[tuple[Path, str]]:
    """Every module that a file below ``folder`` imports, with the file; dotted."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield path, alias.name
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: relative import"
                yield path, node.module or ""


def foreign(folder: str) -> Iterator[tuple[Path, str]]:
    for path, module in imported(folder):
        top = module.partition(".")[0]
        if top not in sys.stdlib_module_names and top != "understudy":
            yield path, top


def loaded(module: str) -> set[str]:
    """All modules of a fresh process that imports ``module``."""
    code = f"import sys, {module}; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    return set(done.stdout.split())


def test_shadow_imports_numpy_and_scipy_and_nothing_else() -> None:
    assert {top for _, top in foreign("shadow")} <= {"numpy", "scipy"}


def test_the_data_plane_imports_ngh2_and_uvloop_and_nothing_else() -> None:
    assert {top for _, top in foreign("monitor/proxy")} == {"uvloop"}
    # One module of ours knows the library of HTTP/2, so that it can be replaced.
    places = {path for folder in FOLDERS for path, top in foreign(folder) if top == "ngh2"}
    assert {path.name for path in places} == {"http2.py"}
    allowed = {
        *("monitor.errors", "monitor.gc_tuning", "monitor.routing.plan"),
        *("monitor.records", "monitor.records.record", "monitor.records.encode"),
        *("monitor.records.credentials", "monitor.records.frames", "monitor.records.trace"),
        *("monitor.stats.shared", "monitor.stats.sketch", "monitor.stats.heartbeat"),
        *("shadow.assignment", "common", "common.compiling", "monitor.records.grpc_status"),
        *("common.grpc_messages", "common.grpc_streams", "common.protobuf"),
        *("common.events", "common.protocols", "common.http2"),
    }
    ours = {
        module.removeprefix("understudy.")
        for _, module in imported("monitor/proxy")
        if module.startswith("understudy.") and not module.startswith("understudy.monitor.proxy")
    }
    assert ours <= allowed


def test_a_worker_loads_nothing_heavy() -> None:
    tops = {module.partition(".")[0] for module in loaded("understudy.monitor.proxy.worker")}
    assert "uvloop" in tops
    assert not tops & {
        *("numpy", "scipy", "pydantic", "fastapi", "starlette", "orjson", "yaml", "click", "rich"),
        *("uvicorn", "httpx", "kafka", "prometheus_client", "opentelemetry"),
    }


def test_the_evaluation_plane_loads_only_what_it_uses() -> None:
    """scipy.stats alone is 30 MiB, scipy.optimize 22 with scipy.linalg, scipy.sparse and
    scipy.spatial that it loads, and the parts of numpy that scipy.special loads 9; the others
    belong to commands, extras and clients.

    click is loaded by uvicorn.
    """
    modules = loaded("understudy.monitor.service.__main__")
    tops = {module.partition(".")[0] for module in modules}
    assert {"numpy", "fastapi", "scipy.special"} <= modules
    heavy = ("stats", "optimize", "linalg", "sparse", "spatial", "integrate", "interpolate")
    assert not modules & {f"scipy.{name}" for name in heavy}
    # FastAPI loads the API of OpenTelemetry; the SDK is loaded where something is sent.
    assert not {one for one in modules if one.startswith(("opentelemetry.sdk", "google.protobuf"))}
    assert not modules & {f"numpy.{name}" for name in ("f2py", "testing", "ma", "polynomial")}
    assert not tops & {
        *("rich", "pyarrow", "httpx", "kafka", "river", "crc32c", "aiohttp", "locust", "httptools"),
        *("chaoslib", "jsonschema", "pandas"),
    }
    assert not {module for module in modules if module.startswith("understudy.monitor.cli")}
    assert not {module for module in modules if module.startswith("understudy.loadtest")}


def test_of_scipy_only_the_special_functions_are_imported() -> None:
    """Also where an import waits until it is needed: it would stay in memory from then on."""
    found = {
        (path.relative_to(ROOT).as_posix(), module)
        for folder in ("monitor", "shadow", "understudy/common")
        for path, module in imported(folder)
        if module.partition(".")[0] == "scipy" and "contrib" not in path.parts
    }
    assert found == {("understudy/common/special.py", "scipy.special")}


def test_special_functions_leave_numpy_as_it_is() -> None:
    code = (
        "import numpy; names, listed = numpy.__all__, numpy.__dir__\n"
        "import understudy.common.special\n"
        "assert numpy.__all__ is names and numpy.__dir__ is listed\n"
        "from scipy import optimize, stats\n"
        "assert numpy.ma.masked_all(3).mask.all()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_numpy_is_not_asked_for_what_loads_masked_arrays() -> None:
    """``numpy.unique`` for the values alone, and ``numpy.quantile``, which calls it."""
    for folder in ("monitor", "shadow"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "np.unique":
                    assert any(word.arg != "axis" for word in node.keywords), path


def test_import_understudy_loads_nothing() -> None:
    before, after = loaded("typing"), loaded("understudy")
    assert {module for module in after - before if module.startswith("understudy")} == {
        "understudy"
    }
    assert {module.partition(".")[0] for module in after - before} <= {
        "understudy",
        *sys.stdlib_module_names,
    }


def _name(requirement: str) -> str:
    return re.split("[>=]=", requirement, maxsplit=1)[0]


def test_dependencies_are_those_that_are_imported() -> None:
    declared = {_name(requirement).lower() for requirement in PROJECT["dependencies"]}
    used: dict[str, Path] = {}
    only_types = {"mypy_extensions"}  # what mypyc is told; mypy brings it
    for folder in FOLDERS:
        for path, top in foreign(folder):
            if top in only_types:
                continue
            name = BROUGHT.get(top) or DISTRIBUTIONS.get(top) or top
            used.setdefault(name.replace("_", "-"), path)
    optional = {
        _name(requirement)
        for extra, requirements in PROJECT["optional-dependencies"].items()
        if extra not in ("dev", "docs")
        for requirement in requirements
    }
    # Imported by its name when a detector of it is declared; found by kafka-python by itself.
    by_name = {
        *("river", "crc32c", "opentelemetry-exporter-otlp-proto-http"),
        "opentelemetry-exporter-otlp-proto-grpc",
    }
    assert set(used) | by_name == declared | optional


def test_no_test_file_imports_another() -> None:
    found = {
        f"{path.relative_to(ROOT)}: {module}"
        for folder in ("tests", "benchmarks", "examples", "tools")
        for path, module in imported(folder)
        if module.startswith("tests.") and module.rpartition(".")[2].startswith("test_")
    }
    assert found == set()


def test_every_dependency_has_a_lower_bound() -> None:
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    assert all(re.search("[>=]=", requirement) for group in groups for requirement in group)
