"""The compiled form of the data plane: extension modules made by mypyc, beside the sources.

The sources are the reference; ``tools/compiled.py`` makes the other form of them. It is used when
it was made from the sources that are here and for this Python, and only as a whole: a compiled
module and the source of another one do not know each other's classes.

Only the standard library is used here, and little of it: every process that finds a compiled form
imports this module first.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

PACKAGE = Path(__file__).absolute().parents[1]
"""The folder ``understudy``."""
PLACE = PACKAGE / "_compiled"
"""Where a wheel has the extension modules."""
DIGEST = "sources.sha256"
"""The file beside them with the digest of the sources they were made from."""
COMPILED, PURE = "compiled", "pure Python"
"""The two forms."""


@dataclass(frozen=True, slots=True)
class Form:
    """The form of the data plane that runs, and for ``PURE`` the reason."""

    name: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}" if self.reason else self.name


def source_of(module: str) -> Path:
    """The source of a module of the package."""
    return PACKAGE.joinpath(*module.split(".")[1:]).with_suffix(".py")


def digest(modules: Iterable[str]) -> str:
    """A digest of the sources of modules. Raises OSError when one is missing."""
    found = sha256()
    for module in sorted(modules):
        content = source_of(module).read_bytes()
        found.update(f"{module} {len(content)}\n".encode() + content)
    return found.hexdigest()


class Finder:
    """Finds the modules of the data plane in their compiled form, below ``place``."""

    def __init__(self, place: Path) -> None:
        suffix = EXTENSION_SUFFIXES[0]
        self.files = {
            file.name.removesuffix(suffix): str(file) for file in place.glob(f"*{suffix}")
        }
        """By name of the module."""
        self._place = place
        self._form: Form | None = None

    @property
    def form(self) -> Form:
        """The form that this process runs; it is decided once."""
        if self._form is None:
            self._form = self._decide()
        return self._form

    def _decide(self) -> Form:
        if not self.files:
            return Form(PURE, f"the compiled form is not for Python {sys.implementation.cache_tag}")
        try:
            made_from = (self._place / DIGEST).read_text(encoding="ascii").strip()
            modules = [name for name in self.files if not name.endswith("__mypyc")]
            if digest(modules) == made_from:
                return Form(COMPILED)
        except OSError:
            pass
        return Form(PURE, "the sources have changed since they were compiled")

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a compiled module; see :class:`importlib.abc.MetaPathFinder`."""
        file = self.files.get(name)
        if file is None or self.form.name != COMPILED:
            return None
        return spec_from_file_location(name, file, loader=ExtensionFileLoader(name, file))


_finder: Finder | None = None


def install(place: Path) -> None:
    """Import the data plane in its compiled form from now on, if it fits."""
    global _finder
    if _finder is None:
        _finder = Finder(place)
        # Behind what is built in and frozen, before the path.
        sys.meta_path.insert(len(sys.meta_path) - 1, _finder)


def form() -> Form:
    """The form of the data plane that runs, and why it is not the compiled one."""
    if _finder is not None:
        return _finder.form
    if os.environ.get("UNDERSTUDY_PURE"):
        return Form(PURE, "UNDERSTUDY_PURE is set")
    return Form(PURE, "it was installed without the compiled form")
