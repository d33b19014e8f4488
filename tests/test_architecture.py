"""ARCHITECTURE.md is true: every file, function and test that it names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
WALK = TEXT.split("## One I/O, stop by stop")[1].split("## What lives where")[0]
CONCEPTS = TEXT.split("## Concepts and the tests that show them")[1].split("## I/O-related instructions")[0]


def definitions(path: Path) -> set[str]:
    """Functions, classes and ``Class.method`` that a module defines."""
    names: set[str] = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ClassDef):
            names.add(node.name)
            members = [item.name for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)]
            names.update(f"{node.name}.{member}" for member in members)
    return names


def test_walk_names_files_that_exist() -> None:
    """Each path of the walk is a file of the package."""
    files = set(re.findall(r"`([a-z0-9_/]+\.(?:py|c))`", WALK))
    assert files
    assert not [name for name in files if not (ROOT / "iovirt_dist" / name).is_file()]


def test_walk_names_functions_in_their_files() -> None:
    """Each function named behind a file is defined there."""
    pairs = re.findall(r"`([a-z0-9_/]+\.py)`\s+`([A-Za-z_.]+)`", WALK)
    assert len(pairs) > 20
    assert not [pair for pair in pairs if pair[1] not in definitions(ROOT / "iovirt_dist" / pair[0])]


def test_walk_names_methods_that_exist() -> None:
    """A method named without a file is defined in some file of the walk."""
    files = set(re.findall(r"`([a-z0-9_/]+\.py)`", WALK))
    known = set().union(*(definitions(ROOT / "iovirt_dist" / name) for name in files))
    methods = set(re.findall(r"`([A-Z][A-Za-z0-9]+\.[a-z_]+)`", WALK))
    assert methods
    assert not methods - known


def test_concepts_name_tests_that_exist() -> None:
    """Each test of the concept table is there."""
    tests = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", CONCEPTS)
    assert len(tests) > 8
    assert not [test for test in tests if test[1] not in definitions(ROOT / test[0])]
    assert [f"| C{number} |" in CONCEPTS for number in range(1, 15)] == [True] * 14
