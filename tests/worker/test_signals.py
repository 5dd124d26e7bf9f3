from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

from worker.signals import Stop, handled

RUNG_IN_THE_MIDST = """
import signal
from worker.signals import Stop, handled

stop = Stop()
with handled(stop, ring=(signal.SIGALRM,)):
    signal.setitimer(signal.ITIMER_REAL, 100e-6, 100e-6)
    for _ in range(10_000):
        stop.wait(60)
    signal.setitimer(signal.ITIMER_REAL, 0)
print("done")
"""


def test_a_ring_ends_one_wait_and_a_stop_every_one() -> None:
    stop = Stop()
    assert not stop.wait(0)
    stop.ring()
    stop.ring()
    assert stop.wait(60)
    assert not stop.is_set()
    waiting = threading.Thread(target=stop.wait, args=(60,), daemon=True)
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive(), "two rings before a wait are one"
    stop.set()
    waiting.join(30)
    assert not waiting.is_alive()
    assert stop.is_set()
    assert stop.wait(60)
    assert stop.wait(60)


def test_signals_set_it_and_the_former_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    stop = Stop()
    with handled(stop, ring=(signal.SIGUSR1,)):
        os.kill(os.getpid(), signal.SIGUSR1)
        assert stop.wait(60)
        assert not stop.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(60)
        assert stop.is_set()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_at_any_moment_of_the_wait_leaves_no_one_waiting() -> None:
    """With threading.Event, the handler met the lock that its own thread held: it hung, or died of recursion."""
    done = subprocess.run([sys.executable, "-c", RUNG_IN_THE_MIDST], capture_output=True, text=True, timeout=60)
    assert done.stdout == "done\n", done.stderr


TAKEN_BY_ANOTHER_THREAD = """
import os, signal, threading
from worker.signals import Stop, handled

stop = Stop()
with handled(stop):
    def take() -> None:
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    threading.Timer(0.2, take).start()
    print(stop.wait(3600))
"""


def test_a_signal_that_another_thread_takes_ends_the_wait_too() -> None:
    done = subprocess.run([sys.executable, "-c", TAKEN_BY_ANOTHER_THREAD], capture_output=True, text=True, timeout=60)
    assert done.stdout == "True\n", done.stderr
