"""The instruction table as Markdown, for ARCHITECTURE.md: ``python -m iovirt_dist.hypervisor.instructions``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from iovirt_dist.hypervisor.instructions.riscv import RISCV
from iovirt_dist.hypervisor.instructions.row import Effect, Instruction, Kind, Outcome
from iovirt_dist.hypervisor.instructions.x86 import X86

BEGIN: Final = "<!-- instruction-table -->"
END: Final = "<!-- /instruction-table -->"

_X86_FAULTS: Final = {13: "#GP", 14: "#PF", 0x80: "gate 80h"}
_RISCV_FAULTS: Final = {
    2: "illegal instruction",
    5: "load access fault",
    7: "store access fault",
    8: "call from U",
    9: "call from S",
    11: "call from M",
    13: "load page fault",
    15: "store page fault",
}
_WITHOUT_TRAP: Final = {Effect.DONE: "done", Effect.IGNORED: "ignored", Effect.HALTED: "halts"}


def render() -> str:
    """Return the whole section between the markers, which are not included."""
    parts = (
        _summary(),
        _table("x86", ("CPL 3", "CPL 3, granted", "CPL 0"), X86, _X86_FAULTS),
        _table("RISC-V", ("U", "U, granted", "S", "M"), RISCV, _RISCV_FAULTS),
    )
    return "\n\n".join(parts) + "\n"


def _summary() -> str:
    rows = (*X86, *RISCV)
    io = [row for row in rows if row.is_io]
    critical_io = sum(row.kind is Kind.CRITICAL for row in io)
    return (
        f"{len(io)} of {len(rows)} rows signal a device: {sum(row.kind is Kind.PRIVILEGED for row in io)} privileged, "
        f"{critical_io} critical. Bold: the trap reaches the hypervisor. A fault is taken by the guest's own system "
        "mode. *Done* and *ignored* happen on the virtual CPU without any message."
    )


def _table(name: str, levels: tuple[str, ...], rows: tuple[Instruction, ...], faults: Mapping[int, str]) -> str:
    header = ("Instruction", "Encoding", "Touches", "Class", *levels)
    lines = [f"**{name}**", "", _line(header), _line(("---",) * len(header))]
    lines += [_line(_cells(row, faults)) for row in rows]
    return "\n".join(lines)


def _cells(row: Instruction, faults: Mapping[int, str]) -> tuple[str, ...]:
    granted = "-" if row.granted is None else f"{_text(row.granted, faults)} ({', '.join(g.value for g in row.grants)})"
    levels = [_text(row.user, faults), granted, _text(row.system, faults)]
    if row.machine is not None:
        levels.append(_text(row.machine, faults))
    return (f"`{row.mnemonic}`", f"`{row.code.hex(' ')}`", row.touches, row.kind.value, *levels)


def _text(outcome: Outcome, faults: Mapping[int, str]) -> str:
    trap = ""
    if outcome.traps:
        times = f" x {len(outcome.traps)}" if len(outcome.traps) > 1 else ""
        trap = f"**{outcome.traps[0].name}**{times}"
    if outcome.effect is Effect.FAULTED:
        return f"{trap}, refused: {faults[outcome.fault]}" if trap else faults[outcome.fault]
    return trap or _WITHOUT_TRAP[outcome.effect]


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"
