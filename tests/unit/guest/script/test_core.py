"""The core of a script guest against a real hypervisor core: lives, ends, time."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from iovirt_dist.guest import core as gc
from iovirt_dist.guest.script import ScriptGuest, VirtioSlot, open_disk
from iovirt_dist.guest.script.core import Drained, ScriptCore, ScriptPlan
from iovirt_dist.platform.virt import POWEROFF_VALUE, REBOOT_VALUE, RTC_BASE, TEST_BASE, UART_BASE
from iovirt_dist.hypervisor.core import Hypervisor
from iovirt_dist.hypervisor.events import HypervisorConfig, GuestFramesReceived, SendToGuest, Started, StopRequested
from iovirt_dist.hypervisor.plan import GuestPlan
from iovirt_dist.wire.messages import GuestState, Role, TrapKind
from iovirt_dist.wire.session import SessionConfig

SECOND_NS = 1_000_000_000
