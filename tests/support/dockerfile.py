"""A Dockerfile as instructions, and a plain directory in which they are carried out.

There is no container here: absolute paths of the image are folders below one root that all stages share,
and `python` is the one that runs the tests. Everything else is done as it stands there: the same files
are copied, the same commands run.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

Instruction = tuple[str, str]


def instructions(text: str) -> list[Instruction]:
    """Keyword and the rest, continued lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [
        (word.upper(), rest.strip())
        for word, _, rest in (line.strip().partition(" ") for line in joined.splitlines() if line)
    ]


def stages(text: str) -> dict[str, list[Instruction]]:
    """The instructions of each stage, by its name; the first one is its FROM."""
    found: dict[str, list[Instruction]] = {}
    name = ""
    for word, rest in instructions(text):
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            found[name] = [("FROM", base)]
        elif name:
            found[name].append((word, rest))
    return found


@dataclass
class Plain:
    """A folder that stands for the root of the image. ``folders`` are the image's own."""

    context: Path
    root: Path
    folders: tuple[str, ...] = ("/build", "/opt", "/wheels", "/src", "/var", "/etc")
    environment: dict[str, str] = field(default_factory=dict)
    cwd: Path = Path()
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    user: str = ""
    left_out: list[str] = field(default_factory=list)
    """What takes a container: users, and who owns what."""

    def __post_init__(self) -> None:
        programs = self.root / "programs"
        programs.mkdir(parents=True)
        (programs / "python").symlink_to(sys.executable)
        self.environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
        self.environment.pop("PYTHONPATH", None)

    def place(self, path: str) -> Path:
        """Where a path of the image is."""
        return self.root / path.lstrip("/") if path.startswith("/") else self.cwd / path

    def moved(self, text: str) -> str:
        """``text`` with the image's folders where they are here."""
        names = "|".join(re.escape(folder) for folder in self.folders)
        return re.sub(rf"(?<![\w/.-])({names})(?=/|\s|$|:)", rf"{self.root}\1", text)

    def carry_out(self, stage: list[Instruction]) -> None:
        for word, rest in stage:
            getattr(self, f"_{word.lower()}")(rest)

    def _from(self, rest: str) -> None:
        assert rest in ("${PYTHON}", "${BUILDER}") or re.fullmatch(r"[a-z-]+", rest), rest

    def _env(self, rest: str) -> None:
        for one in re.findall(r'(\w+)=("[^"]*"|\S+)', rest):
            name, value = one[0], self.moved(one[1].strip('"'))
            if name == "PIP_NO_CACHE_DIR":
                continue  # the cache is what keeps this test from downloading all of it again
            self.environment[name] = value.replace("$PATH", self.environment["PATH"])

    def _workdir(self, rest: str) -> None:
        self.cwd = self.place(rest)
        self.cwd.mkdir(parents=True, exist_ok=True)

    def _copy(self, rest: str) -> None:
        *sources, target = rest.split()
        if sources[0].startswith("--from="):
            assert self.place(sources[1]).exists(), rest
            assert sources[1] == target
            return
        for source in sources:
            self._take(source, target, several=len(sources) > 1)

    def _take(self, source: str, target: str, several: bool) -> None:
        allowed = (self.context / ".dockerignore").read_text().splitlines()
        assert f"!{source.split('/')[0]}" in allowed, f"{source} is not in the build's context"
        origin, place = self.context / source, self.place(target)
        if origin.is_dir():
            left_out = shutil.ignore_patterns("__pycache__")
            # A link in a folder is copied as a link, as `COPY` does.
            shutil.copytree(origin, place, symlinks=True, ignore=left_out)
        else:
            assert not several or target.endswith("/") or target == "."
            if target.endswith("/") or target == ".":
                place = place / origin.name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(origin, place)

    def _run(self, rest: str) -> None:
        if rest.startswith(("groupadd", "useradd")):
            self.left_out.append(rest)
            for path in re.findall(r"/\S+", rest.rpartition("install --directory")[2]):
                self.place(path).mkdir(parents=True, exist_ok=True)
            return
        done = subprocess.run(
            ["sh", "-ec", self.moved(rest)],
            cwd=self.cwd,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{rest}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"

    def _entrypoint(self, rest: str) -> None:
        self.entrypoint = json.loads(rest)

    def _cmd(self, rest: str) -> None:
        self.command = [self.moved(word) for word in json.loads(rest)]

    def _healthcheck(self, rest: str) -> None:
        self.health = json.loads(rest.partition("CMD ")[2])

    def _user(self, rest: str) -> None:
        self.user = rest

    def _label(self, rest: str) -> None:
        pass

    def _expose(self, rest: str) -> None:
        pass

    def _stopsignal(self, rest: str) -> None:
        assert rest == "SIGTERM"
