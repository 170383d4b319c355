"""``python -m tools.dashboards``: write the dashboards; see docs/dashboards.md."""

from __future__ import annotations

from tools.dashboards.generate import FOLDER, texts

FOLDER.mkdir(parents=True, exist_ok=True)
wanted = texts()
for path in FOLDER.glob("*.json"):
    if path not in wanted:
        path.unlink()
for path, text in wanted.items():
    path.write_text(text, encoding="utf-8")
    print(f"wrote {path.relative_to(FOLDER.parents[2])}")
