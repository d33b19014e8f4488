"""What interception at the system-call level costs in code, measured on the code itself."""

from __future__ import annotations

import inspect
import io
import sys
import tokenize
from types import ModuleType

from iovirt_dist.abi import registry
from iovirt_dist.hypervisor.linux import routines

_NO_CODE = frozenset(
    {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING}
    | {tokenize.ENDMARKER}
)
_PACKAGES = ("iovirt_dist.abi.", "iovirt_dist.hypervisor.linux.")


def abi_cost(name: str) -> tuple[int, int]:
    """Return what an ABI takes: routines, and lines of code in the modules that they are made of.

    Lines are those with code on them, without comments, docstrings and blank lines. What all ABIs share counts in full;
    other ABIs' tables do not.

    Args:
        name: Of the ABI, such as ``linux_i386``.
    """
    abi = registry.ABIS[name]
    chosen = set(routines.routines_of(abi).values())
    return len(chosen), sum(count_code_lines(inspect.getsource(module)) for module in _modules(name))


def count_code_lines(source: str) -> int:
    """Count the lines of a module that hold code."""
    lines: set[int] = set()
    statement: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NEWLINE:
            if any(part.type != tokenize.STRING for part in statement):
                lines.update(row for part in statement for row in range(part.start[0], part.end[0] + 1))
            statement = []
        elif token.type not in _NO_CODE:
            statement.append(token)
    return len(lines)


def _modules(name: str) -> list[ModuleType]:
    """Return the modules of the two packages that an ABI uses."""
    others = {f"iovirt_dist.abi.{other}" for other in registry.ABIS if other != name}
    generic = "iovirt_dist.abi.linux_generic"
    if registry.ABIS[name].machine in (3, 62):
        others.add(generic)
    return [
        module
        for key, module in sorted(sys.modules.items())
        if key.startswith(_PACKAGES) and key not in others and key != __name__
    ]
