"""The walk along the schema: every message names file, key, expectation and value."""

from __future__ import annotations

import pytest

from iovirt_dist.errors import ConfigError
from iovirt_dist.topology.parse import parse_document
from iovirt_dist.topology.schema import BlockTable, MachineTable, ProgramTable, ScriptTable

GUEST = '[guest.alice]\nkind = "machine"\nhypervisor = "hv0"\nimage = "x"\n'

PROGRAM = '[guest.cat]\nkind = "program"\nhypervisor = "hv0"\nimage = "x"\n'
SCRIPT = '[guest.load]\nkind = "script"\nhypervisor = "hv0"\nscript = "load.py:main"\n'


def test_document_empty_has_defaults() -> None:
    """An empty file is a topology without processes."""
    document = parse_document("", "t.toml")
    assert document.topology.run_dir == ".iovirt"
    assert document.guest == {}


def test_document_kinds_select_their_tables() -> None:
    """The kind key decides which keys are known."""
    document = parse_document(GUEST + '[controller.d]\nkind = "block"\nimage = "i"\nsize = 512\n', "t.toml")
    assert isinstance(document.guest["alice"], MachineTable)
    assert document.controller["d"] == BlockTable(kind="block", image="i", size=512)


def test_document_user_keyed_tables_keep_what_toml_says() -> None:
    """Parameters are anything; the environment and the files are words."""
    script = parse_document(SCRIPT + "parameters = { depth = 64, mix = [0.5, 1], deep.er = true }\n", "t.toml")
    program = parse_document(PROGRAM + 'environment = { A = "b" }\nfiles."/etc" = "etc"\n', "t.toml")
    table = script.guest["load"]
    assert isinstance(table, ScriptTable)
    assert table.parameters == {"depth": 64, "mix": [0.5, 1], "deep": {"er": True}}
    cat = program.guest["cat"]
    assert isinstance(cat, ProgramTable)
    assert (cat.environment, cat.files) == ({"A": "b"}, {"/etc": "etc"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GUEST + 'memroy = "1MiB"', "t.toml: guest.alice.memroy: unknown key; did you mean 'memory'?"),
        (GUEST + "xyzzy = 1", "t.toml: guest.alice.xyzzy: unknown key; known: command_line, count, devices,"),
        (GUEST + 'devices.dsik = "a"', "t.toml: guest.alice.devices.dsik: unknown key; did you mean 'disk'?"),
        (GUEST + "memory = 1.5", 't.toml: guest.alice.memory: expected a size such as 512, "64KiB" or "1GiB", got 1.5'),
        (GUEST + "count = 0", "t.toml: guest.alice.count: expected an integer from 1 to 1024, got 0"),
        (GUEST + 'count = "2"', 't.toml: guest.alice.count: expected an integer from 1 to 1024, got "2"'),
        (GUEST + "command_line = true", "t.toml: guest.alice.command_line: expected a string, got true"),
        (
            GUEST + 'level = "drvier"',
            't.toml: guest.alice.level: expected "operation", "driver" or "syscall", got "drvier"',
        ),
        (GUEST + "level = 2", 't.toml: guest.alice.level: expected "operation", "driver" or "syscall", got 2'),
        (PROGRAM + "arguments = [1]", "t.toml: guest.cat.arguments: expected a list of strings, got [1]"),
        (PROGRAM + 'arguments = "cat"', 't.toml: guest.cat.arguments: expected a list of strings, got "cat"'),
        (PROGRAM + "environment.TERM = 1", "t.toml: guest.cat.environment.TERM: expected a string, got 1"),
        (
            '[controller.c]\nkind = "rng"\narbitration.hv0 = "2"',
            't.toml: controller.c.arbitration.hv0: expected an integer from 1 to 1000, got "2"',
        ),
        (
            '[controller.c]\nkind = "rng"\narbitration = 2',
            "t.toml: controller.c.arbitration: expected a table of values, got 2",
        ),
        (PROGRAM + 'files = "x"', 't.toml: guest.cat.files: expected a table of strings, got "x"'),
        (PROGRAM + 'files."/etc/motd" = true', 't.toml: guest.cat.files."/etc/motd": expected a string, got true'),
        (PROGRAM + 'devices.virtio_console = "t"', "t.toml: guest.cat.devices.virtio_console: unknown key; did you"),
        (PROGRAM + 'level = "driver"', "t.toml: guest.cat.level: unknown key; known: abi, arguments, count"),
        (SCRIPT + "parameters = 4", "t.toml: guest.load.parameters: expected a table, got 4"),
        (SCRIPT + 'image = "x"', "t.toml: guest.load.image: unknown key; known: count, devices"),
        (
            '[controller.r]\nkind = "rnd"',
            't.toml: controller.r.kind: expected "block", "console", "rng" or "net", got "rnd"; did',
        ),
        (GUEST + 'machine = "pcc"', 't.toml: guest.alice.machine: expected "pc" or "virt", got "pcc"'),
        (GUEST + "devices = 3", "t.toml: guest.alice.devices: expected a table, got 3"),
        (
            '[guest.a]\nkind = "machin"',
            't.toml: guest.a.kind: expected "machine", "program", "script", "vm" or "nbd", got "machin"; did you',
        ),
        ('[guest.a]\nkin = "machine"', "t.toml: guest.a: key 'kind' is missing; 'kin' is unknown"),
        (
            "[guest.a]\n",
            't.toml: guest.a: key \'kind\' is missing; add kind = "machine", "program", "script", "vm" or "nbd"',
        ),
        (
            '[guest.a]\nkind = "machine"\nhypervisor = "h"',
            "t.toml: guest.a: key 'image' is missing; add image = a string",
        ),
        ("[guets.a]\n", "t.toml: guets: unknown key; did you mean 'guest'?"),
        ("guest = 1", "t.toml: guest: expected a table of tables, got 1"),
        ("[guest]\na = 1", "t.toml: guest.a: expected a table, got 1"),
        ('[hypervisor."a b"]\nx = 1', 't.toml: hypervisor."a b".x: unknown key; known: endpoint'),
        (GUEST + "[guest.alice]\n", "t.toml: line 5: guest.alice is declared twice; rename one, or merge the two"),
        ('[guest."a b"]\n[guest."a b"]\n', 't.toml: line 2: guest."a b" is declared twice; rename one'),
        ("[topology]\n[topology]\n", "t.toml: line 2: topology is declared twice; rename one"),
        ("a = ", "t.toml: not valid TOML: Invalid value"),
        ('[topology]\nname = "' + "n" * 80 + '"\nlease = 2', "t.toml: topology.lease: expected a duration such as"),
    ],
)
def test_document_wrong_raises_one_line_with_key(text: str, message: str) -> None:
    """What, where and what to do, on one line."""
    with pytest.raises(ConfigError) as caught:
        parse_document(text, "t.toml")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
