"""Processes that share a limit, in the simulation of ``benchmarks/sharing.py``: none of them starves."""

from __future__ import annotations

import pytest

from benchmarks.sharing import PERIOD, Simulation, beside_a_bulk_run, picture, together

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", [1, 2])
def test_one_call_beside_a_bulk_run_waits_three_windows_at_most(seed: int) -> None:
    """A new process with one request gets its part of the windows that a busy process uses up."""
    waits = beside_a_bulk_run(40, seed=seed)
    assert waits[int(0.95 * len(waits)) - 1] <= 3


@pytest.mark.parametrize("seed", [1, 2])
def test_eight_busy_processes_have_few_requests_rejected(seed: int) -> None:
    """Eight processes get at most 10 % of their requests rejected, and are nearly as fast as one."""
    rejected, slowdown = together(8, seed=seed)
    assert rejected <= 0.1
    assert slowdown <= 1.15


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_process_that_is_alone_loses_nothing(seed: int) -> None:
    """A process that is alone gets no rejection, and the reserve for others costs no time."""
    rejected, slowdown = together(1, seed=seed)
    assert rejected == 0
    assert slowdown <= 1.03


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_responses_that_take_a_whole_window_are_not_taken_for_others(seed: int) -> None:
    """A process that is alone keeps the whole limit, however late its responses are.

    Each hundred requests need a probe, which takes a window, and then a window themselves.
    """
    one_way = (0.45 * PERIOD, 0.55 * PERIOD)
    rejected, slowdown = together(1, seed=seed, one_way=one_way)
    assert rejected == 0
    assert slowdown <= 4.5


def test_eight_processes_with_slow_responses_have_few_requests_rejected() -> None:
    """Eight processes get at most 10 % of their requests rejected even with responses of half a window."""
    rejected, _ = together(8, one_way=(0.23 * PERIOD, 0.27 * PERIOD))
    assert rejected <= 0.1


def test_a_thousand_processes_get_done() -> None:
    """A thousand processes all finish, although a window has fewer requests."""
    _, slowdown = together(1000)
    assert slowdown <= 1.3


def test_the_picture_has_a_bar_for_each_result() -> None:
    """Each bar of the picture has a grey background, and the description repeats the results."""
    drawn = picture([("alone", "0.0 %", 0.0), ("two", "1.0 %", 0.01)])
    assert drawn.count('class="ours"') == 2
    assert "alone: 0.0 %; two: 1.0 %" in drawn


def test_the_server_counts_in_aligned_windows() -> None:
    """The server of the simulation rejects the request after the last one of a window."""
    simulation = Simulation(1)
    served = [simulation.serve() for _ in range(201)]
    assert [is_rejected for _, is_rejected in served] == [False] * 200 + [True]
    assert served[-1][0].remaining == 0
