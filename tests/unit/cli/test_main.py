"""The command line itself: help, usage errors, exit status."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from iovirt_dist.cli.app import app
from iovirt_dist.cli.main import main

COMMANDS = (
    "up", "down", "ps", "logs", "config", "console", "run", "set", "demo", "compare", "top", "trace", "bench", "doctor"
)  # fmt: skip


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No topology but the built-in one, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("IOVIRT_TOPOLOGY", raising=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command can be copied from its help."""
    assert main([command, "--help"]) == 0
    assert "Example: " in capsys.readouterr().out


def test_help_lists_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """The first thing that a new user types."""
    assert main(["--help"]) == 0
    assert {name for name in COMMANDS if name in capsys.readouterr().out} <= set(COMMANDS)
    assert set(COMMANDS) <= set(app)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["dwon"], "iovirt: error: unknown command 'dwon'; did you mean 'down'? try 'iovirt --help'"),
        (
            ["xyzzy"],
            "iovirt: error: unknown command 'xyzzy'; known: bench, compare, config, console, ",
        ),
        (["run", "--timeout", "-1"], 'iovirt: error: Invalid value "-1.0" for --timeout. Must be >= 0'),
        (["console", "guest", "--timeout=-0.5"], "iovirt: error: Invalid value"),
        (["ps", "--jsno"], "iovirt: error: Unknown option"),
        (["run", "--machine", "x"], 'iovirt: error: Invalid value "x" for --machine.'),
        (["console"], "iovirt: error: name a guest; try 'iovirt console --help'"),
        (["console", "carol"], "iovirt: error: built-in topology: no guest 'carol'; guests: guest"),
        (["console", "guest", "--expect", "("], "iovirt: error: '(': not a regular expression: missing )"),
        (
            ["logs", "hv9"],
            "iovirt: error: built-in topology: no process 'hv9'; processes: disk0, tty0, hv0, guest, _up",
        ),
        (["config", "-f", "no.toml"], "iovirt: error: no.toml: cannot read the topology: No such file"),
        (["run", "--image", "no.elf"], "iovirt: error: iovirt run: "),
        (["run", "--disk", "no.img"], "iovirt: error: iovirt run: --disk-size: "),
    ],
)
def test_usage_error_is_one_line_and_exit_2(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What, where, what to do; no traceback."""
    assert main(argv) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(message)
    assert (printed.err.count("\n"), printed.out) == (1, "")


def test_work_that_fails_is_exit_1(capsys: pytest.CaptureFixture[str]) -> None:
    """The command was right, but the topology is not up."""
    assert main(["console", "guest"]) == 1
    assert capsys.readouterr().err.endswith("/.iovirt: the topology is not up; start it with 'iovirt up -d'\n")


def test_keyboard_interrupt_is_exit_130(monkeypatch: pytest.MonkeyPatch) -> None:
    """As shells report SIGINT."""

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("iovirt_dist.cli.processes.show_processes", interrupt)
    assert main(["ps"]) == 130


def test_config_toml_prints_the_built_in_text(capsys: pytest.CaptureFixture[str]) -> None:
    """The start for one's own topology."""
    assert main(["config", "--toml"]) == 0
    assert "[guest.guest]" in capsys.readouterr().out


def test_help_imports_nothing_heavy() -> None:
    """Neither the emulator nor sockets are loaded to print text."""
    code = (
        "import sys; from iovirt_dist.cli.main import main; main(['up', '--help'])\n"
        "sys.exit(str(sorted({'unicorn', 'zmq', 'asyncio'} & set(sys.modules))))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.stderr == "[]\n"
