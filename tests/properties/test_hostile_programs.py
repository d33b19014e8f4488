"""Programs of random bytes on the CPUs in user mode, answered at random: each ends, or is stopped, with a reason."""

from __future__ import annotations

import threading
from random import Random

import pytest

from iovirt_dist.guest.bus import SystemCallOutcome
from iovirt_dist.guest.program.architecture import I386, RISCV64, X86_64, Architecture
from iovirt_dist.guest.vcpu import ExitReason
from iovirt_dist.wire.syscall_messages import EffectKind
from tests.unit.guest.program.support import CODE, DATA, DONE, Call, program_cpu

PROGRAMS = 100
WATCHDOG_S = 0.2
SEEDS: dict[Architecture, tuple[str, ...]] = {
    X86_64: ("0f05", "cd80", "f4", "cf", "8ed8", "0fae0424", "f3ab", "9d", "e670", "0f22c0", "65488b0425", "dbe3"),
    I386: ("cd80", "f4", "cf", "cb", "8ee8", "9a", "62", "ce", "9d", "e670", "0f22c0", "d400", "0f34", "dbe3"),
    RISCV64: ("73000000", "73001000", "73005010", "af260510", "af26c500", "73250030", "0f100000", "73002010"),
}
ENDS = ("exited with status ", "killed by signal ", "cannot go on: ")


@pytest.mark.parametrize("architecture", list(SEEDS), ids=[architecture.abi for architecture in SEEDS])
def test_program_of_random_bytes_ends_with_a_reason(architecture: Architecture) -> None:
    """No exception leaves the CPU, whatever runs and whatever the hypervisor answers."""
    random = Random(architecture.abi)
    words = [bytes.fromhex(text) for text in SEEDS[architecture]]
    cpu, _ = program_cpu(architecture, "00" * 256, lambda call: hostile_answer(random, call))
    for _ in range(PROGRAMS):
        cpu.reset()
        parts = [random.choice(words) if random.random() < 0.4 else random.randbytes(4) for _ in range(30)]
        cpu.write_memory(CODE, b"".join(parts))
        watchdog = threading.Timer(WATCHDOG_S, cpu.kick)
        watchdog.start()
        reason, detail = cpu.run()
        watchdog.cancel()
        watchdog.join()
        assert reason is ExitReason.KICKED or detail.startswith(ENDS)


def hostile_answer(random: Random, call: Call) -> SystemCallOutcome:
    """An outcome with effects and outputs of any kind."""
    addresses = (CODE, DATA, 0x30_0000, random.getrandbits(64))
    lengths = (1, 4096, 1 << 20, random.getrandbits(64))
    protection = random.choice((1, 3, 5, 7, random.getrandbits(64)))
    effect = (random.choice(list(EffectKind)), random.choice(addresses), random.choice(lengths), protection)
    return DONE._replace(
        result=random.randrange(-50, 1 << 20),
        outputs=tuple(random.randrange(1000) for _ in call.buffers),
        data=random.randbytes(500),
        effects=(effect,) * random.randrange(2),
    )
