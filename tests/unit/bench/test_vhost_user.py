"""Back ends for foreign kernels side by side: what guests are told and say, what is made of it, and one real boot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from iovirt_dist.bench import vhost_user, vhost_user_vms
from iovirt_dist.bench import vhost_user_jobs as jobs
from iovirt_dist.bench.report import Result
from iovirt_dist.bench.vhost_user_path import SEGMENTS, STOPS, divide, read_points
from iovirt_dist.errors import LocalError
from iovirt_dist.topology import Origin, topology_from_text
from iovirt_dist.topology.vm_files import Vmm
from tests.guests.support import needs_vmm


def by_key(results: list[Result]) -> dict[str, Result]:
    """Results by their names in the object."""
    return {result.key: result for result in results}


def terse(name: str, read: float, write: float, error: int = 0) -> str:
    """A line of fio's terse report, version 3."""
    fields = ["0"] * 130
    fields[:3] = ["3", "fio-3.33", name]
    fields[4], fields[7], fields[48] = str(error), str(read), str(write)
    return ";".join(fields)


# --- what guests are told and say


def test_sides_take_turns_at_being_first() -> None:
    """What comes first finds the machine in another mood."""
    assert list(jobs.in_turns(2)) == [(0, "ours"), (0, "base"), (1, "base"), (1, "ours")]


def test_fio_is_told_of_each_job_behind_the_one_before() -> None:
    """Each at its disk, for the same time."""
    text = jobs.fio_text([jobs.FioJob("base", "write", 32, 1)], 1.5)

    assert "runtime=1500ms" in text
    assert text.endswith("[base.write.32.1]\nstonewall\nfilename=/dev/vdb\nrw=randwrite\niodepth=32\n")


def test_fio_reports_are_found_among_other_lines() -> None:
    """The column is that of the job's direction."""
    output = f"[    1.0] noise\r\n{terse('ours.read.1.0', 12, 0)}\r\n{terse('base.write.32.3', 0, 34.5)}\n"

    assert jobs.fio_iops(output) == {
        jobs.FioJob("ours", "read", 1, 0): 12.0,
        jobs.FioJob("base", "write", 32, 3): 34.5,
    }


def test_fio_job_that_failed_is_an_error() -> None:
    """A disk that fails is not a slow one."""
    with pytest.raises(LocalError, match=r"ours\.read\.1\.0 of fio failed with error 5"):
        jobs.fio_iops(terse("ours.read.1.0", 12, 0, error=5))


def test_dd_is_told_to_pass_the_cache_and_its_reports_are_found() -> None:
    """Small blocks move less, as each is a request."""
    copies = [jobs.Copy("ours", "read", 4096, 0), jobs.Copy("base", "write", 1 << 20, 0)]
    output = (
        "dd ours.read.4096.0\n512+0 records in\n512+0 records out\n2097152 bytes (2.1 MB, 2.0 MiB) copied, 0.5 s, x\n"
        "dd base.write.1048576.0\n4+0 records in\n4+0 records out\n4194304 bytes (4.2 MB, 4.0 MiB) copied, 2e-1 s, x\n"
    )

    script = jobs.dd_script(copies, 4)

    assert "if=/dev/vda of=/dev/null iflag=direct bs=4096 count=512" in script
    assert "of=/dev/vdb oflag=direct conv=notrunc bs=1048576 count=4" in script
    assert jobs.dd_rates(output) == {copies[0]: pytest.approx(4.0), copies[1]: pytest.approx(20.0)}


# --- the path


def test_requests_seen_whole_are_divided_and_others_left_out() -> None:
    """The second one lacks a stop, so neither it nor the guest's time around it counts."""
    whole = [(1000 * at, event) for at, event in enumerate(STOPS)]
    partial = [(20_000, "kick"), (21_000, "call")]
    again = [(30_000 + 2000 * at, event) for at, event in enumerate(STOPS)]
    last = [(60_000 + 1000 * at, event) for at, event in enumerate(STOPS)]

    found = divide([(0, "call"), *whole, (6_500, "lines"), *partial, *again, *last])

    assert found.ours == [6.0, 12.0, 6.0]
    assert found.guest == [18.0]
    assert found.segments == dict.fromkeys(SEGMENTS, 1.0)


def test_trace_files_are_merged_by_time_and_half_a_line_is_left_out(tmp_path: Path) -> None:
    """A process that never traced has no file."""
    (tmp_path / "a").write_text(json.dumps({"at_ns": 2, "event": "call"}) + '\n{"at_ns": 3')
    (tmp_path / "b").write_text(json.dumps({"at_ns": 1, "event": "kick"}) + "\n")

    assert read_points(tmp_path / name for name in "abc") == [(1, "kick"), (2, "call")]


# --- results


def test_rows_compare_medians_and_keep_every_figure() -> None:
    """Depths have their own targets."""
    rates = {"ours": (60.0, 50.0, 70.0), "base": (100.0, 100.0, 90.0)}
    found = {
        jobs.FioJob(side, pattern, depth, number): rate
        for side, of_side in rates.items()
        for number, rate in enumerate(of_side)
        for pattern in vhost_user.PATTERNS
        for depth in vhost_user.TARGETS
    }

    results = by_key(vhost_user.qemu_results(found, divide([])))

    assert (results["qemu_read_1"].ratio, results["qemu_read_1"].met) == (0.6, True)
    assert (results["qemu_write_32"].ratio, results["qemu_write_32"].met) == (0.6, False)
    assert results["qemu_read_32"].details == {side: list(of_side) for side, of_side in rates.items()}
    assert results["path_read_1"].skipped == "no request was traced from its beginning to its end"


def test_rows_without_a_target_have_no_verdict() -> None:
    """They are told."""
    found = {jobs.Copy(side, "read", 4096, 0): 2.0 for side in jobs.SIDES}

    results = by_key(vhost_user.uml_results(found))

    assert (results["uml_read_4k"].ratio, results["uml_read_4k"].met) == (1.0, None)
    assert results["uml_write_4k"].skipped == "the guest has reported nothing"


def test_packages_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without them runs the rest."""
    monkeypatch.setenv("PATH", str(tmp_path))

    results = by_key(vhost_user.measure_vhost_user(vhost_user.Span(), lambda _: None))

    assert len(results) == 11
    assert "qemu-system-x86" in results["qemu_read_1"].skipped
    assert "qemu-system-common" in results["uml_read_4k"].skipped


# --- machines


@pytest.mark.parametrize("vmm", ["qemu", "uml"])
def test_topology_has_one_guest_with_a_disk_that_writes_back(vmm: Vmm, tmp_path: Path) -> None:
    """As the other side's disk does."""
    topology = topology_from_text(vhost_user_vms.topology_text(vmm), Origin("t.toml", None, tmp_path))

    assert vhost_user_vms.guest_of(topology).devices == ("disk",)


def test_other_side_serves_the_same_image_without_a_lock(tmp_path: Path) -> None:
    """It is ours at the same time."""
    words = " ".join(vhost_user_vms.daemon_command(tmp_path / "disk.img", tmp_path / "base"))

    assert f"filename={tmp_path}/disk.img,locking=off" in words
    assert f"addr.path={tmp_path}/base,writable=on" in words


@pytest.mark.firmware
@needs_vmm("uml")
@pytest.mark.skipif(
    bool(vhost_user_vms.missing_packages("uml")), reason="install the Debian package qemu-system-common"
)
@pytest.mark.timeout(300)
def test_user_mode_linux_copies_from_and_to_both_disks() -> None:
    """The least of it."""
    results = vhost_user.measure_uml(vhost_user.Span(rounds=1, megabytes=1), lambda _: None)

    assert all(result.ours and result.base and result.ratio for result in results)
