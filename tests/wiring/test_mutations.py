"""The table of mutations fits the tree: `make mutations` runs them, which takes a while."""

from __future__ import annotations

import re

import pytest

from tools.mutations import MUTATIONS, ROOT, Mutation


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_fragment_stands_in_its_file_once(mutation: Mutation) -> None:
    text = (ROOT / mutation.file).read_text(encoding="utf-8")
    changed = mutation.mutated(text)
    assert changed != text
    compile(changed, mutation.file, "exec")


def test_the_tests_that_must_fail_exist() -> None:
    for mutation in MUTATIONS:
        assert mutation.tests
        for test in mutation.tests:
            file, _, name = test.partition("::")
            text = (ROOT / file).read_text(encoding="utf-8")
            assert re.search(rf"^(async )?def {name}\(", text, re.MULTILINE), test


def test_no_mutation_stands_there_twice() -> None:
    seen = [(mutation.file, mutation.fragment, mutation.replacement) for mutation in MUTATIONS]
    assert len(set(seen)) == len(seen)
