"""What the table of a program says besides its image: command line, environment, files."""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import Final

from iovirt_dist.errors import ConfigError
from iovirt_dist.topology import schema
from iovirt_dist.topology.scope import Scope

DEVICE_FOLDERS: Final = ("/dev", "/proc")
"""What a program sees there is the hypervisor's."""


def program_arguments(scope: Scope, group: str, table: schema.ProgramTable) -> tuple[str, ...]:
    """Return a program's command line as written; empty if it is not.

    Raises:
        ConfigError: It holds a NUL.
    """
    if any("\0" in argument for argument in table.arguments):
        where = scope.where("guest", group, "arguments")
        raise ConfigError("an argument holds a NUL, which ends a string in memory", where, "remove it")
    return tuple(table.arguments)


def program_environment(scope: Scope, group: str, table: schema.ProgramTable) -> tuple[str, ...]:
    """Return ``NAME=VALUE`` each.

    Raises:
        ConfigError: One is no name or no value.
    """
    for name, value in table.environment.items():
        if not name or "=" in name or "\0" in name + value:
            where = scope.where("guest", group, "environment", name)
            raise ConfigError("no name and value of an environment", where, "remove '=' and NUL")
    return tuple(f"{name}={value}" for name, value in table.environment.items())


def program_files(scope: Scope, group: str, table: schema.ProgramTable) -> dict[str, Path]:
    """Return what a program sees of the file system: normalised path there to the absolute path here.

    Raises:
        ConfigError: A path is none, is the hypervisor's, or is there twice.
    """
    files: dict[str, Path] = {}
    for path, source in table.files.items():
        where = scope.where("guest", group, "files", path)
        # normpath keeps two leading slashes (POSIX.1, "Pathname Resolution": theirs is another meaning)
        inside = posixpath.normpath(path.replace("//", "/"))
        if not path.startswith("/") or "\0" in path:
            raise ConfigError("the program's path must start with '/'", where, 'such as "/etc/motd"')
        if any(inside == folder or inside.startswith(f"{folder}/") for folder in DEVICE_FOLDERS):
            raise ConfigError(f"{inside} is the hypervisor's own", where, "choose another folder")
        if inside in files:
            raise ConfigError(f"{inside} is there twice", where, "remove one")
        files[inside] = scope.path(source)
    return files
