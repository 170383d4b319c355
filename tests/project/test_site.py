"""The documentation as a site: it builds strictly, and needs nothing of other hosts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tools import site
from understudy import __version__

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).resolve().parents[2]
REPOSITORY = "https://github.com/understudy-serving/understudy"


def build(source: Path, target: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", target],
        cwd=source, capture_output=True, text=True, timeout=300,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_is_on_the_site_and_in_its_navigation(built: Path) -> None:
    pages = {path.relative_to(site.DOCS).with_suffix("") for path in site.DOCS.rglob("*.md")}
    assert pages == {path.relative_to(built).with_suffix("") for path in built.rglob("*.html")} - {
        Path("404")
    }
    config = (ROOT / "mkdocs.yml").read_text("utf-8")
    for page in pages:
        assert page.parts[0] == "runbooks" or f"{page.as_posix()}.md" in config, page


def test_no_page_loads_anything_of_another_host(built: Path) -> None:
    for page in built.rglob("*.html"):
        text = page.read_text("utf-8")
        loaded = re.findall(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?([^\" >]+)", text)
        loaded += re.findall(
            r"<link\b[^>]*\brel=\"?(?:stylesheet|icon|preconnect)[^>]*\bhref=\"?([^\" >]+)", text
        )
        assert loaded
        assert not [one for one in loaded if "//" in one], page.name


def test_links_out_of_the_pages_lead_to_this_version_in_the_repository(built: Path) -> None:
    text = (built / "slo.html").read_text("utf-8")
    assert f'href="{REPOSITORY}/tree/v{__version__}/deploy/prometheus"' in text
    assert f"{REPOSITORY}/blob/v{__version__}/benchmarks/results/slo-alerts.md" in text
    page = site.DOCS / "slo.md"
    assert site.repository_link(page, "findings.md", REPOSITORY) is None
    with pytest.raises(FileNotFoundError):
        site.repository_link(page, "../deploy/no-such-file", REPOSITORY)


@pytest.mark.parametrize(
    ("link", "message"),
    [
        ("../deploy/no-such-file", "does not exist"),
        ("no-such-page.md", "no-such-page.md"),
        ("other.md#no-such-section", "no-such-section"),
    ],
)
def test_a_broken_link_fails_the_build(link: str, message: str, tmp_path: Path) -> None:
    """A copy with two pages: the build reads them, its configuration and its hooks."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "site.py").write_bytes((ROOT / "tools" / "site.py").read_bytes())
    config = (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnot_in_nav")[0]
    (tmp_path / "mkdocs.yml").write_text(config)
    (tmp_path / "docs" / "other.md").write_text("# Other\n\n## A section\n")
    (tmp_path / "docs" / "index.md").write_text("# Title\n\n[a](other.md#a-section)\n")
    done = build(tmp_path, tmp_path / "good")
    assert done.returncode == 0, done.stderr
    (tmp_path / "docs" / "index.md").write_text(f"# Title\n\n[a]({link})\n")
    done = build(tmp_path, tmp_path / "bad")
    assert done.returncode != 0
    assert message in done.stdout + done.stderr


@pytest.fixture
def address(built: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = partial(Quiet, directory=str(built))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.integration
def test_a_browser_draws_diagrams_and_asks_no_other_host(address: str, browser: Browser) -> None:
    if not (site.CACHE / site.MERMAID / "mermaid.min.js").exists():
        pytest.skip("NOT TESTED: npm cannot fetch Mermaid here, so diagrams are text")
    page = browser.new_page(viewport={"width": 420, "height": 800})
    foreign: list[str] = []
    page.on("request", lambda one: foreign.append(one.url) if address not in one.url else None)
    try:
        page.goto(f"{address}/architecture.html")
        # The theme draws into a closed shadow root, in place of the text.
        page.wait_for_selector("div.mermaid", state="attached", timeout=60_000)
        assert page.locator("pre.mermaid").count() < 4
        assert page.evaluate("document.documentElement.scrollWidth") <= 420
    finally:
        page.close()
    assert foreign == []
