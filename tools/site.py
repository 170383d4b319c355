"""Hooks of the documentation site: ``python -m mkdocs build --strict`` (or ``make docs``).

Pages in ``docs/`` are written for a reader of the repository. On the site, links to files outside of
``docs/`` lead to the repository, at the tag of this version; a link to a file that does not exist is a
warning, which a strict build refuses. Diagrams are drawn in the browser by Mermaid, from a copy that
comes with the site.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from understudy import __version__

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "understudy" / "mermaid"
MERMAID = "11.12.0"
SCRIPT = "assets/mermaid.min.js"
_LINK = re.compile(r"(?<=\]\()(?P<path>[^)\s:#]+)(?P<anchor>#[^)\s]*)?(?=\))")
_log = logging.getLogger("mkdocs.hooks.site")


def repository_link(page: Path, target: str, repository: str) -> str | None:
    """The address in the repository of a link from ``page``, or None if it leads to a page.

    Raises FileNotFoundError if there is no such file.
    """
    path = (page.parent / target).resolve()
    if path.is_relative_to(DOCS):
        return None
    if not path.exists():
        raise FileNotFoundError(target)
    kind = "tree" if path.is_dir() else "blob"
    return f"{repository.rstrip('/')}/{kind}/v{__version__}/{path.relative_to(ROOT).as_posix()}"


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Lead links to files outside of ``docs/`` to the repository."""
    source = DOCS / page.file.src_uri

    def changed(match: re.Match[str]) -> str:
        try:
            found = repository_link(source, match["path"], config.extra["repository"])
        except FileNotFoundError:
            _log.warning("%s links to %s, which does not exist", page.file.src_uri, match["path"])
            found = None
        return match[0] if found is None else found + (match["anchor"] or "")

    return _LINK.sub(changed, markdown)


def on_config(config: Any) -> Any:
    """Bring Mermaid's script along, if it can be had."""
    script = mermaid()
    if script is None:
        _log.info("npm cannot fetch Mermaid: diagrams are shown as text")
        fences = config.mdx_configs["pymdownx.superfences"]
        fences["custom_fences"] = []
    else:
        config.extra_javascript.append(SCRIPT)
    return config


def on_post_build(config: Any) -> None:
    """Copy the script of Mermaid beside the pages."""
    script = mermaid()
    if script is not None:
        target = Path(config.site_dir) / SCRIPT
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(script, target)


def mermaid() -> Path | None:
    """Mermaid's script, from npm's package, which is fetched once; None where npm is missing."""
    script = CACHE / MERMAID / "mermaid.min.js"
    if script.exists():
        return script
    npm = shutil.which("npm")
    if npm is None:
        return None
    script.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=script.parent) as folder:
        command = [npm, "pack", "--silent", f"mermaid@{MERMAID}"]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, timeout=300)
        except subprocess.TimeoutExpired:
            return None
        packed = next(iter(Path(folder).glob("*.tgz")), None)
        if done.returncode != 0 or packed is None:
            return None
        shutil.unpack_archive(packed, folder, filter="data")
        (Path(folder) / "package" / "dist" / "mermaid.min.js").replace(script)
    return script
