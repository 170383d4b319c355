"""Build hook of the wheel: the compiled form of the data plane, where it can be made.

Without a C compiler, or with UNDERSTUDY_PURE=1, the wheel is pure Python, and so is an editable
installation. With UNDERSTUDY_MUST_COMPILE=1 a wheel that cannot be compiled is an error.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompiledHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the extension modules to a wheel."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """What compiling takes; nothing if it is not done."""
        if self._reason():
            return []
        from tools.compiled import REQUIRES

        return list(REQUIRES)

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and add what came of it."""
        if self.target_name != "wheel" or version == "editable":
            return
        if reason := self._reason():
            self._pure(reason)
            return
        self._folder = tempfile.TemporaryDirectory()
        place = Path(self._folder.name) / "compiled"
        done = subprocess.run(
            [sys.executable, "-m", "tools.compiled", str(place)],
            cwd=self.root,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            self._pure(f"mypyc or the C compiler failed:\n{done.stdout}{done.stderr}")
            return
        for file in sorted(place.iterdir()):
            build_data["force_include"][str(file)] = f"understudy/_compiled/{file.name}"
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was compiled: it is in the wheel."""
        if hasattr(self, "_folder"):
            self._folder.cleanup()

    def _reason(self) -> str | None:
        """Why nothing is compiled."""
        if os.environ.get("UNDERSTUDY_PURE"):
            return "UNDERSTUDY_PURE is set"
        sys.path.insert(0, self.root)
        from tools.compiled import compiler

        return compiler()

    def _pure(self, reason: str) -> None:
        if os.environ.get("UNDERSTUDY_MUST_COMPILE"):
            raise RuntimeError(f"the data plane cannot be compiled: {reason}")
        self.app.display_warning(f"the data plane is pure Python: {reason}")
