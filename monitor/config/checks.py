"""Checks across sections of the configuration, and of the files that it names."""

from __future__ import annotations

import importlib.util
import json
import os
import ssl
from collections.abc import Collection, Iterator, Mapping

from understudy.common.problems import Problem
from understudy.monitor.config.compile import arm_names, default_paths, paths_of
from understudy.monitor.config.experiment import Experiment
from understudy.monitor.config.fields import server_address, split_address
from understudy.monitor.config.model import (
    Config,
    ListenTls,
    Model,
    Timeouts,
    Upstream,
    UpstreamTls,
)

_LONGEST_SOCKET = 107
"""Bytes of the path of a Unix socket on Linux."""


_MOST_NUMBERS = 254
"""Records number the arms of a model's experiments in one byte."""


def problems_of(config: Config, serving: Collection[str] = ()) -> list[Problem]:
    """All faults of a configuration whose file names are absolute; empty when it is valid.

    ``serving`` are shadow experiments with a challenger that a person has sent all traffic to.
    """
    return [
        *_arms(config),
        *_models(config),
        *_experiments(config, serving),
        *_addresses(config),
        *_rewrites(config),
        *_certificates(config),
        *_baselines(config),
        *_kafka(config),
        *_sources(config),
        *_faults(config),
    ]


def warnings_of(config: Config) -> list[Problem]:
    """Limits that differ between champion and challengers, each with the keys of both, experiments
    that may decide before a time limit has passed, and challengers that serve clients without
    their credentials although the file does not say so.

    They are valid. Answers beyond the smaller limit cannot be compared, or differ for a reason that
    is not the model's. What a request that hangs would have shown is known at its time limit. A
    challenger that needs credentials refuses clients whom the champion serves.
    """
    return [*_unequal_limits(config), *_early_decisions(config), *_credentials(config)]


def _credentials(config: Config) -> Iterator[Problem]:
    for index, challenger in enumerate(config.challengers):
        if "credentials" in challenger.model_fields_set:
            continue
        serves = [
            e.name for e in config.experiments if e.routes and challenger.name in e.challengers
        ]
        if serves:
            yield (
                f"challengers[{index}].credentials",
                "credentials of clients (Authorization, Cookie, API keys) are removed from their "
                f"requests, also when {challenger.name} serves clients in {', '.join(serves)}: "
                "write `credentials: forward` if it needs them, `credentials: remove` if not",
            )


def _unequal_limits(config: Config) -> Iterator[Problem]:
    champion = config.champion
    capture = config.capture.max_body
    for index, challenger in enumerate(config.challengers):
        path = f"challengers[{index}]"
        mirror = challenger.mirror
        pairs: list[tuple[str, float | None, str, float | None, str]] = []
        for name in ("connect", "first_byte", "between_bytes", "total"):
            theirs, ours = getattr(challenger.timeouts, name), getattr(champion.timeouts, name)
            pairs.append((f"timeouts.{name}", theirs, f"champion.timeouts.{name}", ours, " s"))
        for name in ("max_connections", "max_waiting"):
            theirs, ours = getattr(challenger, name), getattr(champion, name)
            pairs.append((name, theirs, f"champion.{name}", ours, ""))
        if mirror.timeout is not None:
            for name in ("first_byte", "between_bytes", "total"):
                ours = getattr(champion.timeouts, name)
                key = f"champion.timeouts.{name}"
                pairs.append(("mirror.timeout", mirror.timeout, key, ours, " s"))
        if mirror.connections is not None:
            ours = champion.max_connections
            pairs.append(
                ("mirror.connections", mirror.connections, "champion.max_connections", ours, "")
            )
        for key, theirs, other, ours, unit in pairs:
            if theirs != ours:
                yield (
                    f"{path}.{key}",
                    f"{_limit(theirs, unit)}, but {other} is {_limit(ours, unit)}",
                )
        if mirror.max_response < capture:
            yield (
                f"{path}.mirror.max_response",
                f"{mirror.max_response:,} bytes, but the champion's answers are read up to "
                f"capture.max_body ({capture:,} bytes): larger ones cannot be compared",
            )


def _limit(value: float | None, unit: str) -> str:
    return "not set" if value is None else f"{value:g}{unit}"


def _limit_of_hanging(path: str, timeouts: Timeouts, model: tuple[int, Model]) -> tuple[str, float]:
    """Key of the limit that ends a request without a response, and its seconds. ``path`` is that of
    the model server; the limits of the experiment's ``model``, with its index, come first."""
    number, own = model
    for name in ("total", "first_byte"):
        for key, limits in ((f"models[{number}]", own), (f"{path}.timeouts", timeouts)):
            seconds: float | None = getattr(limits, name)
            if seconds is not None:
                return f"{key}.{name}", seconds
    raise AssertionError("there is always a limit for the first byte")


def _early_decisions(config: Config) -> Iterator[Problem]:
    by_name = {
        challenger.name: (f"challengers[{index}]", challenger)
        for index, challenger in enumerate(config.challengers)
    }
    for index, experiment in enumerate(config.experiments):
        limits: dict[str, float] = {}
        name = experiment.model or config.models[0].name
        model = next((i, m) for i, m in enumerate(config.models) if m.name == name)
        for path, challenger in (by_name[name] for name in experiment.challengers):
            if experiment.routes:
                key, seconds = _limit_of_hanging(path, challenger.timeouts, model)
                limits[key] = seconds
            if experiment.mode != "split" and challenger.mirror.timeout is not None:
                limits[f"{path}.mirror.timeout"] = challenger.mirror.timeout
            elif experiment.mode != "split":
                key, seconds = _limit_of_hanging("champion", config.champion.timeouts, model)
                limits[key] = seconds
        key = max(limits, key=lambda name: limits[name])
        if experiment.minimum_duration < limits[key]:
            yield (
                f"experiments[{index}].minimum_duration",
                f"{experiment.minimum_duration:g} s, but {key} is {limits[key]:g} s: a request "
                "that hangs may fail only then, and the challenger could be promoted before",
            )


def problems_at_start(config: Config, environment: Mapping[str, str]) -> list[Problem]:
    """Faults that depend on the environment of the service, not on the file alone."""
    return [*_token(config, environment), *_kafka_at_start(config, environment)]


def _token(config: Config, environment: Mapping[str, str]) -> Iterator[Problem]:
    name = config.control.token_env
    if name is None or environment.get(name) or config.control.loopback:
        return
    message = (
        f"the environment variable {name} is not set, and {config.control.listen} is reachable "
        "from other machines"
    )
    yield "control.token_env", message


def _faults(config: Config) -> Iterator[Problem]:
    arms = arm_names(config)
    seen: set[str] = set()
    for number, fault in enumerate(config.faults):
        if fault.arm not in arms:
            yield f"faults[{number}].arm", f"{fault.arm!r} is not one of {', '.join(arms)}"
        elif fault.arm in seen:
            yield f"faults[{number}].arm", f"{fault.arm} has two faults; only one is allowed"
        seen.add(fault.arm)


def _kafka(config: Config) -> Iterator[Problem]:
    kafka = config.kafka
    if kafka is None:
        if config.evaluation.mode == "kafka":
            yield "kafka", "is required with `evaluation: kafka`: name the brokers"
        return
    tls = kafka.security.tls
    for name in ("ca", "certificate", "key"):
        path = getattr(tls, name)
        if path is not None and not os.access(path, os.R_OK):
            yield f"kafka.security.tls.{name}", f"{path} cannot be read"


def _sources(config: Config) -> Iterator[Problem]:
    if config.sources and config.kafka is None:
        yield "sources", "need Kafka: name the brokers in `kafka:`"
    known = {(model.name, model.version) for model in config.models}
    topics = [source.topic for source in config.sources]
    for number, source in enumerate(config.sources):
        if source.topic in topics[:number]:
            yield f"sources[{number}].topic", f"duplicate topic {source.topic!r}"
        if source.model is None:
            continue
        several = [version for name, version in known if name == source.model]
        if not several:
            yield f"sources[{number}].model", f"{source.model!r} is not declared in models"
        elif source.version not in several and (source.version or len(several) > 1):
            versions = ", ".join(sorted(several))
            message = f"{source.version!r} is not one of the declared versions: {versions}"
            yield f"sources[{number}].version", message


def _kafka_at_start(config: Config, environment: Mapping[str, str]) -> Iterator[Problem]:
    if config.evaluation.mode != "kafka" or config.kafka is None:
        return
    name = config.kafka.security.password_env
    if name is not None and not environment.get(name):
        yield "kafka.security.password_env", f"the environment variable {name} is not set"
    if importlib.util.find_spec("kafka") is None:
        message = "`kafka` needs kafka-python: pip install 'understudy-serving[kafka]'"
        yield "evaluation.mode", message


def _arms(config: Config) -> Iterator[Problem]:
    arms = {config.champion.name: "champion"}
    for index, challenger in enumerate(config.challengers):
        path = f"challengers[{index}]"
        owner = arms.setdefault(challenger.name, path)
        if owner != path:
            yield f"{path}.name", f"{challenger.name!r} is already the name of {owner}"


def _models(config: Config) -> Iterator[Problem]:
    seen: dict[tuple[str, str], int] = {}
    owners: dict[str, int] = {}
    for index, model in enumerate(config.models):
        path = f"models[{index}]"
        if model.match is not None:
            if any(one.match is not None for one in config.models[:index]):
                yield f"{path}.match", "an earlier model has `match`: one is for all others"
            continue
        if model.name == "other":
            yield (
                f"{path}.name",
                "'other' is reserved for requests to unknown paths; use another name",
            )
        first = seen.setdefault((model.name, model.version), index)
        if first != index:
            version = f" with version {model.version!r}" if model.version else ""
            yield f"{path}.name", f"{model.name!r}{version} is already models[{first}]"
            continue
        if model.paths is None:
            mine = [
                owners.setdefault(one, index) for one in default_paths(model.name, model.protocol)
            ]
            if index not in mine:
                message = f"is required: an earlier model uses the default paths of {model.name!r}"
                yield f"{path}.paths", message
            continue
        for number, one in enumerate(model.paths):
            owner = owners.get(one)
            if owner is not None and _claims(config, owner, one):
                yield f"{path}.paths[{number}]", f"{one!r} already belongs to models[{owner}]"
            owners.setdefault(one, index)


def _claims(config: Config, owner: int, path: str) -> bool:
    """Whether the file declares ``path`` for that model, rather than it being a default."""
    paths = config.models[owner].paths
    return paths is not None and path in paths


_OF_SCORES = frozenset(("auc", "brier", "log_loss", "calibration_error"))
"""Metrics that need the probability of the positive class."""


def _experiments(config: Config, serving: Collection[str]) -> Iterator[Problem]:
    names: dict[str, int] = {}
    arms = {challenger.name for challenger in config.challengers}
    models = {model.name for model in config.models}
    unread = models - {model.name for model in config.models if model.read}
    for index, experiment in enumerate(config.experiments):
        path = f"experiments[{index}]"
        first = names.setdefault(experiment.name, index)
        if first != index:
            yield f"{path}.name", f"{experiment.name!r} is already experiments[{first}]"
        for number, name in enumerate(experiment.challengers):
            if name not in arms:
                yield f"{path}.challengers[{number}]", f"there is no challenger {name!r}"
        for unit, name in experiment.overrides.items():
            if name not in (config.champion.name, *experiment.challengers):
                yield f"{path}.overrides.{unit}", f"{name!r} is not an arm of this experiment"
        name = experiment.model or config.models[0].name
        if any(model.name == name and model.match is not None for model in config.models):
            yield f"{path}.model", "must be one model: list it by its name in `models`"
        if experiment.model is None and len(models) > 1:
            yield f"{path}.model", "is required: there is more than one model"
        elif experiment.model is not None and experiment.model not in models:
            yield f"{path}.model", f"model {experiment.model!r} is not configured"
        for before in config.experiments[:index]:
            if before.name != experiment.name:
                found = together(config, before, experiment, serving)
                yield from ((f"{path}.{where}", what) for where, what in found)
        model = experiment.model or (config.models[0].name if config.models else "")
        rules = _rules(experiment, model if model in unread else "")
        yield from ((f"{path}.{where}", what) for where, what in rules)


def together(
    config: Config, one: Experiment, other: Experiment, serving: Collection[str]
) -> Iterator[Problem]:
    """Why ``other`` cannot run beside ``one``, which was there before; ``serving`` as in
    :func:`problems_of`."""
    first = config.models[0].name if config.models else ""
    model = other.model or first
    routing = [each.routes or each.name in serving for each in (one, other)]
    if (one.model or first) != model or not all(routing):
        return
    both = f"{one.name!r} and {other.name!r}"
    if one.unit != other.unit:
        yield (
            "unit",
            f"{both} split the requests of {model!r} by different units ({_unit(one)} and "
            f"{_unit(other)}): declare the same unit in both",
        )
    for unit in sorted(one.overrides.keys() & other.overrides.keys()):
        if one.overrides[unit] != other.overrides[unit]:
            yield (
                f"overrides.{unit}",
                f"{both} send this unit to {one.overrides[unit]!r} and to "
                f"{other.overrides[unit]!r}: remove one of the two",
            )
    both_split = all(each.mode != "shadow" or each.name in serving for each in (one, other))
    if both_split and max(one.slice[0], other.slice[0]) < min(one.slice[1], other.slice[1]):
        yield (
            "slice",
            f"{one.name!r} (slice {_ends(one)}) and {other.name!r} (slice {_ends(other)}) split "
            f"the same requests of {model!r}: give them separate slices, such as slice: [0, 0.5] "
            f"for {one.name!r} and slice: [0.5, 1] for {other.name!r}, or end {one.name!r} first",
        )
    sharing = [
        each for each in config.experiments if each.routes and (each.model or first) == model
    ]
    numbers = len(sharing) * (len(arm_names(config)) + 1)
    if numbers > _MOST_NUMBERS and sharing[-1] is other and sharing[0] is one:
        yield (
            "model",
            f"{len(sharing)} experiments with {len(arm_names(config))} arms split the requests of "
            f"{model!r}, from {one.name!r} to {other.name!r}: experiments times arms must stay "
            f"below {_MOST_NUMBERS}",
        )


def _ends(experiment: Experiment) -> str:
    return f"[{experiment.slice[0]:g}, {experiment.slice[1]:g}]"


def _unit(experiment: Experiment) -> str:
    return " ".join(filter(None, (experiment.unit.by, experiment.unit.name)))


def _rules(experiment: Experiment, unread: str) -> Iterator[Problem]:
    """Faults of its metrics; ``unread`` is its model if that has ``read: false``, else ""."""
    # Imported here: the statistics import numpy and scipy, which a supervisor without experiments
    # does not need.
    from understudy.monitor.config.rules import rules_of, stages_of
    from understudy.shadow.experiment import ExperimentError
    from understudy.shadow.rollout import RolloutError

    try:
        rules = rules_of(experiment)
        for challenger in experiment.challengers:
            stages_of(experiment, challenger)
    except ExperimentError as error:
        yield error.path, error.problem
        return
    except RolloutError as error:
        yield "stages", str(error)
        return
    for hypothesis in rules.hypotheses:
        metric = hypothesis.metric
        if unread and (metric.reads_answers or hypothesis.covariate):
            needed = f"{hypothesis.name} needs payloads, and model {unread!r} has read: false"
            yield "metrics", needed
        labels = metric.needs == "labels" and metric.column != "reward"
        if labels and experiment.label is None:
            yield (
                "label",
                f"is required by {metric.name}: name the prediction to compare with the label",
            )
        how = experiment.label
        if metric.name in _OF_SCORES and how and not how.score and how.threshold is None:
            needed = f"is required by {metric.name}: name the output with the probability"
            yield "label.score", needed
        if hypothesis.earlier and (experiment.unit.by == "request" or experiment.mode != "canary"):
            needed = "needs a canary, whose shadow stage comes first, and units that return"
            yield f"metrics: earlier of {metric.name}", needed
        if metric.needs == "units" and experiment.unit.by == "request":
            yield "unit", f"is required by {metric.name}: name the users or sessions to sum over"
        if hypothesis.metric.name == "cost" and not experiment.cost:
            yield "cost", "is required by the metric cost"


def _rewrites(config: Config) -> Iterator[Problem]:
    """Rewrites that no inference request is subject to, as after a typing error."""
    paths = [path.partition("*")[0] for model in config.models for path in paths_of(model)]
    for path, upstream in _upstreams(config).items():
        for old in upstream.rewrite_path:
            if not any(one.startswith(old) or old.startswith(one) for one in paths):
                yield f"{path}.rewrite_path", f"{old!r} is the beginning of no model's path"


def _addresses(config: Config) -> Iterator[Problem]:
    for path, upstream in _upstreams(config).items():
        address = server_address(upstream.url)
        if (upstream.http2 or address.http2) and importlib.util.find_spec("ngh2") is None:
            yield (
                f"{path}.url",
                "HTTP/2 needs the package ngh2, which has wheels for CPython on x86-64 and ARM64: "
                "pip install ngh2",
            )
        socket = address.socket
        if socket is not None and len(os.fsencode(socket)) > _LONGEST_SOCKET:
            yield (
                f"{path}.url",
                f"the path of a Unix socket has at most {_LONGEST_SOCKET} bytes: {socket!r}",
            )
    control = config.control
    if not control.loopback and control.token_env is None:
        yield (
            "control.listen",
            f"{control.listen!r} is reachable from other machines: name the environment variable "
            "with the bearer token in control.token_env, or listen on 127.0.0.1",
        )
    if split_address(control.listen)[1] and control.listen == config.listen.address:
        yield "control.listen", f"{control.listen!r} is already the address of listen"


def _certificates(config: Config) -> Iterator[Problem]:
    tls = config.listen.tls
    if tls is not None:
        files = _given(tls, "certificate", "key", "client_ca")
        missing = list(_unreadable("listen.tls", files))
        yield from missing or (
            *_unusable("listen.tls", tls.certificate, tls.key),
            *_not_authorities("listen.tls.client_ca", tls.client_ca),
        )
    for path, upstream in _upstreams(config).items():
        own = upstream.tls
        if own is None:
            continue
        missing = list(_unreadable(f"{path}.tls", _given(own, "ca", "certificate", "key")))
        if missing:
            yield from missing
            continue
        yield from _not_authorities(f"{path}.tls.ca", own.ca)
        if own.certificate is not None and own.key is not None:
            yield from _unusable(f"{path}.tls", own.certificate, own.key)


def _upstreams(config: Config) -> dict[str, Upstream]:
    """The model servers by path."""
    return {"champion": config.champion} | {
        f"challengers[{index}]": challenger for index, challenger in enumerate(config.challengers)
    }


def _given(section: ListenTls | UpstreamTls, *keys: str) -> dict[str, str]:
    """The file names that are given."""
    return {key: name for key in keys if (name := getattr(section, key)) is not None}


def _not_authorities(path: str, name: str | None) -> Iterator[Problem]:
    if name is None:
        return
    try:
        ssl.create_default_context(cafile=name)
    except (OSError, ssl.SSLError):
        yield path, f"{name!r} does not contain a PEM certificate"


def _baselines(config: Config) -> Iterator[Problem]:
    """Faults that the header of a baseline shows; the evaluation plane reads the rest."""
    for index, model in enumerate(config.models):
        if model.baseline is None:
            continue
        path = f"models[{index}].baseline"
        missing = list(_unreadable(f"models[{index}]", {"baseline": model.baseline}))
        if missing:
            yield from missing
            continue
        try:
            with open(model.baseline, "rb") as file:
                found = json.load(file)
            kind = found.get("format")
        except (ValueError, AttributeError):
            kind = None
        if kind != "understudy-baseline":
            yield (
                path,
                f"{model.baseline!r} is not a baseline; build one: understudy baseline build",
            )
            continue
        for name, wanted in (("model", model.name), ("model_version", model.version)):
            have = found.get(name)
            if have and wanted and have != wanted:
                yield path, f"is for {name.replace('_', ' ')} {have!r}, not for {wanted!r}"


def _unreadable(path: str, files: Mapping[str, str]) -> Iterator[Problem]:
    for key, name in files.items():
        try:
            with open(name, "rb") as file:
                file.read(1)
        except OSError as error:
            yield f"{path}.{key}", f"{name!r} cannot be read: {error.strerror}"


def _unusable(path: str, certificate: str, key: str) -> Iterator[Problem]:
    try:
        # Without a password argument OpenSSL would prompt for one.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "reason", None) or str(error)
        yield (
            path,
            f"{certificate!r} and {key!r} are not a PEM certificate and its key "
            f"without a password ({reason.lower().replace('_', ' ')})",
        )
