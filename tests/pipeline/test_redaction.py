"""No rule can be got around by where a field stands."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.monitor.records.redaction import REDACTED, Redaction, Shown


@pytest.mark.parametrize(
    ("rule", "path", "hidden"),
    [
        ("ssn", "ssn", True),
        ("ssn", "SSN", True),
        ("ssn", "customer.ssn", True),
        ("ssn", "ssn.digits", True),
        ("ssn", "a.ssn.b", True),
        ("ssn", "ssn2", False),
        ("customer.*", "customer.age", True),
        ("customer.*", "order.customer.age", True),
        ("customer.*", "customer", False),
        ("*_id", "user_id", True),
        ("*_id", "user.account_id.value", True),
        ("p[0-9]", "p3", True),
        ("a", "b", False),
    ],
)
def test_what_a_rule_hides(rule: str, path: str, hidden: bool) -> None:
    assert Redaction([rule]).hides(path) is hidden


def test_without_rules_nothing_is_hidden() -> None:
    data = {"ssn": 1, "inputs": [{"name": "ssn", "data": [1]}], "columns": ["ssn"]}
    assert Redaction([]).payload(data) == Shown(data, ())


def test_credentials_in_payloads_are_hidden_without_rules() -> None:
    inner = '{"client_secret": "s3cret", "x": 1}'
    data = {
        "user": {"API-Key": "s3cret", "name": "Ada", "Password": "s3cret"},
        "auth": [{"access_token": "s3cret"}, {"token": "Hel", "max_tokens": 5, "key": "de"}],
        "inputs": [{"name": "refresh_token", "data": ["s3cret"]}, {"name": "x", "data": [1]}],
        "note": inner,
        "labels": ["password", "secret"],
    }
    shown = Redaction([]).payload(data)
    assert "s3cret" not in repr(shown)
    assert shown.hits == ()
    assert {key for _, key in shown.credentials} == {
        "API-Key", "Password", "access_token", "refresh_token", "note"
    }  # fmt: skip
    # What models read and write stays, and a value that is called like a credential is none.
    assert shown.data["auth"][1] == data["auth"][1]  # type: ignore[index]
    assert shown.data["labels"] == data["labels"]
    assert shown.data["user"]["name"] == "Ada"
    assert shown.data["inputs"][1]["data"] == [1]


def test_configured_names_of_credentials_are_hidden_in_payloads() -> None:
    redaction = Redaction(["ssn"], credential_query=["pin"], credential_headers=["x-tenant-*"])
    shown = redaction.payload({"pin": 1234, "deep": {"X-Tenant-Code": 5}, "ssn": 6, "x": 7})
    assert shown.data == {
        "pin": REDACTED, "deep": {"X-Tenant-Code": REDACTED}, "ssn": REDACTED, "x": 7
    }  # fmt: skip
    # They are no column of the model that a rule means: the others stay.
    assert shown.covered_by(["ssn"])


@pytest.mark.parametrize("name", ["api_key", "user.password", "JWT", "x-auth-token"])
def test_a_column_that_is_a_credential_is_hidden(name: str) -> None:
    redaction = Redaction([])
    assert redaction.hides(name)
    assert redaction.columns({name: ["s3cret"], "token": ["Hel"]}) == {
        name: REDACTED,
        "token": "Hel",
    }


def test_keys_at_any_depth_and_tensors_by_name() -> None:
    redaction = Redaction(["ssn", "customer.*"])
    data = {
        "rows": [{"ssn": "1", "x": 2}, {"deep": [{"customer": {"age": 3}}]}],
        "inputs": [
            {"name": "ssn", "shape": [1], "data": [[9]]},
            {"name": "x", "shape": [1], "data": [1]},
        ],
    }
    shown = redaction.payload(data)
    assert shown.data == {
        "rows": [{"ssn": REDACTED, "x": 2}, {"deep": [{"customer": {"age": REDACTED}}]}],
        "inputs": [
            {"name": "ssn", "shape": [1], "data": REDACTED},
            {"name": "x", "shape": [1], "data": [1]},
        ],
    }


def test_what_was_hidden_is_told() -> None:
    redaction = Redaction(["ssn", "customer.*"])
    shown = redaction.payload({"rows": [{"customer": {"Age": 3}}], "y": {"ssn": 1}})
    assert shown.hits == (("rows.customer.Age", "Age"), ("y.ssn", "ssn"))
    assert shown.covered_by(["age", "SSN"])
    assert not shown.covered_by(["age"])
    assert redaction.payload({"x": 1}).covered_by([])


@pytest.mark.parametrize(
    "data",
    [
        {"columns": ["ssn", "x"], "data": [[123, 4]]},
        {"dataframe_split": {"columns": ["x", "SSN"], "data": [[1, 123]]}},
        [{"field": "ssn", "value": 123}],
    ],
)
def test_a_name_that_points_elsewhere_withholds_the_whole_payload(data: object) -> None:
    shown = Redaction(["ssn"]).payload(data)
    assert shown.data == REDACTED
    assert not shown.covered_by([])


def test_a_payload_that_is_too_deep_is_withheld() -> None:
    data: object = 123
    for _ in range(100):
        data = [data]
    assert Redaction(["ssn"]).payload(data).data == REDACTED


def test_query_parameters() -> None:
    redaction = Redaction(["ssn"])
    assert redaction.target("/p?ssn=1&x=2&flag&s%73n=3") == (
        f"/p?ssn={REDACTED}&x=2&flag&s%73n={REDACTED}"
    )
    assert redaction.target("/p") == "/p"


SECRET = "the-secret"
values = st.recursive(
    st.one_of(st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text("abs.", max_size=4), inner, max_size=3)
    ),
    max_leaves=10,
)


def plant(data: object, at: int) -> object:
    """Put a secret under the key ``ssn`` somewhere inside."""
    if isinstance(data, dict):
        if at % 2 and data:
            key = sorted(data)[at % len(data)]
            return {**data, key: plant(data[key], at // 2)}
        return {**data, "ssn": {"inner": [SECRET]}}
    if isinstance(data, list) and data:
        place = at % len(data)
        return [*data[:place], plant(data[place], at // 2), *data[place + 1 :]]
    return {"ssn": SECRET}


@given(values, st.integers(0, 1000))
def test_a_secret_is_never_shown(data: object, at: int) -> None:
    assert SECRET not in repr(Redaction(["ssn"]).payload(plant(data, at)).data)


# Where a hidden value may stand besides under its key ---------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        f"/p?ssn={SECRET}",
        f"/p?%73sn={SECRET}",
        f"/p?%2573sn={SECRET}",
        f"/p?a=1;ssn={SECRET}",
        f"/p;ssn={SECRET}/x",
        f"/p?customer[ssn]={SECRET}",
        f"/p?customer%5Bssn%5D={SECRET}",
        f"/p?customer.ssn={SECRET}",
        f"/p?+SSN+={SECRET}",
        f"/p?%EF%BC%B3%EF%BC%B3%EF%BC%AE={SECRET}",
        f"/p?filter=%7B%22ssn%22%3A%22{SECRET}%22%7D",
        f"/p?filter=ssn%3A{SECRET}",
        f"/people/ssn/{SECRET}?x=1",
    ],
)
def test_a_hidden_value_in_a_target_is_not_shown(target: str) -> None:
    shown = Redaction(["ssn"]).target(target)
    assert SECRET not in shown
    assert REDACTED in shown
    assert Redaction(["other"]).target(target) == target


def test_the_rest_of_a_target_is_shown() -> None:
    redaction = Redaction(["ssn"])
    for target in ("/v2/models/a/infer?x=1&y=%20z&flag", "/a//b/?q", "/ssns/1?assn=2", "/", ""):
        assert redaction.target(target) == target


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ssn", SECRET),
        ("SSN", SECRET),
        ("x-ssn", SECRET),
        ("x-person", f"name=ada; ssn={SECRET}"),
        ("x-person", f'{{"a": [{{"ssn": "{SECRET}"}}]}}'),
        ("x-person", f"ssn: {SECRET}, age: 3"),
        ("authorization", f"Bearer {SECRET}"),
        ("Cookie", f"session={SECRET}"),
        ("x-api-key", SECRET),
    ],
)
def test_a_hidden_value_in_a_header_is_not_shown(name: str, value: str) -> None:
    assert SECRET not in Redaction(["ssn"]).header(name, value)


def test_credentials_are_hidden_without_any_rule() -> None:
    redaction = Redaction(())
    for name in ("Authorization", "x-functions-key", "X-Forwarded-Client-Cert", "x-amzn-oidc-data"):
        assert redaction.header(name, "Bearer x") == REDACTED
    assert redaction.header("x-segment", "ssn=1") == "ssn=1"


@pytest.mark.parametrize(
    "name", ["ＳＳＮ", " ssn ", "customer. ssn", "s\u200bsn", "s\u00adsn", "Ssn\t"]
)
def test_names_that_look_alike_are_the_same(name: str) -> None:
    redaction = Redaction(["ssn"])
    assert redaction.hides(name)
    assert SECRET not in repr(redaction.payload({"rows": [{name: SECRET}]}).data)
    assert Redaction([name]).hides("customer.ssn")


PLACES = {
    "json in a text": lambda inner: {"a": json.dumps(inner)},
    "json in a list of texts": lambda inner: {"data": [" " + json.dumps([inner])]},
    "json in json in a text": lambda inner: {"a": json.dumps({"b": json.dumps(inner)})},
    "object": lambda inner: {"a": inner},
    "list": lambda inner: [1, inner],
}


@given(
    values,
    st.integers(0, 1000),
    st.lists(st.sampled_from(sorted(PLACES)), max_size=3),
    st.sampled_from(["ssn", "SSN", "ｓｓｎ", "ssn "]),
)
def test_a_secret_is_shown_at_no_place_of_a_payload(
    data: object, at: int, places: list[str], name: str
) -> None:
    payload = json.loads(json.dumps(plant(data, at)).replace('"ssn"', json.dumps(name)))
    for place in places:
        payload = PLACES[place](payload)
    redaction = Redaction(["ssn"])
    shown = redaction.payload(payload)
    assert SECRET not in repr(shown.data)
    assert shown.hits
    assert redaction.touches({"column": payload})
    assert SECRET not in repr(redaction.columns({"column": [payload]}))


@given(st.text(max_size=30), st.sampled_from("&;, \n"), st.sampled_from(["=", ":", ": ", "="]))
def test_a_text_of_pairs_hides_the_value_of_a_hidden_name(
    text: str, between: str, mark: str
) -> None:
    assert SECRET not in Redaction(["ssn"]).text(f"{text}{between}ssn{mark}{SECRET}")


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/score?a=1&api_key=s3cret&b=2", "/score?a=1&api_key=[redacted]&b=2"),
        (
            "/score?KEY=s3cret;X-Amz-Signature=s3cret",
            "/score?KEY=[redacted];X-Amz-Signature=[redacted]",
        ),
        (
            "/score?k%65y=s3cret&a[access_token]=s3cret",
            "/score?k%65y=[redacted]&a[access_token]=[redacted]",
        ),
        ("/score?tenant=s3cret", "/score?tenant=[redacted]"),
        # Names that only look alike, and what is not in the query.
        (
            "/score?keys=1&monkey=2&max_tokens=3&=4&sig",
            "/score?keys=1&monkey=2&max_tokens=3&=4&sig",
        ),
        ("/key=1/token/x", "/key=1/token/x"),
        ("/score?", "/score?"),
    ],
)
@pytest.mark.parametrize("rules", [[], ["ssn"]])
def test_credentials_in_queries_are_hidden_without_a_rule(
    rules: list[str], target: str, shown: str
) -> None:
    assert Redaction(rules, credential_query=["tenant"]).target(target) == shown


def test_credentials_in_headers_are_those_that_challengers_do_not_get() -> None:
    redaction = Redaction([], credential_headers=["x-tenant*"])
    for name in ("Cookie", "x_api_key", "X-Goog-Api-Key", "private-token", "X-Tenant-Key"):
        assert redaction.header(name, "s3cret") == REDACTED
    for name in ("x-user", "x-max-tokens", "content-type"):
        assert redaction.header(name, "plain") == "plain"
