"""What the supervisor does with its children: real processes that speak its protocol."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.patience import eventually
from tests.support.service import Service, alive


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with Service(tmp_path) as running:
        yield running


def ask(service: Service) -> dict[str, Any]:
    answer: dict[str, Any] = httpx.get(service.url).json()
    return answer


def status(service: Service) -> dict[str, Any]:
    """The last status that was pushed to the evaluation plane."""
    pushed = [entry for entry in service.heard("evaluation") if entry.get("do") == "status"]
    return pushed[-1] if pushed else {}


def pid_of(service: Service, name: str) -> int:
    started = [entry["pid"] for entry in service.heard(name) if "started" in entry]
    return int(started[-1])


def test_ready_means_that_all_children_are(service: Service) -> None:
    assert len(service.children()) == 3
    assert ask(service)["generation"] == 1
    told = eventually(lambda: status(service) if all_ready(service) else None)
    assert [worker["slot"] for worker in told["workers"]] == [0, 1]
    assert {worker["pid"] for worker in told["workers"]} < service.children()
    assert told["generation"] == 1
    assert told["config_error"] is None
    assert f"http://{told['address']}" == service.url


def all_ready(service: Service) -> bool:
    workers = status(service).get("workers")
    return bool(workers) and all(worker["ready"] for worker in workers)


def test_children_share_one_run(service: Service) -> None:
    runs = {service.heard(name)[0]["started"] for name in ("worker-0", "worker-1", "evaluation")}
    assert len(runs) == 1


THREADS = "OPENBLAS_NUM_THREADS"


def environment(pid: int) -> dict[str, str]:
    entries = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(entry.split("=", 1) for entry in entries if entry)


def test_only_the_evaluation_plane_has_variables_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(THREADS, raising=False)
    with Service(tmp_path) as service:
        worker = environment(pid_of(service, "worker-0"))
        assert THREADS not in worker
        assert environment(pid_of(service, "evaluation")) == {**worker, THREADS: "1"}


def test_a_variable_of_the_user_stays(tmp_path: Path) -> None:
    with Service(tmp_path).start(**{THREADS: "3"}) as service:
        assert environment(pid_of(service, "evaluation"))[THREADS] == "3"


def test_a_killed_worker_is_replaced_and_no_connection_is_refused(service: Service) -> None:
    for name in ("worker-0", "worker-1"):
        os.kill(pid_of(service, name), signal.SIGKILL)
    # Both are dead or dying: what connects now waits for their successors.
    assert [ask(service)["generation"] for _ in range(8)] == [1] * 8
    told = eventually(
        lambda: (
            status(service)
            if all_ready(service) and {w["restarts"] for w in status(service)["workers"]} == {1}
            else None
        )
    )
    assert {worker["pid"] for worker in told["workers"]} < service.children()
    eventually(lambda: "worker 0 ended by SIGKILL; restarting in 0.1 s" in service.log)


def test_restarts_come_slower_and_slower(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "crash-worker-1").touch()
    with Service(tmp_path).start(wait=False) as service:
        eventually(lambda: service.log.count("worker 1 ended with exit code 7") >= 5)
        waits = [
            line.rpartition("restarting in ")[2].strip()
            for line in service.errors
            if "worker 1 ended" in line
        ]
        assert waits[:5] == ["0.1 s", "0.1 s", "0.2 s", "0.2 s", "0.2 s"]
        assert not service.output
        (tmp_path / "state" / "crash-worker-1").unlink()
        eventually(lambda: service.output)


def test_the_evaluation_plane_is_not_needed_to_serve(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "crash-evaluation").touch()
    with Service(tmp_path).start(wait=False) as service:
        eventually(lambda: "the evaluation plane does not start" in service.log)
        address = service.log.partition("serving on ")[2].partition(",")[0]
        assert httpx.get(f"http://{address}").json()["generation"] == 1
        assert not service.output
        (tmp_path / "state" / "crash-evaluation").unlink()
        eventually(lambda: service.output)
        eventually(lambda: status(service).get("evaluation_restarts", 0) >= 1)
        assert service.stop() == 0


def test_a_command_that_does_not_exist_is_retried(tmp_path: Path) -> None:
    script = tmp_path / "missing.py"
    script.write_text(
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from understudy.monitor.logs import set_up\n"
        "from understudy.monitor.supervisor.child import BackOff\n"
        "from understudy.monitor.supervisor.supervisor import Supervisor\n"
        "set_up()\n"
        "s = lambda: Supervisor(Path(sys.argv[1]), print, ['/no/such'], ['/no/such'],\n"
        "                       BackOff(0.01, 0.01))\n"
        "async def run(): return await s().run()\n"
        "sys.exit(asyncio.run(run()))\n"
    )
    command = (Service(tmp_path).command[0], str(script))
    with Service(tmp_path, command).start(wait=False) as service:
        eventually(lambda: service.log.count("worker 0 cannot be started") >= 2)
        assert service.stop() == 0


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("leave", "has closed its control line but still runs: killing it"),
        ("babble", "the control line broke"),
    ],
)
def test_a_child_that_breaks_the_protocol_is_replaced(
    tmp_path: Path, flag: str, message: str
) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / f"{flag}-worker-0").touch()
    with Service(tmp_path).start(wait=False) as service:
        eventually(lambda: f"worker 0 {message}" in service.log.replace("worker 0:", "worker 0"))
        (tmp_path / "state" / f"{flag}-worker-0").unlink()
        eventually(lambda: all_ready(service))


def test_a_child_that_hangs_at_its_start_is_replaced_slower_and_slower(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "hang-worker-1").touch()
    with Service(tmp_path, watchdog={"start": "1s"}).start(wait=False) as service:
        eventually(lambda: service.log.count("worker 1 ended by SIGKILL") >= 3)
        lines = [line for line in service.errors if "worker 1 " in line]
        waits = [line.rpartition("restarting in ")[2].strip() for line in lines if "ended" in line]
        assert waits[:3] == ["0.1 s", "0.1 s", "0.2 s"]
        assert "did not respond for 1." in lines[0]
        assert "(it waits): killing it" in lines[0]
        (tmp_path / "state" / "hang-worker-1").unlink()
        eventually(lambda: all_ready(service))
        killed = [worker["killed"] for worker in status(service)["workers"]]
        assert killed[0] == {"hung": 0, "memory": 0}
        assert killed[1]["hung"] >= 3


def test_no_child_is_replaced_after_all_were_paused(tmp_path: Path) -> None:
    """As by a machine that sleeps, or a container that is paused."""
    watchdog = {"workers": "1s", "evaluation": "1s"}
    with Service(tmp_path, watchdog=watchdog) as service:
        children = service.children()
        for pid in (service.pid, *children):
            os.kill(pid, signal.SIGSTOP)
        time.sleep(3.0)
        for pid in (*children, service.pid):
            os.kill(pid, signal.SIGCONT)
        eventually(lambda: {ask(service)["pid"] for _ in range(8)} <= children)
        before = len(service.heard("evaluation"))
        service.signal(signal.SIGHUP)
        eventually(lambda: len(service.heard("evaluation")) > before)
        assert service.children() == children
        assert "killing" not in service.log


def test_workers_are_told_for_whom_they_accept(tmp_path: Path) -> None:
    def told() -> list[list[int]]:
        return [e["slots"] for e in service.heard("worker-0") if e.get("do") == "cover"]

    with Service(tmp_path, watchdog={"workers": "10m"}) as service:
        eventually(lambda: all_ready(service))
        assert told() == []
        stopped = pid_of(service, "worker-1")
        os.kill(stopped, signal.SIGSTOP)
        eventually(lambda: told() == [[1]])
        assert not status(service)["workers"][1]["responsive"]
        assert f"worker 1 (pid {stopped}) does not respond" in service.log
        os.kill(stopped, signal.SIGCONT)
        eventually(lambda: told() == [[1], []])
        os.kill(stopped, signal.SIGKILL)
        eventually(lambda: told() == [[1], [], [1], []])
        assert not [e for e in service.heard("worker-1") if e.get("do") == "cover"]


# Reload -----------------------------------------------------------------------------------------


def test_a_good_file_reaches_everybody(service: Service) -> None:
    service.write(champion={"url": "http://127.0.0.1:10"})
    service.signal(signal.SIGHUP)
    for name in ("worker-0", "worker-1", "evaluation"):
        eventually(lambda name=name: any(e.get("do") == "reload" for e in service.heard(name)))
    eventually(lambda: {ask(service)["generation"] for _ in range(8)} == {2})
    assert eventually(lambda: status(service)["generation"] == 2)
    # A worker that starts later has it too.
    os.kill(pid_of(service, "worker-0"), signal.SIGKILL)
    eventually(lambda: [e for e in service.heard("worker-0") if "started" in e][1:])
    assert [e for e in service.heard("worker-0") if "started" in e][1]["generation"] == 2


def test_a_bad_file_changes_nothing_and_says_why(service: Service) -> None:
    service.write(champion={"url": "nonsense"})
    service.signal(signal.SIGHUP)
    told = eventually(lambda: status(service) if status(service)["config_error"] else None)
    assert "champion.url: not a valid URL: 'nonsense'" in told["config_error"]
    assert told["generation"] == 1
    assert not any(entry.get("do") == "reload" for entry in service.heard("worker-0"))
    assert eventually(lambda: "the running one stays" in service.log)
    # The next good one clears it.
    service.write(champion={"url": "http://127.0.0.1:10"})
    service.signal(signal.SIGHUP)
    told = eventually(lambda: status(service) if status(service)["generation"] == 2 else None)
    assert told["config_error"] is None


def test_the_evaluation_plane_may_ask_for_a_reload(service: Service) -> None:
    (service.state / "ask").touch()
    reply = eventually(lambda: [e for e in service.heard("evaluation") if "reply" in e])
    assert reply[0] | {"pid": 0} == {"pid": 0, "reply": 5, "ok": True, "generation": 2}
    service.file.write_text("version: 1\nversion: 1\n")
    (service.state / "ask").touch()
    reply = eventually(lambda: [e for e in service.heard("evaluation") if "reply" in e][1:])
    assert reply[0]["ok"] is False
    assert "line 2, column 1" in reply[0]["error"]


def test_a_reload_that_a_worker_does_not_follow_is_answered_so(service: Service) -> None:
    (service.state / "refuse-worker-1").touch()
    (service.state / "ask").touch()
    reply = eventually(lambda: [e for e in service.heard("evaluation") if "reply" in e])
    assert reply[0]["ok"] is False
    assert reply[0]["error"] == "worker 1: it does not suit me"
    (service.state / "refuse-worker-1").unlink()
    (service.state / "ask").touch()
    reply = eventually(lambda: [e for e in service.heard("evaluation") if "reply" in e][1:])
    assert reply[0]["ok"] is True
    assert {answer["generation"] for answer in (ask(service) for _ in range(20))} == {3}


def test_what_needs_a_restart_is_named_and_kept(service: Service) -> None:
    service.write(workers=1, state_dir="elsewhere", listen="127.0.0.1:1")
    service.signal(signal.SIGHUP)
    eventually(lambda: status(service)["generation"] == 2)
    for name in ("workers", "state_dir", "listen"):
        text = f"{name} has changed: the old value stays active until a restart"
        eventually(lambda text=text: text in service.log, text)
    assert "control has changed" not in service.log
    assert len(service.children()) == 3
    assert not (service.folder / "elsewhere").exists()


def test_a_child_that_refuses_a_plan_is_shown(service: Service) -> None:
    (service.state / "refuse-worker-1").touch()
    service.signal(signal.SIGHUP)
    told = eventually(lambda: status(service) if status(service)["config_error"] else None)
    assert told["config_error"] == "worker 1: it does not suit me"


def test_files_that_cannot_be_written_keep_the_running_configuration(service: Service) -> None:
    for name in ("plan.tmp", "config.tmp"):
        (service.state / "run" / name).mkdir()  # stands in the way, also for root
    service.signal(signal.SIGHUP)
    told = eventually(lambda: status(service) if status(service)["config_error"] else None)
    assert "cannot be written" in told["config_error"]
    assert told["generation"] == 1
    assert ask(service)["generation"] == 1


# Stopping ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_workers_drain_before_the_evaluation_plane(service: Service, number: int) -> None:
    children = service.children()
    (service.state / "hold-worker-0").touch()
    service.signal(number)
    eventually(lambda: any(e.get("end") == "drained" for e in service.heard("worker-0")))
    # New connections are refused, not left waiting.
    eventually(lambda: refused(service))
    assert not any("end" in entry for entry in service.heard("evaluation"))
    (service.state / "hold-worker-0").unlink()
    assert service.wait() == 0
    ended = service.heard("worker-0")[-1]["at"]
    began = next(e["began"] for e in service.heard("evaluation") if e.get("end") == "drained")
    assert ended <= began
    assert not any(alive(child) for child in children)


def refused(service: Service) -> bool:
    host, port = service.url.removeprefix("http://").split(":")
    with socket.socket() as sock:
        return sock.connect_ex((host, int(port))) != 0


def test_an_evaluation_plane_that_dies_while_workers_drain_does_not_hold_up_the_end(
    service: Service,
) -> None:
    (service.state / "hold-worker-0").touch()
    service.signal(signal.SIGTERM)
    eventually(lambda: any(e.get("end") == "drained" for e in service.heard("worker-0")))
    os.kill(pid_of(service, "evaluation"), signal.SIGKILL)
    # It comes back to take the last records.
    eventually(lambda: len([e for e in service.heard("evaluation") if "started" in e]) == 2)
    (service.state / "hold-worker-0").unlink()
    assert service.wait() == 0


def test_a_worker_that_does_not_end_is_killed_after_the_limit(tmp_path: Path) -> None:
    with Service(tmp_path, limits={"drain": "10ms"}) as service:
        (service.state / "hold-worker-0").touch()
        assert service.stop() == 0
        assert "worker 0 did not end within 6 s: killing it" in service.log


def test_a_second_signal_stops_at_once(service: Service) -> None:
    children = service.children()
    (service.state / "hold").touch()
    service.signal(signal.SIGTERM)
    eventually(lambda: any(e.get("end") == "drained" for e in service.heard("worker-0")))
    service.signal(signal.SIGTERM)
    assert service.wait() == 1
    assert not any(alive(child) for child in children)


def test_children_end_when_the_supervisor_is_killed(service: Service) -> None:
    children = service.children()
    service.signal(signal.SIGKILL)
    service.wait()
    eventually(lambda: not any(alive(child) for child in children))
    assert any(entry.get("end") == "hung up" for entry in service.heard("worker-0"))


# Starting ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["listen", "control"])
def test_a_taken_port_is_named(tmp_path: Path, setting: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        value = address if setting == "listen" else {"listen": address}
        with Service(tmp_path, **{setting: value}).start(wait=False) as service:
            assert service.wait() == 2
        path = "listen" if setting == "listen" else "control.listen"
        assert f"{path}: {address}: Address already in use" in service.log


def test_two_services_do_not_share_a_port(tmp_path: Path, service: Service) -> None:
    address = service.url.removeprefix("http://")
    (tmp_path / "second").mkdir()
    with Service(tmp_path / "second", listen=address).start(wait=False) as second:
        assert second.wait() == 2
    assert f"listen: {address}: Address already in use" in second.log


def test_a_second_service_with_the_same_state_is_refused(service: Service) -> None:
    with Service(service.folder).start(wait=False) as second:
        assert second.wait() == 2
    assert "is in use by another understudy" in second.log
    assert ask(service)["generation"] == 1


def test_the_run_folder_is_made_anew_and_the_lock_is_let_go(tmp_path: Path) -> None:
    with Service(tmp_path) as first:
        (first.state / "run" / "left-over").touch()
        assert first.stop() == 0
        run = first.heard("worker-0")[0]["started"]
    with Service(tmp_path) as second:
        assert not (second.state / "run" / "left-over").exists()
        assert second.heard("worker-0")[-1].get("started") != run
        assert second.stop() == 0


def test_a_state_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with Service(tmp_path, state_dir="file/state").start(wait=False) as service:
        assert service.wait() == 2
    assert f"state_dir: {tmp_path}/file/state cannot be used: Not a directory" in service.log


def test_a_state_folder_too_deep_for_a_socket_is_no_obstacle(tmp_path: Path) -> None:
    """Sockets are in the folder of the run, which is in memory."""
    with Service(tmp_path, state_dir="d" * 100) as service:
        assert ask(service)["generation"] == 1
        assert (tmp_path / ("d" * 100) / "run" / "plan.json").exists()
        assert service.stop() == 0


def test_an_open_control_address_needs_its_token(tmp_path: Path) -> None:
    control = {"listen": "0.0.0.0:0", "token_env": "UNDERSTUDY_TEST_TOKEN"}
    with Service(tmp_path, control=control).start(wait=False) as service:
        assert service.wait() == 2
    assert "UNDERSTUDY_TEST_TOKEN is not set" in service.log
    with Service(tmp_path, control=control).start(UNDERSTUDY_TEST_TOKEN="x") as service:
        assert service.stop() == 0
