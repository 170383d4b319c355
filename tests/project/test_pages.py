"""Every command of README and docs, as it stands there, with only what the page says to install.

The blocks of a page are one session: one folder, one shell, a network of its own (so that ports are
those of the page), and an environment with the wheel and the extras that the page names. Blocks with a
file's name are there as files. What a page takes for granted, such as data, is in :data:`GIVEN`.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import page_data
from tests.support.documented import ELSEWHERE, PAGES, ROOT, Block, blocks_of, commands_of
from tests.support.installed import build, install
from tests.support.patience import patient
from tools.parts.debian import alertmanager, find

pytestmark = [pytest.mark.timeout(900), pytest.mark.integration]

RUNBOOKS = tuple(page for page in PAGES if page.parent.name == "runbooks")
PYTHON_OF_OTHER_TESTS = ("CONTRIBUTING.md",)


@dataclass(frozen=True)
class Given:
    """What a page has before its first command: ``files`` writes them, ``before`` is run."""

    files: Callable[[Path], None] | None = None
    before: str = ""
    programs: tuple[str, ...] = ()


READY = (
    "curl --silent --retry 60 --retry-delay 1 --retry-connrefused"
    " --output {folder}/healthz http://127.0.0.1:9090/healthz\n"
)
SERVING = (
    "python model.py 8081 &\nunderstudy serve --config understudy.yaml 2> serve.log &\n" + READY
)
TRAFFIC = "python traffic.py 2500 1\n"
GIVEN: dict[str, Given] = {
    "README.md": Given(page_data.checkout),
    "docs/baseline.md": Given(page_data.for_baselines, SERVING + TRAFFIC + page_data.BASELINES),
    "docs/silent-failure.md": Given(
        page_data.for_silent_failure, SERVING + TRAFFIC + page_data.BASELINES
    ),
    "docs/records.md": Given(page_data.for_records, SERVING + page_data.RECORDED),
    "docs/experiments.md": Given(
        page_data.for_plans, "python model.py 8082 &\n" + SERVING + "python traffic.py 300 1\n"
    ),
    "docs/first-steps.md": Given(page_data.for_first_steps, page_data.FIRST_STEPS),
    "docs/slo.md": Given(page_data.for_slos, programs=("promtool",)),
    "docs/runbooks": Given(
        page_data.for_runbooks,
        SERVING + page_data.ALERTMANAGER,
        programs=("amtool",),
    ),
    "docs/tutorials/slos.md": Given(programs=("promtool",)),
}
SESSIONS: dict[str, tuple[Path, ...]] = {
    **{str(page.relative_to(ROOT)): (page,) for page in PAGES if page not in RUNBOOKS},
    "docs/runbooks": RUNBOOKS,
}


def runs(block: Block) -> bool:
    """Whether a session runs it: commands, and programs that are not files."""
    python = block.language == "python" and not block.title
    return block.runs or (python and block.page.name not in PYTHON_OF_OTHER_TESTS)


WITH_COMMANDS = [
    name
    for name, pages in SESSIONS.items()
    if any(runs(block) for page in pages for block in blocks_of(page))
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    build(folder, "--wheel")
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def environments(
    wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[frozenset[str]], Path]:
    made: dict[frozenset[str], Path] = {}

    def environment(extras: frozenset[str]) -> Path:
        if extras not in made:
            home = tmp_path_factory.mktemp("environment") / "venv"
            names = f"[{','.join(sorted(extras))}]" if extras else ""
            made[extras] = install(wheel, home, names, "--seed")
        return made[extras]

    return environment


def extras_of(pages: tuple[Path, ...]) -> frozenset[str]:
    """The extras that the pages say to install."""
    named = (
        re.findall(r"understudy-serving\[([\w,-]+)\]", page.read_text("utf-8")) for page in pages
    )
    return frozenset(extra for names in named for name in names for extra in name.split(","))


def pattern(shown: str) -> str:
    """Of an output as the page shows it: `…` stands for anything."""
    literal = [re.escape(part) for part in shown.strip().split("…")]
    return r"\A\s*" + ".*?".join(literal) + r"\s*\Z"


MATCHES = """\
import pathlib, re, sys
wanted, printed = (pathlib.Path(name).read_text() for name in sys.argv[1:])
printed = "\\n".join(line.rstrip() for line in printed.splitlines())
sys.exit(0 if re.search(wanted, printed, re.DOTALL) else 1)
"""


WAIT = int(patient(20))
"""Seconds until the output of a command is that of the page."""


def script(blocks: list[Block], folder: Path) -> str:
    """The session as one shell script. Output that a page shows is waited for: what it is about
    (a finding, a verdict) may take its time."""
    lines = ["set -eo pipefail"]
    for number, block in enumerate(blocks):
        lines.append(f"echo '::: {block}'")
        if block.language == "python":
            program = folder / f"{number}.py"
            program.write_text(block.text)
            lines.append(f"python {program}")
            continue
        for step, (command, shown) in enumerate(commands_of(block)):
            if not shown:
                lines.append(command)
                continue
            wanted, printed = (
                folder / f"{number}-{step}.wanted",
                folder / f"{number}-{step}.printed",
            )
            wanted.write_text(pattern(shown))
            matches = f"{sys.executable} {folder / 'matches.py'} {wanted} {printed}"
            lines += [
                f"end=$((SECONDS + {WAIT})); while :; do",
                "{\n" + command + f'\n}} > {printed} 2>&1 || echo "exit code $?" >> {printed}',
                f"if {matches} || [ $SECONDS -ge $end ]; then break; fi; sleep 1; done",
                f"cat {printed}",
                f"{matches} || {{ echo '{block}: prints something else'; exit 1; }}",
            ]
    return "\n".join(lines) + "\n"


def only_pip(block: Block) -> bool:
    lines = [line for text, _ in commands_of(block) for line in text.splitlines() if line.strip()]
    return bool(lines) and all(line.startswith("pip ") for line in lines)


ISOLATED = (
    *("unshare", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"),
    *("sh", "-c", 'ip link set lo up || exit 77; exec "$@"', "sh"),
)


@dataclass(frozen=True)
class Place:
    """Where a session runs: folders of its own, and the programs that it finds."""

    work: Path
    scratch: Path
    programs: tuple[Path, ...]
    wheels: Path

    @classmethod
    def below(cls, folder: Path, programs: tuple[Path, ...], wheels: Path) -> Place:
        work, scratch = folder / "work", folder / "scratch"
        work.mkdir()
        scratch.mkdir()
        (scratch / "matches.py").write_text(MATCHES)
        return cls(work, scratch, programs, wheels)

    def environment(self) -> dict[str, str]:
        kept = ("PIP_CERT", "PIP_INDEX_URL", "SSL_CERT_FILE", "HTTPS_PROXY", "LANG", "LC_ALL")
        folders = [
            *map(str, self.programs),
            "/usr/local/bin",
            "/usr/bin",
            "/bin",
            "/usr/sbin",
            "/sbin",
        ]
        return {
            **{key: os.environ[key] for key in kept if key in os.environ},
            "PATH": ":".join(folders), "HOME": str(self.scratch), "SHELL": "/bin/bash",
            "PIP_FIND_LINKS": str(self.wheels), "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "COLUMNS": "120",
        }  # fmt: skip


def run_session(blocks: list[Block], before: str, place: Place) -> tuple[int, str]:
    """Run the blocks; the exit code, and what was printed. Commands of pip come first, since they
    need the network of the machine."""
    for block in blocks:
        if block.is_file:
            (place.work / block.title).write_text(block.text)
    wanted = [block for block in blocks if runs(block)]
    installing = [block for block in wanted if block.runs and only_pip(block)]
    rest = [block for block in wanted if block not in installing]
    said = ""
    for part, how in ((installing, ()), (rest, ISOLATED)):
        if not part:
            continue
        text = (before if how else "") + script(part, place.scratch)
        (place.scratch / "session.sh").write_text(text)
        with open(place.scratch / "output", "w+") as output:  # programs that stay may hold it open
            done = subprocess.run(
                [*how, shutil.which("bash") or "bash", str(place.scratch / "session.sh")],
                cwd=place.work, env=place.environment(), stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, timeout=patient(300),
            )  # fmt: skip
            output.seek(0)
            said += output.read()
        if done.returncode == 77 or "unshare:" in said:
            pytest.skip(f"NOT TESTED: no network of its own here: {said[-200:]}")
        if done.returncode != 0:
            return done.returncode, said
    return 0, said


@pytest.mark.parametrize("name", WITH_COMMANDS)
def test_commands_of_a_page_run(
    name: str, wheel: Path, environments: Callable[[frozenset[str]], Path], tmp_path: Path
) -> None:
    pages, given = SESSIONS[name], GIVEN.get(name, Given())
    folders = [environments(extras_of(pages))]
    for program in given.programs:
        found = find(program)
        if found is None:
            pytest.skip(f"NOT TESTED: {program} is missing; `make parts` fetches it")
        folders.append(found.parent)
    place = Place.below(tmp_path, tuple(folders), wheel.parent)
    if given.files is not None:
        given.files(place.work)
    words = shlex.join(alertmanager()) if "{alertmanager}" in given.before else ""
    before = given.before.format(folder=place.scratch, alertmanager=words)
    blocks = [block for page in pages for block in blocks_of(page)]
    code, said = run_session(blocks, before, place)
    assert code == 0, said[-6000:]


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("```sh\ntrue\n```\n", True),
        ("```sh\ntrue\nfalse\n```\n", False),
        ("```sh\nfalse | cat\n```\n", False),
        ("```sh\nno-such-program\n```\n", False),
        ('```yaml title="a.yaml"\na: 1\n```\n\n```console\n$ cat a.yaml\na: …\n```\n', True),
        ("```console\n$ exit 3\n…\nexit code 3\n```\n", False),
        ("```console\n$ (exit 3)\nexit code 3\n```\n", True),
        ("```python\nimport sys\nsys.exit(1)\n```\n", False),
        ("```sh\nsleep 1000 &\ntrue\n```\n", True),
    ],
)
def test_a_session_notices_what_fails(
    text: str, good: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.project.test_pages.WAIT", 1)
    page = tmp_path / "page.md"
    page.write_text(text)
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "python").symlink_to(sys.executable)
    code, said = run_session(blocks_of(page), "", Place.below(tmp_path, (folder,), tmp_path))
    assert (code == 0) == good, said


def test_what_another_test_runs_is_there() -> None:
    lines = {
        line.partition("  #")[0].strip()
        for page in PAGES
        for block in blocks_of(page)
        if block.runs
        for line in block.text.splitlines()
    }
    for command, file in ELSEWHERE.items():
        assert command in lines, command
        words = command.partition(" --")[0].split()
        assert words[-1].partition(".")[0] in (ROOT / file).read_text("utf-8"), command


def test_what_is_given_belongs_to_a_page() -> None:
    assert GIVEN.keys() <= SESSIONS.keys()


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a\nb\n", "a\nb\n", True),
        ("a …\nc\n", "a 1\nb\nc", True),
        ("a\n", "b\n", False),
        ("a\n", "a\nb\n", False),
        ("a.c\n", "abc\n", False),
    ],
)
def test_an_output_is_the_one_that_the_page_shows(shown: str, printed: str, same: bool) -> None:
    assert (re.search(pattern(shown), printed, re.DOTALL) is not None) == same
