"""``understudy evaluate``."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from understudy.common.terminal import echo, echo_lines
from understudy.monitor.cli.options import config_option, log_format_option, log_level_option
from understudy.monitor.errors import KafkaAwayError, UnderstudyError

if TYPE_CHECKING:
    import asyncio

    from understudy.monitor.config.model import Config
    from understudy.monitor.evidence.settings import Settings
    from understudy.monitor.kafka.evaluator import Evaluator
    from understudy.monitor.supervisor.config_file import ConfigFile

log = logging.getLogger(__name__)


@click.command()
@config_option("The configuration file, the same as that of the sidecars.")
@click.option(
    "--instance",
    help="Unique name of this evaluator, which must stay the same after a restart, such as the "
    "name of a StatefulSet pod. Default: host and process id.",
)
@click.option("--listen", help="Address of the control API, instead of control.listen.")
@click.option(
    "--advertise",
    envvar="UNDERSTUDY_ADVERTISE",
    show_envvar=True,
    help="Host or address at which other evaluators reach the control API. Default: the address it "
    "listens on, or the name of this host.",
)
@click.option(
    "--commit",
    type=click.FloatRange(0.05, 60),
    default=1.0,
    show_default=True,
    help="Seconds between two commits.",
)
@click.option(
    "--session",
    type=click.FloatRange(1, 300),
    default=15.0,
    show_default=True,
    help="Seconds without a heartbeat after which the group takes over its partitions.",
)
@log_level_option
@log_format_option
def evaluate(
    config_path: Path,
    instance: str | None,
    listen: str | None,
    advertise: str | None,
    commit: float,
    session: float,
    log_level: str,
    log_format: str,
) -> None:
    """Evaluate what sidecars with `evaluation: kafka` publish.

    Start as many evaluators as are needed: those of one prefix form a group that divides the
    partitions. One of them decides the experiments, one monitors the models; the control API of
    each answers for all. The topics under `sources` are imported. Work is
    committed in transactions, so that every record counts once, whichever process is killed.
    SIGTERM and Ctrl-C finish, commit and leave. SIGHUP reads the configuration again, and so does a
    change of the file with `reload: watch`: the evaluator commits, leaves and joins again with it.
    An invalid file is rejected; the running configuration stays active.

    While no broker answers, or topics are missing (`understudy kafka init` creates them), it is
    not ready and retries. Exits 0 after an orderly stop, 2 when a retry cannot help: the
    configuration is invalid, Kafka refuses the credentials, or topics do not fit together.

    \b
    Examples:
      understudy evaluate --config understudy.yaml
      understudy evaluate --instance evaluator-0 --listen 127.0.0.1:9091
    """
    import asyncio

    from understudy.monitor.config.load import load
    from understudy.monitor.evidence.settings import Settings
    from understudy.monitor.kafka.client import silence_kafka_log
    from understudy.monitor.kafka.evaluator import Evaluator
    from understudy.monitor.kafka.options import Options, kafka_of
    from understudy.monitor.logs import set_up
    from understudy.monitor.proxy.descriptors import raise_limit
    from understudy.monitor.service.evaluator_events import attach_emitter
    from understudy.monitor.supervisor.config_file import ConfigFile

    set_up(log_level, log_format)
    silence_kafka_log()
    raise_limit()
    name = instance or f"{socket.gethostname()}-{os.getpid()}"

    def prepared(config: Config) -> tuple[Evaluator, Settings]:
        document = config.model_dump(mode="json", by_alias=True)
        if listen is not None:
            document["control"]["listen"] = listen
        settings = Settings.from_json(document)
        url = url_of(advertise or settings.control_host, settings.control_port)
        options = Options(kafka_of(config), name, commit, session, max(10.0, session), url=url)
        evaluator = Evaluator(config, options)
        try:
            evaluator.check()
        except KafkaAwayError as error:
            log.warning("%s; retrying", error)
        return evaluator, settings

    file = ConfigFile(config_path)
    content = file.content()
    try:
        config = load(config_path)
        evaluator, settings = prepared(config)
    except UnderstudyError as error:
        echo_lines(f"understudy: {error}", err=True)
        sys.exit(2)
    file.was_read(content, config)
    while True:
        echo(
            f"evaluator {name} of the group {evaluator.options.group} is starting; "
            f"http://{settings.control_host}:{settings.control_port}/v1/evaluator"
        )
        following = _Following(file, config_path, config, evaluator, prepared)
        emitter = attach_emitter(evaluator, config)
        try:
            asyncio.run(_run(evaluator, settings, following))
        finally:
            emitter.close()
        if following.next is None:
            return
        config, evaluator, settings = following.next
        log.info("the configuration has changed: joining the group again with it")


class _Following:
    """Reads the configuration file again; a valid one ends the evaluator, whose place another
    takes. ``next`` is that one: its configuration, the evaluator and its settings."""

    def __init__(
        self,
        file: ConfigFile,
        path: Path,
        config: Config,
        evaluator: Evaluator,
        prepare: Callable[[Config], tuple[Evaluator, Settings]],
    ) -> None:
        self.next: tuple[Config, Evaluator, Settings] | None = None
        self._file = file
        self._path = path
        self._config = config
        self._evaluator = evaluator
        self._prepare = prepare
        self._reading: asyncio.Task[None] | None = None

    async def follow(self) -> None:
        """Read it after each change, as long as it has `reload: watch`."""
        await self._file.follow(lambda: self._config, self.read)

    def read(self) -> None:
        """Read it now."""
        import asyncio

        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(asyncio.to_thread(self._read))

    def _read(self) -> None:
        from understudy.monitor.config.load import load

        content = self._file.content()
        try:
            config = load(self._path)
            self.next = (config, *self._prepare(config))
        except UnderstudyError as error:
            log.error("%s; the running configuration stays active", error)
            self._evaluator.config_error = str(error)
            self._file.was_read(content, self._config)
            return
        self._file.was_read(content, config)
        self._evaluator.stop()


def url_of(host: str, port: int) -> str:
    """The address advertised to other evaluators; the host name for a wildcard address."""
    if host in ("", "0.0.0.0", "::"):  # noqa: S104  # compared, not bound
        host = socket.gethostname()
    bare = host.strip("[]")
    return f"http://[{bare}]:{port}" if ":" in bare else f"http://{bare}:{port}"


async def _run(evaluator: Evaluator, settings: Settings, following: _Following) -> None:
    import asyncio

    from understudy.monitor.api.server import ApiServer
    from understudy.monitor.service.evaluator_api import guarded_api

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, evaluator.stop)
    loop.add_signal_handler(signal.SIGHUP, following.read)
    api = guarded_api(evaluator, settings)
    server = ApiServer(api, settings.control_host, settings.control_port)
    serving = loop.create_task(server.serve())
    watching = loop.create_task(following.follow())
    threads = [threading.Thread(target=evaluator.run, name="evaluator")]
    if evaluator.importing is not None:
        threads.append(threading.Thread(target=evaluator.importing.run, name="importer"))
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        await asyncio.sleep(0.1)
    watching.cancel()
    server.stop()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(serving, 3)
    log.info("left the group")
