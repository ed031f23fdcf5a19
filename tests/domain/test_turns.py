"""Turns: what a user sends at once goes on a little at a time, and no turn gets lost."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from server.domain.writing import TooManyAtOnce, Turns

USER = uuid4()


async def let_the_loop_turn() -> None:
    """Let everybody go on as far as they can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_turns_come_in_the_order_of_asking() -> None:
    """One goes on, the others wait in line; another user has turns of their own."""
    turns, order = Turns(at_once=1, wait_seconds=60), list[int]()

    async def go_on(number: int) -> None:
        await turns.take(USER)
        order.append(number)

    await turns.take(USER)
    waiting = [asyncio.create_task(go_on(number)) for number in range(3)]
    await let_the_loop_turn()
    await turns.take(uuid4())
    assert [] == order
    for number in range(3):
        turns.give_back(USER)
        await waiting[number]
        assert list(range(number + 1)) == order
    turns.give_back(USER)
    assert USER not in turns._under_way


async def test_a_turn_that_does_not_come_in_time_is_refused() -> None:
    """And it is not waited for any more: the next one gets it."""
    turns = Turns(at_once=1, wait_seconds=0.01)
    await turns.take(USER)
    with pytest.raises(TooManyAtOnce):
        await turns.take(USER)
    turns.give_back(USER)
    await turns.take(USER)


async def test_a_turn_that_comes_together_with_the_end_of_the_waiting_is_passed_on() -> None:
    """A client that hangs up at the moment of its turn leaves it to the next in line."""
    turns = Turns(at_once=1, wait_seconds=60)
    await turns.take(USER)
    gone, next_one = (asyncio.create_task(turns.take(USER)) for _ in range(2))
    await let_the_loop_turn()
    turns.give_back(USER)
    gone.cancel()
    await let_the_loop_turn()
    assert gone.cancelled()
    assert next_one.done()
    turns.give_back(USER)
    assert USER not in turns._under_way
