"""Settings that change while a topology runs."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from iovirt_dist.errors import LocalError
from iovirt_dist.platform.qos import Qos
from iovirt_dist.runtime.qos_file import QosFile, change_settings, read_settings
from iovirt_dist.runtime.rundir import RunDir


class Bench:
    """A run directory and a hypervisor that follows."""

    def __init__(self, path: Path) -> None:
        self.run_dir = RunDir(path)
        self.run_dir.create()
        self.applied: list[tuple[str, str, Qos]] = []
        self.file = self.follower()

    def follower(self) -> QosFile:
        """A hypervisor's life."""
        return QosFile(self.run_dir.qos("hv0"), lambda *change: self.applied.append(change))

    def set(self, device: str, **changes: int) -> int:
        """What ``iovirt set`` does."""
        return change_settings(
            self.run_dir,
            "hv0",
            device,
            lambda old: (old or Qos(weight=7))._replace(**changes),  # type: ignore[arg-type]  # mypy types keywords one by one
        )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Nothing is set."""
    return Bench(tmp_path)


def test_change_is_applied_once_and_acknowledged(bench: Bench) -> None:
    """To the device that it is for; a second one keeps the first."""
    bench.file.poll()
    first = bench.set("vm.1.disk", iops=10)
    bench.file.poll()
    bench.file.poll()
    second = bench.set("vm.1.disk", weight=2)
    third = bench.set("b.rng", iops=5)
    bench.file.poll()

    assert (first, second, third, bench.file.revision) == (1, 2, 3, 3)
    assert bench.applied == [
        ("vm.1", "disk", Qos(weight=7, iops=10)),
        ("vm.1", "disk", Qos(weight=2, iops=10)),
        ("b", "rng", Qos(weight=7, iops=5)),
    ]


def test_hypervisor_that_starts_anew_has_everything_again(bench: Bench) -> None:
    """Also what was set while it was away."""
    bench.set("a.disk", iops=10)
    bench.set("b.disk", iops=20)

    again = bench.follower()
    again.poll()

    assert [(guest, qos.iops) for guest, _, qos in bench.applied] == [("a", 10), ("b", 20)]
    assert again.revision == 2


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"revision": "x"}', b'{"revision":5,"devices":{"a.disk":[0,2,1000,0,0,1000000]}}', b"\xff"],
)
def test_file_that_is_none_changes_nothing(bench: Bench, content: bytes) -> None:
    """Somebody's editor, or numbers that nothing can work with."""
    bench.set("a.disk", iops=10)
    bench.file.poll()
    bench.run_dir.qos("hv0").write_bytes(content)

    bench.file.poll()

    assert len(bench.applied) == 1
    assert bench.file.revision == 1
    assert read_settings(bench.run_dir.qos("hv0")) is None


def test_settings_go_with_the_topology(bench: Bench) -> None:
    """The next one begins with its own."""
    bench.set("a.disk", iops=10)

    bench.run_dir.clean()

    assert list((bench.run_dir.path / "qos").iterdir()) == []


def test_hypervisor_that_ends_in_order_leaves_nothing(bench: Bench) -> None:
    """Nor a lock."""
    bench.set("a.disk", iops=10)

    bench.file.remove()
    bench.file.remove()

    assert list((bench.run_dir.path / "qos").iterdir()) == []


def test_change_without_a_run_directory_is_one_error(tmp_path: Path) -> None:
    """With what to do."""
    with pytest.raises(LocalError, match="cannot change settings"):
        change_settings(RunDir(tmp_path / "absent"), "hv0", "a.disk", lambda old: old or Qos())


def test_change_on_a_full_file_system_is_one_error(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was set before stays; so for the command as for the hypervisor."""
    bench.set("a.disk", iops=10)
    bench.file.poll()

    def full(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)

    with pytest.raises(LocalError, match=r"hv0.*: cannot be written: No space left on device"):
        bench.set("a.disk", iops=20)
    with pytest.raises(LocalError, match=r"hv0.*: cannot be written: No space left on device"):
        bench.file.forget(["a"])
    settings = read_settings(bench.run_dir.qos("hv0"))
    assert settings is not None
    assert settings.devices == {"a.disk": Qos(weight=7, iops=10)}


def test_settings_go_with_their_guest(bench: Bench) -> None:
    """One of that name that comes later begins with the topology's; the others keep theirs."""
    bench.set("gone.disk", iops=10)
    bench.set("gone.rng", iops=10)
    bench.set("gone.too.rng", iops=20)
    bench.file.poll()

    bench.file.forget(["gone", "unknown"])
    bench.file.poll()
    bench.set("gone.disk", weight=2)
    bench.file.poll()

    settings = read_settings(bench.run_dir.qos("hv0"))
    assert settings is not None
    assert settings.devices == {"gone.too.rng": Qos(weight=7, iops=20), "gone.disk": Qos(weight=2)}
    assert bench.applied[3:] == [("gone", "disk", Qos(weight=2))]


def test_forgetting_guests_without_settings_writes_nothing(bench: Bench) -> None:
    """There may be no file at all."""
    bench.file.forget(["gone"])

    assert not bench.run_dir.qos("hv0").exists()
