"""Unicorn's own structures are where we think."""

from __future__ import annotations

from typing import Any

import pytest
from unicorn.unicorn_const import UC_ARCH_X86, UC_HOOK_INSN, UC_MODE_32
from unicorn.unicorn_py3 import Uc
from unicorn.x86_const import UC_X86_INS_IN

from iovirt_dist.errors import LocalError
from iovirt_dist.guest.unicorn import internals, whole_blocks
from iovirt_dist.guest.unicorn.internals import HaltFlag, structure


def make_uc(code: bytes) -> Any:
    """An instance with code at 1000h."""
    uc: Any = Uc(UC_ARCH_X86, UC_MODE_32)
    uc.mem_map(0x1000, 0x1000)
    uc.mem_write(0x1000, code)
    return uc


def test_halt_flag_is_set_by_hlt_and_only_until_cleared() -> None:
    """An instance that has not run, has halted, has been cleared."""
    uc = make_uc(b"\x90\xf4")
    flag = HaltFlag(uc)
    assert not flag.is_set()
    uc.emu_start(0x1000, 0)
    assert flag.is_set()
    flag.clear()
    assert not flag.is_set()


def test_halt_flag_is_not_set_by_a_stop_request() -> None:
    """Also not when the run before was ended by HLT."""
    uc = make_uc(b"\xe4\x10\xeb\x00\xf4")
    flag = HaltFlag(uc)
    uc.emu_start(0x1004, 0)
    uc.hook_add(UC_HOOK_INSN, lambda uc, *_: uc.emu_stop() or 0, None, 1, 0, UC_X86_INS_IN)
    uc.emu_start(0x1000, 0)
    assert not flag.is_set()


def test_structure_that_looks_different_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is written to a place that is not understood."""
    monkeypatch.setattr(internals, "_CONTEXT_BYTES", internals._CONTEXT_BYTES - 8)
    with pytest.raises(LocalError, match="unknown way"):
        structure(make_uc(b""))


def test_flag_without_effect_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The byte in front of the flag does something else."""
    monkeypatch.setattr(whole_blocks, "NO_EXIT_REQUEST", internals.NO_EXIT_REQUEST - 1)
    with pytest.raises(LocalError, match="cannot be switched off"):
        whole_blocks.check.__wrapped__()
