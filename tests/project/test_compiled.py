"""The compiled form of the data plane: built, chosen as a whole, and not once its sources changed.

``make test-compiled`` runs the tests of proxy, records and fuzzers in that form.
"""

from __future__ import annotations

import ast
import importlib.machinery
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.installed import ROOT, build, install, uv
from tools.compiled import GROUP, compiler, modules
from understudy import __version__
from understudy.common import compiled
from understudy.common.compiled import COMPILED, DIGEST, PURE, Finder, digest, source_of

SUFFIX = importlib.machinery.EXTENSION_SUFFIXES[0]
SMALL = ["understudy.monitor.records.encode", "understudy.monitor.stats.sketch"]
"""What a test can compile in seconds."""


def needs_compiler() -> None:
    if (missing := compiler()) is not None:
        pytest.skip(f"NOT TESTED: the data plane cannot be compiled: {missing}")


def python(code: str, **variables: str) -> str:
    """What a process prints that runs ``code``; one with an empty variable is left out."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("UNDERSTUDY_")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT,
        env={**environment, **variables},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def place_with(folder: Path, names: list[str], made_from: str) -> Path:
    """A folder of files that have the names of extension modules."""
    for name in names:
        (folder / f"{name}{SUFFIX}").touch()
    (folder / DIGEST).write_text(made_from + "\n")
    return folder


def test_this_process_runs_the_form_that_was_asked_for() -> None:
    from understudy.monitor.proxy import exchange

    asked = os.environ.get("UNDERSTUDY_COMPILED") and not os.environ.get("UNDERSTUDY_PURE")
    assert compiled.form().name == (COMPILED if asked else PURE)
    assert exchange.__file__.endswith(SUFFIX if asked else "exchange.py")


def test_a_form_is_used_only_as_a_whole_and_with_its_sources(tmp_path: Path) -> None:
    finder = Finder(place_with(tmp_path, [*SMALL, f"{GROUP}__mypyc"], digest(SMALL)))
    assert finder.form == compiled.Form(COMPILED)
    found = finder.find_spec(SMALL[0])
    assert found is not None
    assert found.origin == str(tmp_path / f"{SMALL[0]}{SUFFIX}")
    assert finder.find_spec("understudy.monitor.proxy.worker") is None
    assert finder.find_spec("json") is None

    changed = Finder(place_with(tmp_path, [], digest(SMALL)[::-1]))
    assert changed.form.name == PURE
    assert "have changed" in changed.form.reason
    assert changed.find_spec(SMALL[0]) is None

    (tmp_path / DIGEST).unlink()
    assert Finder(tmp_path).form.name == PURE


def test_modules_for_another_python_are_not_used(tmp_path: Path) -> None:
    (tmp_path / f"{SMALL[0]}.cpython-399-x86_64-linux-gnu.so").touch()
    finder = Finder(tmp_path)
    assert (finder.form.name, finder.files) == (PURE, {})
    assert sys.implementation.cache_tag in finder.form.reason


def test_the_version_names_the_form_and_the_reason(tmp_path: Path) -> None:
    code = "from understudy.monitor.cli.main import main; main(['version', *__import__('sys').argv[1:]])"
    without = "it was installed without the compiled form"
    assert python(code) == f"understudy {__version__} (pure Python: {without})\n"
    place = str(place_with(tmp_path, SMALL, digest(SMALL)))
    assert python(code, UNDERSTUDY_COMPILED=place) == f"understudy {__version__} (compiled)\n"
    pure = python(code, UNDERSTUDY_COMPILED=place, UNDERSTUDY_PURE="1")
    assert pure == f"understudy {__version__} (pure Python: UNDERSTUDY_PURE is set)\n"
    as_json = code.replace("*__import__('sys').argv[1:]", "'--json'")
    assert json.loads(python(as_json, UNDERSTUDY_COMPILED=place)) == {
        "version": __version__, "form": "compiled", "reason": "",
    }  # fmt: skip


def test_compiled_modules_have_only_classes_that_mypyc_knows() -> None:
    names = modules()
    assert "understudy.monitor.proxy.exchange" in names
    assert "understudy.monitor.proxy.worker" not in names  # it is started with -m, as a source
    for name in names:
        tree = ast.parse(source_of(name).read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                options = {word.arg for one in node.decorator_list if isinstance(one, ast.Call)
                           for word in one.keywords}  # fmt: skip
                assert "slots" not in options, f"{name}: mypyc knows no dataclass with slots"


def test_a_small_part_compiles_and_does_the_same(tmp_path: Path) -> None:
    needs_compiler()
    place = tmp_path / "compiled"
    command = [sys.executable, "-m", "tools.compiled", str(place)]
    done = subprocess.run(
        [*command, *(word for name in SMALL for word in ("--module", name))],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    code = (
        "from understudy.monitor.records import encode as module\n"
        "from understudy.monitor.stats import sketch\n"
        "words = memoryview(bytearray(8 * 4096)).cast('Q')\n"
        "for duration in (-5, 0, 1, 953, 954, 10**6, 10**9, 10**15): sketch.observe(words, 3, duration)\n"
        "texts = [b'id', b't' * 32, b'unit', b'/p', b'a: b', b'', None, b'{}']\n"
        "size, parts = module.encode(1, 2, 200, 0, 0, 1.5, 10**9, 5, 0, 7, 8, *texts, 3, 2**64 - 1, True)\n"
        "print(module.__file__.rpartition('.')[2], size, parts, [*enumerate(words)])"
    )
    forms = [python(code, UNDERSTUDY_COMPILED=str(place)), python(code)]
    assert [form.partition(" ")[0] for form in forms] == ["so", "py"]
    assert forms[0].partition(" ")[2] == forms[1].partition(" ")[2]
    again = place.stat().st_mtime_ns, (place / DIGEST).stat().st_mtime_ns
    subprocess.run([*command, *(w for name in SMALL for w in ("--module", name))], check=True, cwd=ROOT,
                   capture_output=True)  # fmt: skip
    assert again == (place.stat().st_mtime_ns, (place / DIGEST).stat().st_mtime_ns)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_wheel_holds_the_compiled_form_and_runs_it(tmp_path: Path) -> None:
    needs_compiler()
    build(tmp_path / "dist", "--wheel", compiled=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    assert "none-any" not in wheel.name
    programs = install(wheel, tmp_path / "home")
    code = (
        "from understudy.common import compiled; import understudy.monitor.proxy.worker as worker; "
        "from understudy.monitor.proxy import exchange; print(compiled.form(), exchange.__file__)"
    )
    for variables, said in (({}, COMPILED), ({"UNDERSTUDY_PURE": "1"}, PURE)):
        done = subprocess.run(
            [programs / "python", "-P", "-c", code], capture_output=True, text=True, cwd=tmp_path,
            env={"PATH": os.environ["PATH"], **variables},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(said)
        assert done.stdout.strip().endswith(".so" if said == COMPILED else "exchange.py")


@pytest.mark.slow
def test_without_a_compiler_the_wheel_is_pure_and_says_so(tmp_path: Path) -> None:
    common = ("build", "--wheel", "--out-dir", tmp_path / "dist", ROOT)
    done = uv(*common, CC="no-such-compiler")
    if done.returncode != 0 and "hatchling" in done.stderr:
        pytest.skip(f"NOT TESTED: the build backend cannot be installed: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr
    assert "the data plane is pure Python: there is no C compiler" in done.stdout + done.stderr
    assert [file.name for file in (tmp_path / "dist").glob("*.whl")] == [
        f"understudy_serving-{__version__}-py3-none-any.whl"
    ]
    must = uv(*common, CC="no-such-compiler", UNDERSTUDY_MUST_COMPILE="1")
    assert must.returncode != 0
    assert "cannot be compiled" in must.stdout + must.stderr
