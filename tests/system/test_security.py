"""Each promise of SECURITY.md names the test that keeps it; that test is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = re.findall(r"^\| (.+?) \| (.+?) \| (.*?) \|$", (ROOT / "SECURITY.md").read_text(), re.MULTILINE)[2:]


def test_there_are_promises():
    assert len(ROWS) >= 20


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1])
def test_every_promise_names_a_test_that_is_there(row):
    (named,) = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row[2])
    tree = ast.parse((ROOT / named[0]).read_text())
    assert named[1] in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
