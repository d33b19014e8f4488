"""What a command line of ``iovirt run`` asks for."""

from __future__ import annotations

import re

import pytest

from iovirt_dist.cli.adhoc_guest import AdHocGuest
from iovirt_dist.cli.main import main
from iovirt_dist.cli.running import pattern_of
from iovirt_dist.cli.terminal import ConsolePlan
from iovirt_dist.errors import ConfigError


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[AdHocGuest, ConsolePlan]]:
    """What was asked for; nothing is run."""
    calls: list[tuple[AdHocGuest, ConsolePlan]] = []

    def run_guest(guest: AdHocGuest, plan: ConsolePlan) -> int:
        calls.append((guest, plan))
        return 7

    monkeypatch.setattr("iovirt_dist.cli.adhoc.run_guest", run_guest)
    return calls


def test_run_without_options_asks_for_the_topologys_defaults(asked: list[tuple[AdHocGuest, ConsolePlan]]) -> None:
    """And ends as the guest does."""
    assert main(["run"]) == 7
    assert asked == [(AdHocGuest(), ConsolePlan(expect=None, timeout_s=None, history_bytes=None, quiet_s=None))]


def test_run_takes_options_of_all_kinds(asked: list[tuple[AdHocGuest, ConsolePlan]]) -> None:
    """Also those that may be given again."""
    argv = ["--program", "p", "-e", "A=b", "--env", "C=d", "-v", "/a:/b", "-p", "x=1", "--disk", "d", "--rng"]
    argv += ["--until", "done$", "--timeout", "3", "--machine", "virt", "--format", "rom", "--level", "driver"]
    assert main(["run", *argv, "one", "--", "-two"]) == 7
    assert asked == [
        (
            AdHocGuest(
                program="p",
                machine="virt",
                image_format="rom",
                level="driver",
                environment=("A=b", "C=d"),
                volumes=("/a:/b",),
                parameters=("x=1",),
                disk="d",
                rng=True,
                arguments=("one", "-two"),
            ),
            ConsolePlan(expect=re.compile("done$", re.MULTILINE), timeout_s=3.0, history_bytes=None, quiet_s=None),
        )
    ]


def test_pattern_is_one_or_a_mistake() -> None:
    """In one line."""
    assert pattern_of("") is None
    with pytest.raises(ConfigError, match=re.escape("'(': not a regular expression")):
        pattern_of("(")
