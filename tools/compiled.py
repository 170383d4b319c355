"""Compile the data plane with mypyc: ``python -m tools.compiled [FOLDER]``.

A wheel gets the extension modules from the build hook (``hatch_build.py``), which runs this in an
environment that has nothing but the build backend, mypy and setuptools. For work on the sources they
go into ``build/compiled``, and ``UNDERSTUDY_COMPILED=build/compiled`` makes any program use them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
REQUIRES = ("mypy>=2.1,<3", "setuptools>=65")
"""What compiling takes, besides a C compiler and the headers of Python."""
GROUP = "understudy.data_plane"
"""One library holds all modules, so that they call each other without Python's protocol."""


def modules() -> list[str]:
    """The modules that are compiled: the path of a request and of its record.

    Not those that run once for a connection or more rarely, and use much of asyncio or the file
    system, nor HTTP/2, most of which is nghttp2, and nothing that numpy does most of.
    """
    proxy = ROOT / "understudy" / "monitor" / "proxy"
    left_out = {
        "__init__",
        "acceptor",
        "descriptors",
        "listening",
        "probe",
        "resolver",
        "tls",
        "worker",
    }
    names = sorted(path.stem for path in proxy.glob("*.py") if path.stem not in left_out)
    return [
        *(f"understudy.monitor.proxy.{name}" for name in names),
        "understudy.monitor.records.credentials",
        "understudy.monitor.records.encode",
        "understudy.monitor.records.frames",
        "understudy.monitor.stats.sketch",
    ]


def compiler() -> str | None:
    """Why nothing can be compiled here; None if it can."""
    sysconfig = import_module("sysconfig")
    command = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(command) is None:
        return f"there is no C compiler ({command})"
    if not Path(sysconfig.get_paths()["include"], "Python.h").is_file():
        return "the headers of Python are missing (python3-dev)"
    return None


def compile_into(place: Path, names: list[str]) -> list[Path]:
    """Compile modules into the folder ``place``, which is replaced; the files in it.

    The same sources give the same bytes: nothing in them depends on where and when they were made.
    """
    from mypyc.build import mypycify

    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    compiled = import_module("understudy.common.compiled")
    setuptools: Any = import_module("setuptools")
    # First: a file that is edited meanwhile makes the result one of other sources.
    made_from = compiled.digest(names)
    files = [str(compiled.source_of(name).relative_to(ROOT)) for name in names]
    with tempfile.TemporaryDirectory() as folder:
        generated, built = Path(folder, "c"), Path(folder, "lib")
        options = ["--config-file=", "--ignore-missing-imports", f"--cache-dir={folder}/mypy"]
        options += ["--python-version", "{}.{}".format(*sys.version_info)]
        extensions = mypycify(
            [*options, *files],
            opt_level="3",
            debug_level="0",
            target_dir=str(generated),
            group_name=GROUP,
        )
        for extension in extensions:
            # A compiler that is newer than mypyc may warn of what it generates.
            extension.extra_compile_args += ["-Wno-error", f"-ffile-prefix-map={folder}=."]
            extension.extra_link_args += ["-s"]
        distribution = setuptools.Distribution({"name": "understudy", "ext_modules": extensions})
        command = distribution.get_command_obj("build_ext")
        command.build_lib, command.build_temp = str(built), str(Path(folder, "o"))
        command.ensure_finalized()
        command.run()
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        for library in built.rglob("*.so"):
            name = ".".join(library.relative_to(built).parts)
            shutil.copy(library, place / name)
        (place / compiled.DIGEST).write_text(made_from + "\n", encoding="ascii")
    return sorted(place.iterdir())


def main() -> int:
    """Compile, unless what is in the folder was made from the same sources."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "build" / "compiled")
    parser.add_argument("--module", action="append", help="one of those to compile, not all")
    options = parser.parse_args()
    place, names = options.folder.absolute(), options.module or modules()
    if (missing := compiler()) is not None:
        print(missing, file=sys.stderr)
        return 1
    from understudy.common.compiled import COMPILED, Finder

    finder = Finder(place)
    if finder.form.name != COMPILED or not finder.files.keys() >= set(names):
        compile_into(place, names)
    print(place)
    return 0


if __name__ == "__main__":
    sys.exit(main())
