"""What a script's author reads when it fails."""

from __future__ import annotations

import pytest

from iovirt_dist.errors import ConfigError
from iovirt_dist.guest.script import load
from iovirt_dist.guest.script.failure import failure_line, failure_trace


def test_line_of_a_plain_error_has_type_text_and_place() -> None:
    """On one line, whatever the text has."""
    with pytest.raises(ValueError, match="two") as caught:
        raise ValueError("two\n  lines")
    assert failure_line(caught.value).startswith("ValueError: two lines (test_failure.py:")


def test_line_of_our_error_from_our_code_names_no_place() -> None:
    """What is wrong with a parameter is not to be looked for in the load generator's source."""
    with pytest.raises(ConfigError) as caught:
        load.load_plan({"depht": 3})
    caught.value.__traceback__ = caught.value.__traceback__ and caught.value.__traceback__.tb_next
    assert failure_line(caught.value) == "parameters.depht: unknown parameter; did you mean 'depth'?"
    assert failure_trace(caught.value) == ""


def test_line_is_cut() -> None:
    """An error's text may be anything; the reason crosses the wire."""
    assert len(failure_line(ValueError("x" * 10_000))) == 500


def test_trace_begins_with_the_scripts_own_frame() -> None:
    """What called it is left out, what it called is not."""
    namespace: dict[str, object] = {}
    exec(compile("def run(f): f()", "/x/iovirt_dist/runtime/y.py", "exec"), namespace)

    def script() -> None:
        load.load_plan(None)  # type: ignore[arg-type] # fails inside of ours

    with pytest.raises(TypeError) as caught:
        namespace["run"](script)  # type: ignore[operator] # it is the function above
    caught.value.__traceback__ = caught.value.__traceback__ and caught.value.__traceback__.tb_next
    trace = failure_trace(caught.value)
    assert trace.startswith("Traceback (most recent call last):")
    assert "in run" not in trace
    assert trace.index("in script") < trace.index("in load_plan")
