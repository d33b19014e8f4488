"""How an entry point finds itself in the topology."""

from __future__ import annotations

from pathlib import Path

import pytest

from iovirt_dist.errors import ConfigError
from iovirt_dist.topology import ENVIRONMENT_KEY, select
from iovirt_dist.topology.selection import UnusedServiceError

TWO = """
[hypervisor.hv0]
[guest.bob]
kind = "machine"
machine = "pc"
hypervisor = "hv0"
image = "bundled:guestos"
count = 2
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Environment that names a topology with one hypervisor and two guests."""
    (tmp_path / "t.toml").write_text(TWO)
    return {"IOVIRT_TOPOLOGY": str(tmp_path / "t.toml")}


def test_select_without_name_takes_the_only_one(environ: dict[str, str]) -> None:
    """One hypervisor needs no name."""
    assert select("hypervisor", [], environ).spec.name == "hv0"


def test_select_argument_wins_over_honcho(environ: dict[str, str]) -> None:
    """A name on the command line is the strongest wish."""
    assert select("guest", ["bob-1"], environ | {"HONCHO_PROCESS_NAME": "guest.2"}).spec.name == "bob-1"


def test_select_honcho_number_counts_in_the_files_order(environ: dict[str, str]) -> None:
    """``honcho start -c guest=2`` starts both replicas."""
    assert select("guest", [], environ | {"HONCHO_PROCESS_NAME": "guest.2"}).spec.name == "bob-2"


def test_select_honcho_of_another_type_is_ignored(environ: dict[str, str]) -> None:
    """A wrapper process of another type says nothing about us."""
    assert select("hypervisor", [], environ | {"HONCHO_PROCESS_NAME": "web.3"}).spec.name == "hv0"


@pytest.mark.parametrize(
    ("argv", "honcho", "message"),
    [
        ([], "", "which guest?; name one: bob-1, bob-2"),
        (["carol"], "", "no guest 'carol'; guest processes: bob-1, bob-2"),
        (["bob-1", "bob-2"], "", "expected one process name"),
        ([], "guest.3", "no guest number 3; guest processes: bob-1, bob-2"),
        ([], "guest.0", "no guest number 0"),
        ([], "guest.x", "which guest?"),
    ],
)
def test_select_unclear_raises_and_lists_names(
    environ: dict[str, str], argv: list[str], honcho: str, message: str
) -> None:
    """The error says what could have been meant."""
    with pytest.raises(ConfigError) as caught:
        select("guest", argv, environ | {"HONCHO_PROCESS_NAME": honcho})
    assert message in str(caught.value)


def test_select_first_of_an_unused_kind_under_honcho_is_told_apart(environ: dict[str, str]) -> None:
    """A Procfile has a line for each type; a second one was asked for by number."""
    with pytest.raises(UnusedServiceError, match="no rng in this topology"):
        select("rng", [], environ | {"HONCHO_PROCESS_NAME": "rng.1"})
    with pytest.raises(ConfigError, match="no rng number 2") as caught:
        select("rng", [], environ | {"HONCHO_PROCESS_NAME": "rng.2"})
    assert not isinstance(caught.value, UnusedServiceError)


def test_select_none_of_the_kind_raises(environ: dict[str, str]) -> None:
    """A service that the topology does not use says so."""
    with pytest.raises(ConfigError, match=r"which block\?; there is none"):
        select("block", [], environ)


def test_select_finds_a_vmm_by_its_own_name(tmp_path: Path) -> None:
    """Its guest's process has the guest's name."""
    path = tmp_path / "t.toml"
    path.write_text('[hypervisor.hv0]\n[guest.a]\nkind = "vm"\nvmm = "uml"\nhypervisor = "hv0"\n')
    environ = {ENVIRONMENT_KEY: str(path)}
    assert select("vmm", ["a.vmm"], environ).spec.guest is not None
    assert select("vmm", [], environ).spec.name == "a.vmm"
    assert select("guest", [], environ).spec.name == "a"


def test_select_finds_a_driver_domain_and_not_the_controllers_that_it_serves(tmp_path: Path) -> None:
    """They have no process of their own."""
    text = '[hypervisor.hv0]\n[driver_domain.dom0]\n[controller.rng0]\nkind = "rng"\ndriver = "dom0"\n'
    (tmp_path / "t.toml").write_text(text)
    environ = {"IOVIRT_TOPOLOGY": str(tmp_path / "t.toml")}
    assert select("driver_domain", [], environ).spec.devices == ("rng0",)
    with pytest.raises(ConfigError, match=r"which rng\?; there is none"):
        select("rng", [], environ)
