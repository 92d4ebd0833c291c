"""Signal handling; each test runs in a separate process, as signals reach a whole process."""

import signal
import subprocess
import sys

import pytest

HEADER = """
import os, signal, subprocess, sys, time
from moltc_vllm.utils.signals import block_sigint_in_children, sigint_watcher, stop_on_signal

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job may ignore SIGINT


def send(number):
    os.kill(os.getpid(), number)
    time.sleep(0.01)  # the handler runs between two bytecode instructions


def child_is_interrupted():
    code = "import os, signal; os.kill(os.getpid(), signal.SIGINT)"
    return subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL).returncode != 0
"""


def run_code(code):
    """Run code in a new process and return the lines that it prints."""
    run = subprocess.run(
        [sys.executable, "-c", HEADER + code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT}),
    )
    return run.stdout.split()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_stop_on_signal_requests_a_stop_and_then_raises(name):
    code = f"""
handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
try:
    with stop_on_signal() as should_stop:
        print(should_stop())
        send(signal.{name})
        print(should_stop())
        send(signal.SIGINT)
        print("not reached")
except KeyboardInterrupt:
    print("interrupted")
print(handlers == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)))
"""
    assert run_code(code) == ["False", "True", "interrupted", "True"]


def test_block_sigint_in_children_ends_with_the_block():
    code = """
print(child_is_interrupted())
with block_sigint_in_children():
    print(child_is_interrupted())
print(child_is_interrupted())
"""
    assert run_code(code) == ["True", "False", "True"]


def test_sigint_watcher_interrupts_the_main_thread():
    code = """
try:
    with sigint_watcher():
        print(child_is_interrupted())
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            time.sleep(0.01)
        print("not reached")
except KeyboardInterrupt:
    print("interrupted")
print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
"""
    assert run_code(code) == ["False", "interrupted", "False"]
