"""Where the kernel has no parent-death signal, the end of the control channel ends the child."""

import signal
import socket
import subprocess
import sys

SCRIPT = """
import os, subprocess, sys, threading
from modelrepo_runtime.child import process
process._ask_for_death_signal = lambda: False
channel = process.open_channel(int(sys.argv[1]))
process.die_with_parent(channel, os.getppid())
helper = subprocess.Popen([sys.executable, "-c", "print('helper', flush=True); input()"], stdin=subprocess.PIPE)
threading.Event().wait()
"""


def test_the_end_of_the_channel_ends_the_child_and_its_group() -> None:
    near, far = socket.socketpair()
    child = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(far.fileno())],
        pass_fds=[far.fileno()],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    far.close()
    assert child.stdout is not None
    assert child.stdout.readline() == b"helper\n"
    near.close()
    assert child.wait(20) == -signal.SIGKILL
    assert child.stdout.read() == b"", "the helper has ended too, or it would hold the pipe"
    child.stdout.close()
