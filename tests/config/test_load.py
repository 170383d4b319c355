"""Bad files are refused with the path of the fault and a message that helps; good ones load."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.certificates import self_signed
from understudy.monitor.config.checks import problems_at_start
from understudy.monitor.config.load import load, parse
from understudy.monitor.errors import ConfigError

HEAD = 'version: 1\nlisten: "127.0.0.1:8080"\n'
MODELS = "models: [{name: m}]\n"
CHAMPION = 'champion: {url: "http://127.0.0.1:8081"}\n'
GOOD = HEAD + MODELS + CHAMPION


def champion(more: str) -> str:
    return HEAD + MODELS + "champion: {" + more + "}\n"


def challenger(more: str) -> str:
    return GOOD + 'challengers: [{name: a, url: "http://h", ' + more + "}]\n"


def models(more: str) -> str:
    return HEAD + "models: [" + more + "]\n" + CHAMPION


def problems(text: str, base: Path = Path("/nowhere")) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "f.yaml", base)
    found = dict(caught.value.problems)
    assert len(found) == len(caught.value.problems)
    assert all("\n" not in message for message in found.values())
    return found


BAD = [
    # keys
    (GOOD + "limitz: {}\n", "limitz", "did you mean 'limits'"),
    (challenger("sockets: 3"), "challengers[0].sockets", "known: credentials, headers, host"),
    (GOOD + "unheard: 1\n", "unheard", "known: capture, challengers, champion"),
    (challenger("mirror: {braker: {}}"), "challengers[0].mirror.braker", "mean 'breaker'"),
    (challenger("mirror: {queue: {byte: 1}}"), "challengers[0].mirror.queue.byte", "mean 'bytes'"),
    (models("{name: m, jsn: {}}"), "models[0].jsn", "did you mean 'json'"),
    (HEAD + MODELS, "champion", "is required"),
    (GOOD + "challengers: [{url: 'http://h'}]\n", "challengers[0].name", "is required"),
    (GOOD + "challengers:\n", "challengers", "is empty"),
    # version, scalars
    (GOOD.replace("version: 1", "version: 2"), "version", "must be 1 (found 2)"),
    (GOOD.replace("version: 1", "version: '1'"), "version", "must be 1 (found '1')"),
    (models("{name: m, version: 1}"), "models[0].version", "write it in quotes (found 1)"),
    (GOOD + "state_dir: 2020-01-01\n", "state_dir", "write it in quotes"),
    (GOOD + "state_dir: ''\n", "state_dir", "not a valid file name"),
    (models("{name: m, features: abc}"), "models[0].features", "must be a list (found 'abc')"),
    (models("{name: m, features: [a, a]}"), "models[0].features", "duplicate entry 'a'"),
    (models(""), "models", "at least one entry"),
    (
        models("m"),
        "models[0]",
        "must be a mapping with baseline, between_bytes, classes, cost, features",
    ),
    # addresses
    (GOOD.replace('"127.0.0.1:8080"', "8080"), "listen", "must be host:port, or a mapping"),
    (GOOD.replace(":8080", ":80800"), "listen", "not a valid address: '127.0.0.1:80800'"),
    (GOOD.replace("127.0.0.1:8080", ":8080"), "listen", "not a valid address: ':8080'"),
    (GOOD.replace("127.0.0.1:8080", "::1:8080"), "listen", "[::1]:8080"),
    (GOOD + "control: {listen: 'a b:1'}\n", "control.listen", "not a valid address"),
    (GOOD + "control: {listen: '127.0.0.1:8080'}\n", "control.listen", "address of listen"),
    # numbers
    (challenger("mirror: {rate: 1.5}"), "challengers[0].mirror.rate", "equal to 1 (found 1.5)"),
    (challenger("mirror: {rate: -0.1}"), "challengers[0].mirror.rate", "equal to 0 (found -0.1)"),
    (challenger("mirror: {rate: .nan}"), "challengers[0].mirror.rate", "finite"),
    (challenger("mirror: {rate: true}"), "challengers[0].mirror.rate", "number (found True)"),
    (challenger("mirror: {rate: '1'}"), "challengers[0].mirror.rate", "number (found '1')"),
    (challenger("mirror: {connections: 0}"), "challengers[0].mirror.connections", "equal to 1"),
    (GOOD + "workers: 0\n", "workers", "0 must be auto, or a number from 1 to 256"),
    (GOOD + "workers: true\n", "workers", "True must be auto"),
    (GOOD + "workers: many\n", "workers", "'many' must be auto"),
    # units
    (GOOD + "limits: {drain: 5 sec}\n", "limits.drain", "(examples: 30s, 5m)"),
    (GOOD + "limits: {drain: 0}\n", "limits.drain", "must be greater than 0 (found 0)"),
    (GOOD + "limits: {drain: .inf}\n", "limits.drain", "found inf"),
    (GOOD + "limits: {drain: 31d}\n", "limits.drain", "equal to 2592000"),
    (GOOD + f"limits: {{drain: 1{'0' * 400}}}\n", "limits.drain", "not a valid duration"),
    (GOOD + "limits: {head: 3MB}\n", "limits.head", "(examples: 256KiB, 16MiB)"),
    (GOOD + "limits: {head: 1.5}\n", "limits.head", "not a valid size: 1.5"),
    (GOOD + "limits: {head: 64KiB}\n", "limits.head", "equal to 61440B (found '64KiB')"),
    # URLs
    (champion("url: 'ftp://h'"), "champion.url", "not a valid URL: 'ftp://h' (write http://"),
    (champion("url: 'http://'"), "champion.url", "not a valid URL"),
    (champion("url: 'http://h/?a=b'"), "champion.url", "query or fragment"),
    (champion("url: 'http://h:0'"), "champion.url", "the port must be from 1 to 65535"),
    (champion("url: 'http://h:65536'"), "champion.url", "the port must be from 1 to 65535"),
    (champion("url: 'http://[::1'"), "champion.url", "not a valid URL"),
    (champion("url: 'http://[1:2]'"), "champion.url", "not a valid IPv6 address"),
    (champion("url: 'http://h/a b'"), "champion.url", "without spaces"),
    (champion("url: 'http://h/é'"), "champion.url", "in ASCII"),
    (champion(r'url: "http://h/a\r\nx: y"'), "champion.url", "not a valid URL"),
    (champion(r'url: "http://h\n"'), "champion.url", "not a valid URL"),
    (champion("url: 'unix:'"), "champion.url", "not a valid Unix socket: 'unix:' (write unix:/run"),
    (champion("url: 'unix:/a:b'"), "champion.url", "not a valid Unix socket"),
    (champion("url: 'unix:/a:/b c'"), "champion.url", "not a valid Unix socket"),
    (champion("url: 'unix:/a:/b?c'"), "champion.url", "not a valid Unix socket"),
    (champion(f"url: 'unix:/{'a' * 107}'"), "champion.url", "at most 107 bytes"),
    (champion("url: 'unix:/a', tls: {verify: false}"), "champion", "url is not https"),
    (champion("url: 'https://h', tls: {key: k.pem}"), "champion.tls", "belong together"),
    (champion("url: 'http://h', max_age: 0"), "champion.max_age", "must be"),
    (champion("url: 'http://h', resolve: never"), "champion.resolve", "not a valid duration"),
    (models("{name: m, retry: POST}"), "models[0].retry", "must be a valid boolean"),
    # headers and hosts
    (challenger("headers: {'a b': x}"), "challengers[0].headers.a b", "not a valid header name"),
    (
        challenger(r'headers: {a: "b\r\nc: d"}'),
        "challengers[0].headers.a",
        "not a valid header value",
    ),
    (challenger("headers: {a: 5}"), "challengers[0].headers.a", "must be text, or a mapping"),
    (challenger("headers: {Content-Length: '5'}"), "challengers[0]", "content-length is set by"),
    (challenger(r'host: "a\nb"'), "challengers[0].host", "not a valid header value"),
    (GOOD + "capture: {headers: ['a:b']}\n", "capture.headers[0]", "not a valid header name"),
    # models
    (models("{name: 'a b'}"), "models[0].name", "match pattern"),
    (models("{name: other}"), "models[0].name", "'other' is reserved"),
    (models("{name: m, protocol: kserve-v2}"), "models[0].protocol", "did you mean 'kserve-v1'"),
    (models("{name: m, protocol: json}"), "models[0]", "needs the json mapping"),
    (
        models("{name: m, json: {features: {a: /a}, predictions: {b: /b}}}"),
        "models[0]",
        "needs protocol json, not auto",
    ),
    (
        models("{name: m, protocol: json, json: {features: {a: /a}, predictions: {b: /b}}}"),
        "models[0]",
        "needs paths",
    ),
    (
        models("{name: m, protocol: json, json: {features: {a: x}, predictions: {b: /b}}}"),
        "models[0].json.features.a",
        "match pattern",
    ),
    (
        models("{name: m, protocol: json, json: {features: {}, predictions: {b: /b}}}"),
        "models[0].json.features",
        "at least",
    ),
    (models("{name: m, paths: [a]}"), "models[0].paths[0]", "start with /"),
    (models("{name: m, paths: ['/a?b']}"), "models[0].paths[0]", "not a valid path"),
    (models("{name: m, paths: ['/a*']}"), "models[0].paths[0]", "a whole segment"),
    (models("{name: m, paths: []}"), "models[0].paths", "at least one"),
    (models("{name: m}, {name: m}"), "models[1].name", "'m' is already models[0]"),
    (models("{name: m}, {name: m, version: '2'}"), "models[1].paths", "an earlier model"),
    (
        models("{name: m, paths: [/a]}, {name: n, paths: [/b, /a]}"),
        "models[1].paths[1]",
        "'/a' already belongs to models[0]",
    ),
    # arms
    (challenger("name: champion").replace("name: a, ", ""), "challengers[0].name", "of champion"),
    (
        GOOD + "challengers: [{name: a, url: 'http://h'}, {name: a, url: 'http://i'}]\n",
        "challengers[1].name",
        "'a' is already the name of challengers[0]",
    ),
    (challenger("tls: {verify: false}"), "challengers[0]", "url is not https"),
    (
        challenger("mirror: {breaker: {open: 90s}}"),
        "challengers[0].mirror.breaker",
        "max_open (60 s) must not be shorter than open (90 s)",
    ),
    (
        GOOD + "evaluation: {prediction_buckets: [1, 1]}\n",
        "evaluation.prediction_buckets",
        "must be strictly increasing",
    ),
    # control
    (GOOD + "control: {listen: '0.0.0.0:9090'}\n", "control.listen", "name the environment"),
    (GOOD + "control: {listen: '[::]:9090'}\n", "control.listen", "reachable from other machines"),
]


@pytest.mark.parametrize(("text", "path", "message"), BAD, ids=[f"{p}-{m}" for _, p, m in BAD])
def test_messages_name_the_key_the_value_and_the_valid_values(
    text: str, path: str, message: str
) -> None:
    found = problems(text)
    assert list(found) == [path]
    assert message in found[path]


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        (GOOD + "\tlimits: {}\n", "line 5, column 1", "indent with spaces"),
        (GOOD + "limits: {head: 1\n", "line 6, column 1", "a closing bracket is missing"),
        (GOOD + "version: 1\n", "line 5, column 1", "duplicate key 'version'"),
        (
            GOOD + "limits: {head: 4096, head: 2048}\n",
            "line 5, column 22",
            "duplicate key 'head'",
        ),
        (GOOD + "1: 2\n", "line 5, column 1", "the key 1 is not text"),
        (GOOD + "limits: !!python/object:os.system {}\n", "line 5, column 9", "is not known"),
        (GOOD + "limits: &a {x: *a}\n", "line 5, column 9", "recursive"),
        (GOOD + "---\n" + GOOD, "line 5, column 1", "another document"),
    ],
)
def test_faults_of_yaml_name_line_and_column(text: str, where: str, message: str) -> None:
    found = problems(text)
    assert list(found) == [""]
    assert found[""].startswith(where)
    assert message in found[""]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be a mapping"),
        ("- a\n", "must be a mapping"),
        ("a: \x00\n", "is not valid YAML"),
        (GOOD + "limits: {head: " + "9" * 5000 + "}\n", "is not valid YAML"),
        (GOOD + "x: " + "[" * 5000, "nested too deeply"),
    ],
)
def test_files_that_are_not_a_configuration(text: str, message: str) -> None:
    assert message in problems(text)[""]


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        (GOOD + "control: {token: s3cret}\n", "control.token", "name that in token_env"),
        (GOOD + "control: {token_env: 's3cret!'}\n", "control.token_env", "environment variable"),
        (champion("url: 'http://u:s3cret@h'"), "champion.url", "credentials"),
        (
            challenger("password: s3cret"),
            "challengers[0].password",
            "secrets must not be in the file",
        ),
    ],
)
def test_secrets_are_refused_and_not_repeated(text: str, path: str, message: str) -> None:
    found = problems(text)
    assert message in found[path]
    assert "s3cret" not in found[path]


def test_all_problems_are_reported_at_once() -> None:
    text = GOOD + "limits: {heda: 1, drain: x}\nfoo: 1\n"
    assert set(problems(text)) == {"limits.heda", "limits.drain", "foo"}


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "missing.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(tmp_path / "latin.yaml")


def test_merged_and_repeated_nodes_are_allowed() -> None:
    text = GOOD + (
        "challengers:\n"
        '  - &first {name: a, url: "http://h", mirror: {rate: 0.25}}\n'
        "  - {<<: *first, name: b}\n"
    )
    first, second = parse(text, "f.yaml", Path("/")).challengers
    assert (first.name, second.name) == ("a", "b")
    assert first.mirror == second.mirror


def test_an_open_control_address_needs_a_token_that_is_set() -> None:
    text = GOOD + "control: {listen: '0.0.0.0:9090', token_env: A_TOKEN}\n"
    config = parse(text, "f.yaml", Path("/"))
    assert problems_at_start(config, {"A_TOKEN": "x"}) == []
    for environment in ({}, {"A_TOKEN": ""}):
        ((path, message),) = problems_at_start(config, environment)
        assert path == "control.token_env"
        assert "A_TOKEN is not set" in message


def test_on_loopback_the_variable_may_be_missing() -> None:
    for address in ("127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1"):
        text = GOOD + f"control: {{listen: '{address}', token_env: A_TOKEN}}\n"
        assert problems_at_start(parse(text, "f.yaml", Path("/")), {}) == []


# Files ------------------------------------------------------------------------------------------


def listening(certificate: str, key: str) -> str:
    tls = f"{{certificate: {certificate}, key: {key}}}"
    return GOOD.replace('"127.0.0.1:8080"', f"{{address: '127.0.0.1:8080', tls: {tls}}}")


def test_file_names_are_relative_to_the_file_and_must_exist(tmp_path: Path) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    self_signed(folder, "a", "localhost")
    (folder / "f.yaml").write_text(listening("a.pem", "a.key") + "state_dir: ../state\n")
    config = load(folder / "f.yaml")
    assert config.listen.tls is not None
    assert config.listen.tls.certificate == str(folder / "a.pem")
    assert Path(config.state_dir).resolve() == tmp_path / "state"

    found = problems(listening("b.pem", "b.key"), folder)
    assert set(found) == {"listen.tls.certificate", "listen.tls.key"}
    assert found["listen.tls.key"] == f"'{folder / 'b.key'}' cannot be read: " + (
        "No such file or directory"
    )


def test_certificate_and_key_must_fit(tmp_path: Path) -> None:
    self_signed(tmp_path, "a", "localhost")
    self_signed(tmp_path, "b", "localhost")
    assert (
        "not a PEM certificate and its key"
        in problems(listening("a.pem", "b.key"), tmp_path)["listen.tls"]
    )


def test_a_key_with_a_password_is_rejected_without_a_prompt(tmp_path: Path) -> None:
    self_signed(tmp_path, "a", "localhost", password=b"secret")
    assert "without a password" in problems(listening("a.pem", "a.key"), tmp_path)["listen.tls"]


def test_the_certificate_for_a_model_server_must_fit_its_key(tmp_path: Path) -> None:
    self_signed(tmp_path, "a", "h")
    self_signed(tmp_path, "b", "h")
    tls = "{certificate: a.pem, key: %s}"
    text = GOOD + f'challengers: [{{name: a, url: "https://h", tls: {tls}}}]\n'
    path = "challengers[0].tls"
    assert "cannot be read" in problems(text % "c.key", tmp_path)[f"{path}.key"]
    assert "not a PEM certificate and its key" in problems(text % "b.key", tmp_path)[path]
    arm = parse(text % "a.key", "f.yaml", tmp_path).challengers[0]
    assert arm.tls is not None
    assert (arm.tls.certificate, arm.tls.key) == (str(tmp_path / "a.pem"), str(tmp_path / "a.key"))


def test_authorities_of_clients_must_be_certificates(tmp_path: Path) -> None:
    self_signed(tmp_path, "a", "h")
    tls = "{certificate: a.pem, key: a.key, client_ca: %s}"
    text = GOOD.replace('"127.0.0.1:8080"', f"{{address: '127.0.0.1:8080', tls: {tls}}}")
    assert "cannot be read" in problems(text % "c.pem", tmp_path)["listen.tls.client_ca"]
    message = problems(text % "a.key", tmp_path)["listen.tls.client_ca"]
    assert "does not contain a PEM certificate" in message
    listen = parse(text % "a.pem", "f.yaml", tmp_path).listen
    assert listen.tls is not None
    assert listen.tls.client_ca == str(tmp_path / "a.pem")


def test_the_path_of_a_unix_socket_is_relative_to_the_file() -> None:
    def url(text: str) -> str:
        return parse(champion(f"url: '{text}'"), "f.yaml", Path("/base")).champion.url

    assert url("unix:run/model.sock") == "unix:/base/run/model.sock"
    assert url("unix:model.sock:/v2/") == "unix:/base/model.sock:/v2/"
    assert url("unix:/run/model.sock") == "unix:/run/model.sock"


def test_authorities_must_be_certificates(tmp_path: Path) -> None:
    text = GOOD + 'challengers: [{name: a, url: "https://h", tls: {ca: ca.pem}}]\n'
    path = "challengers[0].tls.ca"
    assert "cannot be read" in problems(text, tmp_path)[path]
    (tmp_path / "ca.pem").write_text("nothing of the kind")
    assert "does not contain a PEM certificate" in problems(text, tmp_path)[path]
    self_signed(tmp_path, "ca", "localhost")
    (arm,) = parse(text, "f.yaml", tmp_path).challengers
    assert arm.tls is not None
    assert arm.tls.ca == str(tmp_path / "ca.pem")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("{", "is not a baseline"),
        ("[]", "is not a baseline"),
        ('{"format": "understudy-baseline", "model": "other"}', "for model 'other', not for 'm'"),
        ('{"format": "understudy-baseline", "model_version": "2"}', "version '2', not for '1'"),
    ],
)
def test_an_invalid_baseline_is_rejected(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "b.json").write_text(content)
    path = tmp_path / "understudy.yaml"
    path.write_text(
        "version: 1\nlisten: 127.0.0.1:0\nchampion: {url: 'http://127.0.0.1:1'}\n"
        "models: [{name: m, version: '1', baseline: b.json}]\n"
    )
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert [p for p, _ in caught.value.problems] == ["models[0].baseline"]
    assert message in caught.value.problems[0][1]
