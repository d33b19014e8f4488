"""Which host a command is about: what is chosen by option, by environment, by itself, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from iovirt_dist.cli.main import main
from iovirt_dist.runtime import host_control
from iovirt_dist.testing.documents import free_port

HOSTS = """
[host.a]
address = "127.0.0.1"
control_port = {a}
[host.b]
address = "127.0.0.2"
control_port = {b}
[hypervisor.hv-a]
host = "a"
[hypervisor.hv-b]
host = "b"
[controller.tty0]
kind = "console"
host = "a"
[guest.load]
kind = "script"
script = "iovirt_dist.guest.script.verify:main"
hypervisor = ["hv-a", "hv-b"]
devices.virtio_console = "tty0"
"""
ONE_HOST = """
[host.only]
address = "127.0.0.1"
[hypervisor.hv0]
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A topology of two hosts, of which none is up."""
    monkeypatch.delenv("IOVIRT_HOST", raising=False)
    monkeypatch.setattr(host_control, "DEADLINE_S", 0.1)
    path = tmp_path / "t.toml"
    path.write_text(HOSTS.format(a=free_port(), b=free_port()))
    return path


@pytest.mark.parametrize(
    ("command", "message", "status"),
    [
        (["up"], "which host is this?; say --host: a, b", 2),
        (["up", "--host", "c"], "no host 'c'; hosts: a, b", 2),
        (["down"], "which host?; say --host: a, b", 2),
        (["logs"], "which host?; say --host: a, b", 2),
        (["trace"], "which host?; say --host: a, b", 2),
        (["console", "load", "--host", "b"], "'tty0' is on host 'a', not on 'b'; say --host a, on that machine", 2),
        (["console", "load"], "/.iovirt/a: the topology is not up", 1),
        (["scale", "--host", "b", "load=1"], "host 'b' is not up in ", 1),
    ],
)
def test_command_about_a_host_that_is_not_there_is_one_line(
    file: Path, command: list[str], message: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """What, where and what to do."""
    name, *rest = command

    code = main([name, "--file", str(file), *rest])
    printed = capsys.readouterr().err

    assert code == status
    assert message in printed
    assert printed.count("\n") == 1


def test_all_hosts_that_do_not_answer_are_named(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At once, and nothing hangs."""
    code = main(["scale", "--file", str(file), "load=1"])
    printed = capsys.readouterr().err

    assert code == 1
    assert "host 'a' does not answer at tcp://127.0.0.1:" in printed
    assert "; host 'b' does not answer at tcp://127.0.0.2:" in printed


def test_host_is_chosen_by_the_environment_and_the_option_before_it(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a Procfile's ``.env`` does."""
    monkeypatch.setenv("IOVIRT_HOST", "b")

    hosts = []
    for arguments in ([], ["--host", "a"]):
        assert main(["config", "--file", str(file), "--json", *arguments]) == 0
        hosts.append(json.loads(capsys.readouterr().out)["host"])

    assert hosts == ["b", "a"]


def test_only_host_is_chosen_by_itself(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its run directory has its name."""
    file.write_text(ONE_HOST)

    main(["config", "--file", str(file), "--json"])
    shown = json.loads(capsys.readouterr().out)

    assert shown["host"] == "only"
    assert shown["run_dir"].endswith("/.iovirt/only")


def test_host_of_a_topology_without_hosts_is_refused(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It would be started as if it were all of it."""
    file.write_text("[hypervisor.hv0]\n")

    assert main(["ps", "--file", str(file), "--host", "a"]) == 2
    assert "no host 'a'; the topology names no hosts" in capsys.readouterr().err
