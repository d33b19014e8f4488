"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# The same inputs each time: a test that fails once fails always. And no verdicts on how fast the machine is.
settings.register_profile("fixed", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fixed")

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else each of the processes that tests start compiles all it imports


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Turn a skipped firmware test into a failure where the firmware is required, as in continuous integration."""
    report = yield
    required = os.environ.get("IOVIRT_REQUIRE_FIRMWARE")
    if required and report.skipped and not hasattr(report, "wasxfail") and item.get_closest_marker("firmware"):
        report.outcome = "failed"
        report.longrepr = f"firmware is required here, but the test was skipped: {report.longrepr}"
    return report
