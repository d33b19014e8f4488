"""What an ABI costs, counted in the code itself."""

from __future__ import annotations

import pytest

from iovirt_dist.abi.registry import ABIS
from iovirt_dist.hypervisor.linux.cost import abi_cost, count_code_lines
from iovirt_dist.hypervisor.linux.routines import routines_of

SOURCE = '''"""A module
of two lines."""

X = 1  # counted

# not counted


def f() -> str:
    """Not counted."""
    return """two
lines"""
'''


def test_code_lines_are_without_comments_and_docstrings() -> None:
    """A string that is a value counts with all its lines."""
    assert count_code_lines(SOURCE) == 4


@pytest.mark.parametrize("name", sorted(ABIS))
def test_cost_is_that_of_the_routines(name: str) -> None:
    """As many as the table has different ones; lines in the thousands."""
    routines, lines = abi_cost(name)

    assert routines == len(set(routines_of(ABIS[name]).values()))
    assert 1000 < lines < 5000


def test_cost_of_two_architectures_differs_by_their_tables() -> None:
    """What they share counts for both."""
    assert abi_cost("linux_i386")[1] != abi_cost("linux_x86_64")[1]
