"""What a run of the tests prints at its end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.programs import for_want_of, skipped_for_want
from tests.support.properties import as_decorators

FAILURE = """
    @given(count=st.integers(), name=st.text())
>   def test_both(count: int, name: str) -> None:
E   assert 5 < 5
E   Failing test case: test_both(
E       count=5,
E       name='(',  # or any other generated value
E   )
E
E   You can reproduce this test case by temporarily adding @reproduce_failure('6.170.1', b'AXicY2AFAA==') as a decorator
"""


def skipped(reason: str) -> pytest.TestReport:
    """A test's report, as if it had been skipped."""
    place = ("tests/test_x.py", 1, f"Skipped: {reason}")
    return pytest.TestReport("tests/test_x.py::test", ("", 1, ""), {}, "skipped", place, "setup")


def test_skips_are_counted_by_program() -> None:
    """One line a program; what is skipped for another reason is not among them."""
    reasons = [for_want_of("chromium")] * 2 + [
        for_want_of("promtool", "prometheus"),
        "only root needs a way around",
    ]
    assert [
        "skipped for want of chromium: 2 tests",
        "skipped for want of promtool: 1 test",
    ] == skipped_for_want(map(skipped, reasons))


def test_an_example_that_fails_can_be_pasted() -> None:
    """Its arguments are one line, without remarks; so is what Hypothesis needs to repeat it."""
    assert [
        "@example(count=5, name='(')",
        "@reproduce_failure('6.170.1', b'AXicY2AFAA==')",
    ] == list(as_decorators(FAILURE))


def test_a_failure_of_hypothesis_itself_can_be_pasted() -> None:
    """What the installed Hypothesis adds to an error is read as an example."""

    @given(st.integers(min_value=0))
    def fails_from_five_on(count: int) -> None:
        assert count < 5

    with pytest.raises(AssertionError) as caught:
        fails_from_five_on()
    assert "@example(count=5)" in list(as_decorators("\n".join(caught.value.__notes__)))
