"""The rules of the slots."""

from __future__ import annotations

import asyncio

from datadog_caselinks.gate import Gate
from tests.servers import settle


async def through(gate: Gate, passed: list[int], number: int, leave: asyncio.Event) -> None:
    async with gate:
        passed.append(number)
        await leave.wait()


async def test_no_more_than_its_slots_are_inside() -> None:
    """A third caller of two slots waits until one leaves."""
    gate, passed, leave = Gate(2), list[int](), [asyncio.Event() for _ in range(3)]
    tasks = [asyncio.create_task(through(gate, passed, number, leave[number])) for number in range(3)]
    await settle()
    assert passed == [0, 1]
    leave[1].set()
    await settle()
    assert passed == [0, 1, 2]
    leave[0].set()
    leave[2].set()
    await asyncio.gather(*tasks)


async def test_first_come_first_served() -> None:
    """Whoever waits longest goes next, also before one who comes just as a slot falls free."""
    gate, passed, leave = Gate(1), list[int](), asyncio.Event()
    tasks = [asyncio.create_task(through(gate, passed, number, leave)) for number in range(5)]
    await settle()
    leave.set()
    tasks.append(asyncio.create_task(through(gate, passed, 5, leave)))
    await asyncio.gather(*tasks)
    assert passed == [0, 1, 2, 3, 4, 5]


async def test_a_cancelled_waiter_takes_no_slot_along() -> None:
    """Neither a cancelled waiter nor one that is cancelled with its turn just come loses the slot."""
    gate, passed, leave = Gate(1), list[int](), asyncio.Event()
    async with gate:
        tasks = [asyncio.create_task(through(gate, passed, number, leave)) for number in range(3)]
        await settle()
        tasks[0].cancel()
        await settle()
    tasks[1].cancel()  # its turn has come, and it has not run yet
    leave.set()
    await asyncio.wait(tasks)
    assert passed == [2]
    async with asyncio.timeout(5), gate:
        pass


async def test_an_error_inside_frees_the_slot() -> None:
    """The slot is given back however the body ends."""
    gate = Gate(1)
    for _ in range(2):
        try:
            async with gate:
                raise RuntimeError
        except RuntimeError:
            pass
