"""Locks: nothing leaves them taken."""

from __future__ import annotations

import sys
import threading

import pytest

from lgkv.locks import Mutex, acquire_if_free
from tests.processes import run_program

INTERRUPTED = """
    import signal, threading
    from lgkv.locks import Mutex

    mutex, interruptions = Mutex(), 0

    def interrupt(*_):
        raise KeyboardInterrupt

    def take():
        signal.setitimer(signal.ITIMER_REAL, 0.0002)
        while True:
            for _ in range(100):
                with mutex:
                    pass

    signal.signal(signal.SIGALRM, interrupt)
    for _ in range(5000):
        try:
            take()
        except KeyboardInterrupt:
            interruptions += 1
        assert not mutex.locked(), interruptions
    print(interruptions)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="setitimer is POSIX's")
def test_interruption_leaves_no_mutex_taken() -> None:
    assert int(run_program(INTERRUPTED)) == 5000


def test_mutex_keeps_others_out() -> None:
    mutex, inside, most = Mutex(), [0], [0]

    def use() -> None:
        for _ in range(1000):
            with mutex:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert most == [1]


def test_mutex_is_let_go_of_after_an_error() -> None:
    mutex = Mutex()
    with pytest.raises(ValueError, match="wrong"), mutex:
        raise ValueError("wrong")

    assert not mutex.locked()


def test_condition_waits_on_a_mutex() -> None:
    mutex, told = Mutex(), []
    condition = threading.Condition(mutex)

    def tell() -> None:
        with mutex:
            told.append(1)
            condition.notify_all()

    with mutex:
        thread = threading.Thread(target=tell)
        thread.start()
        while not told:
            assert condition.wait(10)
    thread.join()


def test_mutex_is_taken_if_nobody_has_it() -> None:
    mutex = Mutex()
    assert acquire_if_free(mutex)
    assert not acquire_if_free(mutex)  # not even who has it
    mutex.release()
    assert acquire_if_free(mutex)
