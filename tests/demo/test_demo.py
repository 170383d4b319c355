"""``understudy demo``, as after ``pip install understudy-serving``, and its own parts.

The scenarios run in an environment that has what the wheel depends on and nothing else. What is
checked is what Understudy said, and what clients saw; nothing depends on how soon it was.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.support.installed import build, environment, install
from tests.support.patience import eventually, patient
from tests.support.service import ROOT
from understudy.common.codecs import ModelSpec, decode_exchange
from understudy.demo import flights
from understudy.demo.http_server import Answer
from understudy.demo.model_server import ModelServer
from understudy.demo.scenarios import SCENARIOS
from understudy.demo.story import Story
from understudy.demo.text_server import Chain
from understudy.demo.traffic import SLOWEST, Message, Pace

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    build(folder / "dist", "--wheel")
    (wheel,) = (folder / "dist").glob("*.whl")
    return install(wheel, folder / "venv")


def start(programs: Path, folder: Path, *words: str) -> subprocess.Popen[str]:
    temporary = folder / "tmp"
    temporary.mkdir()
    return subprocess.Popen(
        [programs / "understudy", "demo", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**environment(programs), "TMPDIR": str(temporary)},
    )


def children_of(folder: Path) -> list[str]:
    """Command lines of processes that still run in or for this folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(folder) in words:
            found.append(words)
    return found


def told(programs: Path, folder: Path, scenario: str) -> dict[str, Any]:
    """Run a scenario to its end; its result. It has to pass and to leave nothing behind."""
    process = start(programs, folder, "--scenario", scenario, "--json")
    out, err = process.communicate(timeout=patient(350))
    assert process.returncode == 0, err[-3000:]
    result: dict[str, Any] = json.loads(out)
    assert result["passed"], result["expected"]
    assert result["scenario"] == scenario
    assert result["error"] == ""
    # Each event is a line for people, too.
    lines = err.splitlines()
    for event in result["events"]:
        assert any(event["text"] in line for line in lines)
    assert list((folder / "tmp").iterdir()) == []
    assert [path.name for path in folder.iterdir()] == ["tmp"]
    assert children_of(folder / "tmp") == []
    if not result["undecided"]:
        assert any(event["kind"] == "understudy" for event in result["events"])
    assert yaml.safe_load(result["config"])["version"] == 1
    return result


def test_a_demo_that_is_killed_leaves_no_process(programs: Path, tmp_path: Path) -> None:
    process = start(programs, tmp_path)
    try:
        # Model servers, the sidecar with its children, and clients.
        eventually(lambda: len(children_of(tmp_path / "tmp")) >= 4, seconds=120)
    finally:
        process.kill()
        process.communicate(timeout=patient(60))
    eventually(lambda: children_of(tmp_path / "tmp") == [], seconds=60)


def after(result: dict[str, Any], words: str) -> list[float | None]:
    """Time since the cause of what Understudy said with these words."""
    said = [one for one in result["events"] if one["kind"] == "understudy"]
    return [one["after"] for one in said if words in one["text"]]


def test_the_bad_candidate_is_rolled_back_and_the_good_one_promoted(
    programs: Path, tmp_path: Path
) -> None:
    result = told(programs, tmp_path, "canary")
    assert result["clients"]["failed"] == 0
    strict = result["experiments"]["strict"]
    if "a decision on 'strict'" not in result["undecided"]:
        assert strict["phase"] == "rolled_back"
        assert strict["cause"] == "harm"
        assert strict["requests"]["served"] == 0
        assert after(result, "Roll back: the challenger is worse")[0] is not None
    if "a decision on 'minutes'" not in result["undecided"]:
        minutes = result["experiments"]["minutes"]
        assert minutes["phase"] == "promoted"
        assert minutes["requests"]["served"] > 0
        (accuracy,) = [m for m in minutes["metrics"] if m["metric"] == "accuracy"]
        assert accuracy["status"] == "passed"
        arms = {arm["arm"]: arm["role"] for arm in result["status"]["arms"]}
        assert arms == {"champion": "standby", "minutes": "serving"}


def test_findings_name_the_feature_that_broke_and_the_one_that_shifted(
    programs: Path, tmp_path: Path
) -> None:
    result = told(programs, tmp_path, "drift")
    assert result["clients"]["failed"] == 0, "a silent failure"
    assert {"what": "no finding while nothing is wrong", "met": True} in result["expected"]
    named = {f["name"] for one in result["findings"] for f in one["features"]}
    if not result["undecided"]:
        assert {"temp_f", "hour"} <= named
        assert after(result, "temp_f")[0] is not None
        closed = [one for one in result["findings"] if one["state"] == "closed"]
        assert {f["name"] for one in closed for f in one["features"]} >= {"temp_f"}
        assert all(one["since"] for one in result["findings"] if one["kind"] == "drift")


def test_clients_do_not_notice_a_dead_candidate_and_all_notice_a_dead_champion(
    programs: Path, tmp_path: Path
) -> None:
    result = told(programs, tmp_path, "outage")
    assert {"what": "clients saw no error of the candidate", "met": True} in result["expected"]
    assert set(result["clients"]["errors"]) <= {"status 502", "status 503", "status 504"}
    if not result["undecided"]:
        assert result["clients"]["failed"] > 0
        (missed,) = [one for one in result["findings"] if one["kind"] == "objective"]
        assert "error_rate" in missed["title"]
        assert result["status"]["problems"] == []


def test_two_streaming_variants_are_compared_and_a_stalled_stream_is_ended(
    programs: Path, tmp_path: Path
) -> None:
    result = told(programs, tmp_path, "llm")
    assert result["clients"]["failed"] <= 1
    if not result["undecided"]:
        assert result["experiments"]["faster-chat"]["decision"] == "promote"
        (large,) = [arm for arm in result["status"]["arms"] if arm["arm"] == "large"]
        assert large["windows"]["start"]["outcomes"]["timeout"]["count"] == 1
        (small,) = [arm for arm in result["status"]["arms"] if arm["arm"] == "small"]
        (tokens,) = small["language_models"]
        assert tokens["model"] == "chat"
        assert 0 < tokens["ttft"]["p50"] <= tokens["ttft"]["p99"]
        assert tokens["tpot"]["p50"] > 0
        assert tokens["output_tokens_per_second"] > 0
        assert set(tokens["finish_reasons"]) == {"stop"}


def test_ctrl_c_ends_everything_and_leaves_nothing(programs: Path, tmp_path: Path) -> None:
    process = start(programs, tmp_path, "--keep")
    assert process.stdout is not None
    line = process.stdout.readline()
    while "first candidate" not in line:
        assert line, process.stderr and process.stderr.read()
        line = process.stdout.readline()
    assert children_of(tmp_path / "tmp"), "the sidecar names its configuration"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=patient(60))
    assert (process.returncode, err) == (130, "")
    assert "Everything is removed." in out
    assert list((tmp_path / "tmp").iterdir()) == []
    assert children_of(tmp_path / "tmp") == []


def test_a_terminal_gets_one_screen(programs: Path, tmp_path: Path) -> None:
    """At 80 columns and 24 lines, no line is longer and no view is higher than the screen."""
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        [programs / "understudy", "demo"],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=tmp_path,
        env={**environment(programs), "TERM": "xterm-256color", "TMPDIR": str(tmp_path)},
    )
    os.close(slave)
    seen = b""
    try:

        def shown() -> bool:
            nonlocal seen
            if select.select([master], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):  # the other side has ended
                    seen += os.read(master, 1 << 16)
            return b"candidate" in seen and b"answers" in seen

        eventually(shown, seconds=100)
        process.send_signal(signal.SIGINT)
        until = time.monotonic() + patient(60)
        while process.poll() is None and time.monotonic() < until:
            shown()
        assert process.returncode == 130
    finally:
        if process.poll() is None:
            process.terminate()  # so that it ends what it started
        process.wait(patient(60))
        os.close(master)
    assert b"Understudy demo: canary" in seen
    assert b"http://127.0.0.1:" in seen


def test_help_lists_the_scenarios() -> None:
    from click.testing import CliRunner

    from understudy.demo.cli import demo

    shown = CliRunner().invoke(demo, ["--help"])
    assert shown.exit_code == 0
    for name, text in SCENARIOS.items():
        assert f"{name} " in shown.output
        assert text in shown.output


# Parts ----------------------------------------------------------------------------------------


def test_the_view_fits_its_screen() -> None:
    from understudy.common.screen import Console

    story = Story("canary", screen=True)
    story.figures = [{"": "clients", "does": "got 1 answer", "errors": "0"}] * 3
    story.places = [("page", "http://127.0.0.1:9090/")] * 3
    for number in range(50):
        story._add("understudy", f"event {number} " + "and more words " * 12, 1.0, "bad")
    for width, height in ((80, 24), (120, 40), (200, 60)):
        screen = Console(width=width, height=height, force_terminal=False)
        with screen.capture() as capture:
            screen.print(story.view(width, height))
        lines = capture.get().splitlines()
        assert len(lines) <= height - 1
        assert max(map(len, lines)) <= width
        assert any("event 49" in line for line in lines)
        assert not any("event 3 " in line for line in lines)


def test_the_data_ship_with_their_licence_and_are_small() -> None:
    folder = ROOT / "understudy" / "demo" / "data"
    assert (folder / "flights.csv").stat().st_size < 200_000
    assert "public domain" in (folder / "README.md").read_text()
    found = flights.read()
    assert len(found.learned) + len(found.usual) + len(found.sent) == 5_000
    missing = [row for row in found.sent if None in row.values()]
    assert 0.05 < len(missing) / len(found.sent) < 0.15


def test_minutes_predict_better_than_hours_and_strict_fails_on_missing_values() -> None:
    found = flights.read()
    hours = flights.LateModel.learn(found.learned, hours=True)
    minutes = flights.LateModel.learn(found.learned, hours=False)
    strict = flights.LateModel.learn(found.learned, hours=False, strict=True)
    assert minutes.accuracy(found.sent) > hours.accuracy(found.sent) + 0.03
    missing = next(row for row in found.sent if None in row.values())
    assert 0.0 < minutes.predict(missing) < 1.0
    with pytest.raises(ValueError, match="is missing"):
        strict.predict(missing)
    again = flights.LateModel(json.loads(json.dumps(minutes.document)))
    assert again.predict(found.sent[0]) == minutes.predict(found.sent[0])


def test_a_request_is_read_by_the_codec_and_answered_in_both_protocols() -> None:
    import asyncio

    found = flights.read()
    row = found.sent[0]
    chance = np.random.default_rng(1)
    whole = Message("POST / HTTP/1.1\r\n", flights.request_body(row)).render("r-1", chance)
    head, _, body = whole.partition(b"\r\n\r\n")
    assert b"x-request-id: r-1" in head
    assert f"Content-Length: {len(body)}".encode() in head
    server = ModelServer(flights.LateModel.learn(found.learned, hours=False))

    def ask(method: str, path: str, data: bytes = b"") -> Answer:
        return asyncio.run(server(method, path, data))

    v2 = ask("POST", "/v2/models/delays/infer", body)
    assert v2.status == 200
    answer = json.dumps(v2.document).encode()
    spec = ModelSpec("delays")
    decoded = decode_exchange(spec, b"/v2/models/delays/infer", b"", body, 200, b"", answer)
    assert decoded.features is not None
    assert decoded.features.names == flights.FEATURES
    assert decoded.predictions is not None
    assert decoded.predictions.names == ("p_late",)
    values = {tensor["name"]: tensor["data"][0] for tensor in json.loads(body)["inputs"]}
    assert values["hour"] == row["hour"]
    assert abs(values["temp_f"] - float(str(row["temp_f"]))) < 3.0
    v1 = ask("POST", "/v1/models/delays:predict", json.dumps({"instances": [values]}).encode())
    assert v1.document["predictions"][0]["p_late"] == v2.document["outputs"][0]["data"][0]
    assert ask("POST", "/v2/models/delays/infer", b"{").status == 400
    assert ask("GET", "/v2/models/other").status == 404
    assert ask("GET", "/v2/models/delays").document["inputs"][0]["name"] == "origin"


def test_the_pace_halves_when_requests_wait_and_recovers() -> None:
    pace = Pace(100.0, 0.25)
    pace.look(10.0, 0.1)
    assert pace.rate == 100.0
    pace.look(11.0, 3.0)
    assert pace.rate == 50.0
    pace.look(11.5, 3.0)
    assert pace.rate == 50.0, "requests of before are still in flight"
    for second in range(14, 60, 3):
        pace.look(float(second), 3.0)
    assert pace.rate == SLOWEST
    for second in range(60, 200):
        pace.look(float(second), 0.01)
    assert pace.rate == 100.0


def test_the_chain_says_words_of_its_text() -> None:
    text = (ROOT / "understudy" / "demo" / "data" / "speeches.txt").read_text()
    chain, again = Chain(text, 7), Chain(text, 7)
    said = chain.words()
    assert said == again.words()
    assert set(said) <= set(text.split())
    assert 20 <= len(said) <= 40
