"""Errors of ``iovirt run`` in the words of its options: the user has written no topology file and knows no keys."""

from __future__ import annotations

import re
from typing import Final

from iovirt_dist.errors import LocalError

WHERE: Final = "iovirt run"

_OPTIONS: Final = {
    "controller.disk0.image": "--disk",
    "controller.disk0.size": "--disk-size",
    "environment": "--env",
    "files": "--volume",
    "parameters": "--parameter",
    "size": "--disk-size",
}
"""Options by key, where the option's name is not the key's."""

_KEY: Final = re.compile(r"guest\.guest\.(?:devices\.)?(?P<key>[a-z_]+)(?:\..*)?|controller\.disk0\.[a-z]+")
_ASSIGNMENT: Final = re.compile(r'(?P<key>[a-z_]+) = "(?P<value>[^"]*)"')
_SET_KEY: Final = re.compile(r"set (?P<key>[a-z_]+)(?:\.\"[^\"]*\")?")
_MISSING: Final = "guest guest: "
"""How the place of a missing file begins (`GuestBase.missing_files`)."""


def in_options(error: LocalError, kind: str) -> LocalError:
    """Say an error of the topology that was written from options with the options.

    Args:
        error: What resolving or starting it raised.
        kind: ``machine``, ``program``, ``script`` or ``vm``.

    Returns:
        An error of the same type.
    """

    def option(key: str) -> str:
        if key == "image" and kind == "program":
            return "--program"
        if key == "command_line" and kind == "vm":
            return "--append"
        return _OPTIONS.get(key) or f"--{key.replace('_', '-')}"

    where = _KEY.sub(lambda found: option(found["key"] or found[0]), error.where)
    if where.startswith(_MISSING):
        where = f"{WHERE}: {where.removeprefix(_MISSING)}"
    fix = (
        _SET_KEY.sub(lambda found: f"correct {option(found['key'])}", error.fix)
        if " = " not in error.fix
        else error.fix
    )
    fix = fix.replace('kind = "program"', "--program FILE").replace("devices.", "--")
    fix = _ASSIGNMENT.sub(lambda found: f"{option(found['key'])} {found['value']}", fix).replace("set --", "use --")
    return type(error)(error.what, where, fix)
