"""From a topology to what a hypervisor serves, for guests that come later, too."""

from __future__ import annotations

from pathlib import Path

import pytest

from iovirt_dist.errors import ConfigError
from iovirt_dist.runtime.plans import guest_plan, hypervisor_config, share_devices
from iovirt_dist.topology import Origin, Topology, topology_from_text
from iovirt_dist.topology.scaling import NOT_SCALED, Scaling

TEXT = """
[hypervisor.hv0]
[controller.rng0]
kind = "rng"
[controller.tty0]
kind = "console"
[guest.web]
kind = "script"
script = "iovirt_dist.guest.script.verify:main"
hypervisor = "hv0"
devices = { rng = "rng0", virtio_console = "tty0" }
qos.rng = { weight = 3, iops = 100 }
"""


def resolve(scaling: Scaling = NOT_SCALED) -> Topology:
    """The topology as it was scaled."""
    return topology_from_text(TEXT, Origin("t.toml", Path("/t.toml"), Path("/")), scaling)


def test_guest_that_comes_later_has_its_devices_and_shares_as_if_it_had_been_there() -> None:
    """On the queue pairs that the hypervisor has."""
    at_once = hypervisor_config(resolve(Scaling(1, "", {"web": 2})), resolve().hypervisor("hv0"), 1)
    pairs = hypervisor_config(resolve(), resolve().hypervisor("hv0"), 1).controllers
    guest = resolve(Scaling(1, "", {"web": 2})).guest("web-2")

    share_devices(guest, pairs, 0)
    plan = guest_plan(guest, pairs)

    assert plan.rng is not None
    assert plan.virtio_console is not None
    assert (plan.rng.queue_pair, plan.virtio_console.unit) == (pairs["rng0"], "web-2.hvc0")
    assert pairs["rng0"].queue.qos("web-2") == at_once.controllers["rng0"].queue.qos("web-2")
    assert pairs["rng0"].queue.qos("web-2").weight == 3


def test_hypervisor_whose_guests_are_all_gone_keeps_its_queue_pairs() -> None:
    """It may get one again while it runs."""
    config = hypervisor_config(resolve(Scaling(1, "", {"web": 0})), resolve().hypervisor("hv0"), 1)

    assert config.plans == {}
    assert sorted(config.controllers) == ["rng0", "tty0"]


def test_guest_on_a_controller_without_queue_pair_is_refused() -> None:
    """In a line that names both."""
    pairs = dict(hypervisor_config(resolve(), resolve().hypervisor("hv0"), 1).controllers)
    del pairs["tty0"]

    with pytest.raises(ConfigError, match="guest web needs controller tty0, to which its hypervisor has no queue pair"):
        guest_plan(resolve().guest("web"), pairs)
