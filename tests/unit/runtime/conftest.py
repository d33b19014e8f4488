"""Channels that are closed when their test is over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from tests.unit.runtime.channel_bench import Answer, Bench, answer_all


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., Bench]]:
    """Makes benches, and closes them."""
    benches: list[Bench] = []

    def made(answer: Answer = answer_all) -> Bench:
        bench = Bench(asyncio.get_running_loop(), answer)
        bench.power_on()
        benches.append(bench)
        return bench

    yield made
    for bench in benches:
        if not bench.port.closed:
            bench.channel.begin_close()
            bench.channel.close("test is over")
