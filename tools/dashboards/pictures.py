"""``make pictures``: run the demo, let a real Prometheus watch it, and draw every dashboard.

Writes the pages below ``build/dashboards`` and pictures of them to ``docs/images/dashboards``.
"""

from __future__ import annotations

import http.server
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import yaml

from tools.dashboards.generate import documents
from tools.dashboards.preview.page import WIDTH, Annotations, page
from tools.dashboards.prometheus import Prometheus, Span

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "build" / "dashboards"
PICTURES = ROOT / "docs" / "images" / "dashboards"
RULES = sorted((ROOT / "deploy" / "prometheus").glob("*.rules.yml"))
SCRAPE = 2.0
POINTS = 300.0


class Grafana:
    """Takes annotations as Grafana's API does, and keeps them: for the gate at the demo's end."""

    def __init__(self) -> None:
        self.posted: list[dict[str, Any]] = []
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                owner.posted.append(json.loads(self.rfile.read(length)))
                answer = b'{"id":1,"message":"Annotation added"}'
                self.send_response(200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Take no more."""
        self._server.shutdown()


def program(name: str) -> str:
    """A program of the parts that the tests fetch. Raises ClickException without it."""
    unpacked = sorted((ROOT / ".parts").glob(f"*/usr/bin/{name}"))
    cached = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "understudy"
    unpacked += sorted(cached.glob(f"parts/*/usr/lib/{name}/{name}"))
    path = str(unpacked[0]) if unpacked else shutil.which(name)
    if path is None:
        raise click.ClickException(f"{name} is not here; `make parts` fetches it where apt works")
    return path


@contextmanager
def demo(grafana: Grafana, seconds: float, rate: float) -> Iterator[str]:
    """The demo while it runs; yields the control address, and goes on until the demo is over."""
    home = ROOT / ".demo"
    config = home / "understudy.yaml"
    config.unlink(missing_ok=True)
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "examples.flights",
            "--seconds",
            f"{seconds:g}",
            "--rate",
            f"{rate:g}",
        ],
        cwd=ROOT,
        env={**os.environ, "UNDERSTUDY_GRAFANA": grafana.url},
    )
    try:
        while not config.exists():
            if process.poll() is not None:
                raise click.ClickException("the demo has ended before it began")
            time.sleep(0.2)
        time.sleep(0.5)
        target = str(yaml.safe_load(config.read_text())["control"]["listen"])
        while ended(target):
            if process.poll() is not None:
                raise click.ClickException("the demo has ended before it was ready")
            time.sleep(0.2)
        yield target
    finally:
        process.terminate()
        process.wait(60)


@contextmanager
def prometheus(folder: Path, target: str | None, rules: list[Path]) -> Iterator[Prometheus]:
    """A Prometheus that scrapes ``target``, or only says what it has in ``folder``."""
    config = {
        "global": {"scrape_interval": f"{SCRAPE:g}s", "evaluation_interval": f"{SCRAPE:g}s"},
        "rule_files": [str(path) for path in rules],
        "scrape_configs": [
            {"job_name": "understudy", "static_configs": [{"targets": [target] if target else []}]}
        ],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))
    address = "127.0.0.1:19091"
    process = subprocess.Popen(
        [
            program("prometheus"),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={address}",
            "--log.level=error",
        ]
    )
    try:
        yield Prometheus(f"http://{address}")
    finally:
        process.terminate()
        process.wait(30)


def ended(target: str) -> bool:
    """Whether no server answers at ``target``."""
    try:
        urllib.request.urlopen(f"http://{target}/healthz", timeout=5).close()
    except OSError:
        return True
    return False


def watch(seconds: float, rate: float) -> dict[str, Any]:
    """Run the demo under Prometheus' eyes: when it was, and what was posted to Grafana."""
    grafana = Grafana()
    with demo(grafana, seconds, rate) as target, prometheus(PAGES, target, RULES):
        began = time.time()
        while not ended(target):
            time.sleep(1)
        now = time.time()
    grafana.close()
    return {"began": began, "ended": now, "posted": grafana.posted}


def draw(seen: dict[str, Any]) -> dict[str, Path]:
    """A page for each dashboard, by name."""
    pages = {}
    with prometheus(PAGES, None, []) as asked:
        while not asked.ready():
            time.sleep(0.2)
        began, now = seen["began"], seen["ended"]
        # Gauges have no value after the last successful scrape.
        there = asked.over("up == 1", Span(began, now, SCRAPE, SCRAPE))
        now = max((one.points[-1][0] for one in there), default=now)
        span = Span(began, now, max(SCRAPE, (now - began) / POINTS), SCRAPE)
        for file, dashboard in documents().items():
            name = file.removesuffix(".json")
            text, empty = page(dashboard, asked, span, Annotations(seen["posted"]))
            pages[name] = PAGES / f"{name}.html"
            pages[name].write_text(text, encoding="utf-8")
            click.echo(f"{name}: {', '.join(empty) if empty else 'nothing'} is empty")
    return pages


def photograph(pages: dict[str, Path]) -> None:
    """A picture of each page, as high as the page is."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    PICTURES.mkdir(parents=True, exist_ok=True)
    chromium = program("chromium")
    home = Path(chromium).parents[2]
    libraries = sorted({str(path.parent) for path in home.glob("lib/**/*.so*")})
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
            env={**os.environ, "LD_LIBRARY_PATH": ":".join(libraries)},
        )
        for name, path in pages.items():
            tab = browser.new_page(viewport={"width": WIDTH, "height": 900})
            tab.goto(path.as_uri())
            picture = tab.locator("main").screenshot()
            # Few colours are enough, and a third of the bytes.
            Image.open(io.BytesIO(picture)).convert("RGB").quantize(128).save(
                PICTURES / f"{name}.png", optimize=True
            )
        browser.close()


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seconds", default=125.0, show_default=True, help="Length of the demo's replay.")
@click.option("--rate", default=150.0, show_default=True, help="Its flights per second.")
@click.option("--again", is_flag=True, help="Draw the last demo again.")
@click.option("--pages-only", is_flag=True, help="Take no pictures of the pages.")
def main(seconds: float, rate: float, again: bool, pages_only: bool) -> None:
    """Run the demo, and draw the dashboards of it.

    \b
    Examples:
      python -m tools.dashboards.pictures
      python -m tools.dashboards.pictures --seconds 30 --pages-only
    """
    PAGES.mkdir(parents=True, exist_ok=True)
    seen = PAGES / "seen.json"
    if not again:
        shutil.rmtree(PAGES / "data", ignore_errors=True)
        seen.write_text(json.dumps(watch(seconds, rate)), encoding="utf-8")
    pages = draw(json.loads(seen.read_text(encoding="utf-8")))
    if not pages_only:
        photograph(pages)


if __name__ == "__main__":
    main()
