"""``iovirt keys``: makes the CURVE keys of a topology's processes, and says which file goes where."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from iovirt_dist.cli.output import EXIT_DONE, note, print_json, print_table
from iovirt_dist.errors import ConfigError
from iovirt_dist.ids import HostName
from iovirt_dist.topology import Topology
from iovirt_dist.topology.keys import key_hosts
from iovirt_dist.topology.parse import suggestion
from iovirt_dist.transport.keyring import Key, KeyState, list_keys, make_keys

_TOLD: Final = {
    KeyState.MADE: "made",
    KeyState.RENEWED: "renewed",
    KeyState.KEPT: "kept",
    KeyState.PUBLIC: "public half only",
    KeyState.ABSENT: "absent",
}


def make_topology_keys(topology: Topology, renew: Sequence[str], *, as_json: bool) -> int:
    """Make the keys that a topology, or the chosen host of it, still needs, and tell what there is.

    Args:
        topology: With its folder of keys.
        renew: Names of keys to make anew.
        as_json: Print an object instead of a table.

    Returns:
        The exit status.

    Raises:
        ConfigError: The topology has no folder of keys, there is no such key, or a file there is none.
        LocalError: A file cannot be written.
    """
    if topology.keys is None:
        fix = 'add keys = "keys" to [topology]'
        raise ConfigError("the topology says not where its keys are", f"{topology.label}: topology.keys", fix)
    everything = key_hosts(topology)
    hosts = {name: where for name, where in everything.items() if not topology.host or topology.host in where}
    for name in renew:
        if name not in hosts:
            raise ConfigError(f"no key '{name}'", "--renew", suggestion(name, hosts))
    # a guest table's that is on several hosts is made on the first of them: made on each, it would be several keys
    elsewhere = [name for name, where in hosts.items() if topology.host and where[0] != topology.host]
    for name in renew:
        if name in elsewhere:
            raise ConfigError(f"the key '{name}' is made on host '{hosts[name][0]}'", "--renew", "renew it there")
    made = make_keys(topology.keys, [name for name in hosts if name not in elsewhere], renew)
    made += list_keys(topology.keys, elsewhere)
    if as_json:
        print_json({"folder": str(topology.keys), "keys": [_as_json(key, hosts[key.name]) for key in made]})
        return EXIT_DONE
    print_table(("KEY", "STATE", "SECRET BELONGS ON"), [_row(key, hosts[key.name]) for key in made])
    _explain(topology, topology.keys, made, len(everything))
    return EXIT_DONE


def _as_json(key: Key, hosts: Sequence[HostName]) -> dict[str, object]:
    return {
        "name": key.name,
        "state": key.state.value,
        "public": key.public,
        "hosts": [host for host in hosts if host],
        "secret_here": key.state not in (KeyState.PUBLIC, KeyState.ABSENT),
    }


def _row(key: Key, hosts: Sequence[HostName]) -> tuple[str, str, str]:
    return key.name, _TOLD[key.state], ", ".join(host or "this host" for host in hosts)


def _explain(topology: Topology, folder: Path, made: Sequence[Key], count: int) -> None:
    """Say what to do with the files."""
    if len(topology.hosts) > 1:
        note(f"copy {folder}/public to all hosts, and each file of {folder}/private to its host only")
    if len(made) < count:
        note(f"{count - len(made)} more keys are made on the other hosts; have their public halves here, too")
    for key in made:
        if key.state is KeyState.ABSENT:
            note(f"the key '{key.name}' is made on the first host of its guests; copy both halves of it to here")
    if any(key.state is KeyState.RENEWED for key in made):
        note("copy the renewed public halves, and start anew who has them and who talks to them")
