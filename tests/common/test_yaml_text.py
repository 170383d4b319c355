"""What is wrong in a YAML text is said in plain words, whichever parser of PyYAML reads it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from understudy.common.yaml_text import YamlError, checked, read_yaml
from understudy.monitor.cli.main import main

FAULTS = {
    "a: b: c": "line 1, column 5: not valid YAML: a ': ' does not fit here: put text that has one in "
    "quotes, or check the indentation",
    "a:\n\tb: 1": "put text in quotes, and indent with spaces",
    "a: @x": "put text in quotes, and indent with spaces",
    "a: [1, 2": "a ',' or a closing bracket is missing",
    "a: {b: 1": "a ',' or a closing bracket is missing",
    "a: 'x\nb: 1\n": "a quote is not closed",
    "- a\nb: 1\n": "line 2, column 1: not valid YAML: the indentation does not fit the lines before",
    "k: |\n  a\n b\n": "the indentation does not fit the lines before",
    "a: *x": "is not defined: an anchor (&name) stands before its aliases (*name)",
    "a: ]": "a value is missing",
    'a: "\\d"': "not a valid escape in double quotes",
    "a: !Ref x": "line 1, column 4: the tag '!Ref' is not known",
    "{a: 1}}": "the document has ended before: '---' begins another one",
}


@pytest.mark.parametrize("text", FAULTS)
@pytest.mark.parametrize("parser", ["SafeLoader", "CSafeLoader"])
def test_faults_are_in_plain_words(text: str, parser: str) -> None:
    if not hasattr(yaml, parser):
        pytest.skip(f"NOT TESTED: PyYAML without libyaml has no {parser}")
    loader = getattr(yaml, parser)
    with pytest.raises(YamlError) as plain:
        checked(lambda: yaml.load(text, Loader=loader))  # noqa: S506  # both are safe
    with pytest.raises(yaml.MarkedYAMLError) as raw:
        yaml.load(text, Loader=loader)  # noqa: S506
    message = str(plain.value)
    assert message.startswith("line ")
    # libyaml puts what is open at the end on another line and column.
    assert FAULTS[text].rpartition("not valid YAML: ")[2] in message
    assert str(raw.value.problem) not in message


def test_the_line_is_that_of_the_whole_file() -> None:
    with pytest.raises(YamlError, match=r"^line 41, column 5: "):
        checked(lambda: yaml.safe_load("a: b: c"), 40)


def test_a_fault_that_is_not_known_keeps_its_words() -> None:
    with pytest.raises(YamlError, match="incompatible YAML document"):
        read_yaml("%YAML 3.0\n---\na")


@pytest.mark.parametrize("text", FAULTS)
def test_the_sidecar_of_the_injector_is_read_in_the_same_way(tmp_path: Path, text: str) -> None:
    (tmp_path / "sidecar.yaml").write_text(text)
    done = CliRunner().invoke(
        main, ["inject", "file", "-", "--sidecar", str(tmp_path / "sidecar.yaml")], input=""
    )
    assert done.exit_code == 2
    assert FAULTS[text] in done.output.replace("\n", " ")
