"""``iovirt doctor``: whether this machine can run a topology, and what is left over from an earlier one."""

from __future__ import annotations

import importlib
import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Final, NamedTuple

import iovirt_dist
from iovirt_dist.cli.output import EXIT_DONE, EXIT_FAILED, print_json, print_table
from iovirt_dist.errors import IovirtError
from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.runtime.status import read_status
from iovirt_dist.runtime.tap import exists, may_make_taps
from iovirt_dist.topology import Topology
from iovirt_dist.topology.endpoint import MAX_SOCKET_PATH_BYTES
from iovirt_dist.topology.specs import NetSpec
from iovirt_dist.topology.vm_files import PACKAGES, modules_folder, newest_kernel, vmm_program

FIRMWARE: Final = {
    "/usr/lib/u-boot/qemu-x86/u-boot.rom": ("u-boot-qemu", "U-Boot x86 tests, deploy/uboot-pc.toml"),
    "/usr/lib/u-boot/qemu-riscv64/u-boot.bin": ("u-boot-qemu", "U-Boot riscv64 tests, deploy/uboot-virt.toml"),
    "/bin/busybox": ("busybox-static", "deploy/busybox.toml, initial RAM disks"),
    "/usr/lib/riscv64-linux-gnu/opensbi/generic/fw_jump.elf": ("opensbi", "OpenSBI tests, deploy/uboot-virt.toml"),
}
"""Third-party firmware and programs as Debian packages them: file, package, what needs it."""

DISTRIBUTION: Final = "iovirt-dist"

MODULES: Final = {"pyzmq": "zmq", "pyelftools": "elftools"}
"""Import names that differ from the distribution's name."""


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes:
        check: What was looked at.
        verdict: ``ok``, ``note`` (something optional is missing) or ``bad`` (a topology will not run).
        detail: What was found.
        fix: What to do; empty if nothing.
    """

    check: str
    verdict: str
    detail: str
    fix: str = ""


def check_python() -> Iterator[Finding]:
    """The interpreter and the system it runs on."""
    version = ".".join(map(str, sys.version_info[:3]))
    fine = sys.version_info >= (3, 11) and sys.platform == "linux"
    yield Finding(
        "python", "ok" if fine else "bad", f"{version} on {sys.platform}", "" if fine else "use 3.11 on Linux"
    )


def requirements() -> list[str]:
    """What the distribution depends on: of a source folder its pyproject.toml, as installed metadata may be older."""
    project = Path(iovirt_dist.__file__).parent.with_name("pyproject.toml")
    if project.is_file():
        table = tomllib.loads(project.read_text("utf-8")).get("project", {})
        if table.get("name") == DISTRIBUTION:
            return list(table["dependencies"])
    return [text for text in metadata.requires(DISTRIBUTION) or [] if "extra ==" not in text]


def check_packages() -> Iterator[Finding]:
    """Every dependency that the distribution names is installed and can be imported."""
    for requirement in requirements():
        match = re.match(r"[A-Za-z0-9_.-]+", requirement)
        assert match is not None
        name = match[0]
        try:
            importlib.import_module(MODULES.get(name, name))
            yield Finding("package", "ok", f"{name} {metadata.version(name)}")
        except (ImportError, OSError, metadata.PackageNotFoundError) as error:
            yield Finding("package", "bad", f"{name}: {error}", f"pip install '{requirement.partition(';')[0]}'")


def check_unicorn() -> Iterator[Finding]:
    """The CPU emulator executes: ``mov eax, 0x1234`` on x86."""
    try:
        unicorn: Any = importlib.import_module("unicorn")
    except (ImportError, OSError) as error:
        yield Finding("unicorn", "bad", f"does not load: {error}", "pip install --force-reinstall unicorn")
        return
    try:
        engine = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_32)
        engine.mem_map(0x1000, 0x1000)
        engine.mem_write(0x1000, bytes.fromhex("b834120000"))
        engine.emu_start(0x1000, 0x1005)
        value = engine.reg_read(unicorn.x86_const.UC_X86_REG_EAX)
    except unicorn.UcError as error:
        yield Finding("unicorn", "bad", f"does not execute: {error}", "pip install --force-reinstall unicorn")
        return
    fine = value == 0x1234
    yield Finding("unicorn", "ok" if fine else "bad", "executes x86" if fine else f"computed {value:#x} for 0x1234")


def check_terminals() -> Iterator[Finding]:
    """Pseudo-terminals can be made: each guest's console needs one."""
    try:
        for descriptor in os.openpty():
            os.close(descriptor)
        yield Finding("terminals", "ok", "pseudo-terminals work")
    except OSError as error:
        yield Finding("terminals", "bad", f"no pseudo-terminal: {error.strerror}", "mount devpts on /dev/pts")


def check_tap(topology: Topology) -> Iterator[Finding]:
    """Uplinks can be made, or those of this topology are there; only a topology that has one needs any."""
    error = may_make_taps()
    uplinks = [spec.uplink for spec in topology.specs() if isinstance(spec, NetSpec) and spec.uplink]
    missing = [name for name in uplinks if not exists(name)]
    if error is None:
        yield Finding("uplink", "ok", "TAP interfaces can be made")
    elif missing:
        fix = "; ".join(f"sudo ip tuntap add dev {name} mode tap user $USER" for name in missing)
        yield Finding("uplink", "bad", f"no interface {', '.join(missing)}: {error.strerror}", fix)
    elif uplinks:
        yield Finding("uplink", "ok", f"{', '.join(uplinks)} is there; no others can be made: {error.strerror}")
    else:
        fix = "run as root, or make an interface for this user: ip tuntap add dev NAME mode tap user $USER"
        yield Finding("uplink", "note", f"no TAP interface can be made: {error.strerror}", fix)


def check_firmware(firmware: dict[str, tuple[str, str]]) -> Iterator[Finding]:
    """Third-party software is optional: it enables tests and some of the shipped topologies."""
    for file, (package, use) in firmware.items():
        if Path(file).is_file():
            yield Finding("firmware", "ok", f"{file}: {use}")
        else:
            yield Finding("firmware", "note", f"{file} is absent: no {use}", f"apt-get install {package}")


def check_vmms() -> Iterator[Finding]:
    """What runs guests of kind ``vm``, with kernels and drivers; all of it is optional."""
    for vmm, packages in PACKAGES.items():
        kernel = newest_kernel() if vmm == "qemu" else None
        wanted = ((vmm_program(vmm), packages.program), (modules_folder(vmm, kernel), packages.kernel))
        missing = dict.fromkeys(package for found, package in wanted if found is None)
        if missing:
            detail = f"no guests on {vmm}: {', '.join(missing)} is not installed"
            yield Finding("vmm", "note", detail, f"apt-get install {' '.join(missing)}")
        else:
            yield Finding("vmm", "ok", f"{vmm}: {vmm_program(vmm)}, drivers in {modules_folder(vmm, kernel)}")


def check_run_dir(topology: Topology) -> Iterator[Finding]:
    """Socket paths fit, and nothing is left over."""
    run_dir = RunDir(topology.run_dir)
    try:
        names = [*(process.name for process in topology.processes()), *topology.controllers]
        longest = max(len(os.fsencode(run_dir.socket(name))) for name in names)
        yield Finding("sockets", "ok", f"longest path has {longest} of {MAX_SOCKET_PATH_BYTES} bytes")
    except ValueError:
        yield Finding("sockets", "note", "the topology has no processes")
    except IovirtError as error:
        yield Finding("sockets", "bad", str(error))
    if run_dir.is_locked():
        yield Finding("run directory", "ok", f"{run_dir.path}: a topology is up")
        return
    alive = [f"{status.name} (pid {status.pid})" for status in read_status(run_dir).values() if status.alive]
    leftovers = [str(path.relative_to(run_dir.path)) for path in run_dir.leftovers()]
    if alive:
        detail = f"running without a supervisor (honcho?): {', '.join(alive)}"
        yield Finding("run directory", "note", detail, "iovirt down, if you did not start them")
    elif leftovers:
        detail = f"left over from a killed topology: {', '.join(leftovers)}"
        yield Finding("run directory", "note", detail, "iovirt down removes them; so does the next iovirt up")
    else:
        yield Finding("run directory", "ok", f"{run_dir.path}: nothing left over")


def check_images(topology: Topology) -> Iterator[Finding]:
    """The images of this topology's guests are there."""
    errors = topology.missing_images()
    for error in errors:
        yield Finding("images", "bad", f"{error.where}: {error.what}", error.fix)
    if not errors:
        yield Finding("images", "ok", "all guest images are there")


def examine(topology: Topology) -> list[Finding]:
    """Look at everything."""
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        check_python,
        check_packages,
        check_unicorn,
        check_terminals,
        lambda: check_tap(topology),
        lambda: check_images(topology),
        lambda: check_run_dir(topology),
        lambda: check_firmware(FIRMWARE),
        check_vmms,
    )
    return [finding for check in checks for finding in check()]


def show_doctor(topology: Topology, *, as_json: bool) -> int:
    """The work of ``iovirt doctor``: 1 if a topology will not run here."""
    findings = examine(topology)
    bad = any(finding.verdict == "bad" for finding in findings)
    if as_json:
        print_json({"ok": not bad, "findings": [finding._asdict() for finding in findings]})
    else:
        print_table(("CHECK", "", "FOUND"), [(f.check, f.verdict, f.detail) for f in findings])
        for finding in findings:
            if finding.fix:
                print(f"{finding.verdict}: {finding.check}: {finding.fix}")
    return EXIT_FAILED if bad else EXIT_DONE
