"""What an instance has translated, discarded by RAM address; that it works is shown in `test_memory`."""

from __future__ import annotations

import pytest
from unicorn.unicorn_const import UC_ARCH_ARM64, UC_ARCH_MIPS, UC_ARCH_RISCV, UC_ARCH_X86, UC_MODE_32
from unicorn.unicorn_py3 import Uc

from iovirt_dist.errors import LocalError
from iovirt_dist.guest.unicorn import translations
from iovirt_dist.guest.unicorn.translations import Translations


@pytest.mark.parametrize("architecture", [UC_ARCH_X86, UC_ARCH_RISCV, UC_ARCH_ARM64])
def test_trial_finds_that_each_architecture_forgets(architecture: int) -> None:
    """The new instruction runs where the old one did."""
    translations._check.cache_clear()

    translations._check(architecture)

    assert translations._check.cache_info().misses == 1


@pytest.mark.parametrize("architecture", [UC_ARCH_X86, UC_ARCH_RISCV, UC_ARCH_ARM64])
def test_trial_notices_when_nothing_is_forgotten(architecture: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a test that can fail: a library that keeps the old translation is refused."""
    attach = Translations._attach

    def attach_without_effect(self: Translations, uc: object, suffix: str) -> None:
        attach(self, uc, suffix)
        self.discard = lambda start, end: None

    monkeypatch.setattr(Translations, "_attach", attach_without_effect)
    translations._check.cache_clear()

    with pytest.raises(LocalError, match="unicorn: translated code cannot be discarded"):
        translations._check(architecture)
    translations._check.cache_clear()


def test_architecture_that_nobody_has_tried_is_refused() -> None:
    """Before anything runs on it."""
    with pytest.raises(LocalError):
        Translations(None, UC_ARCH_MIPS)


def test_memory_that_was_not_mapped_has_no_ram_address() -> None:
    """The library says so."""
    uc = Uc(UC_ARCH_X86, UC_MODE_32)
    uc.mem_map(0, 4096)

    with pytest.raises(LocalError):
        Translations(uc, UC_ARCH_X86).ram_address(16)
