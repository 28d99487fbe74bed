"""Keeps one rclone daemon for as long as any process uses it: each of them holds a lock that the system drops when the
process ends, however it ends. Run as a script, with the standard library only: keeper.py LOCK_FILE RCLONE ARGUMENTS...
"""

import ctypes
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading

_PR_SET_PDEATHSIG = 1


def keep(lock: str, command: list[str]) -> None:
    """Runs the command until it ends, or nobody holds the lock any more; then the lock's folder goes."""
    users = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent)
    signal.signal(signal.SIGTERM, lambda *_: server.kill())
    unused = threading.Event()

    def watch() -> None:
        fcntl.flock(users, fcntl.LOCK_EX)
        unused.set()
        server.terminate()
        try:
            server.wait(timeout=5)
        except subprocess.TimeoutExpired:
            server.kill()

    threading.Thread(target=watch, daemon=True).start()
    server.wait()
    if unused.is_set():
        shutil.rmtree(os.path.dirname(lock), ignore_errors=True)


def _die_with_parent() -> None:
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    except (OSError, AttributeError):
        return  # no Linux: the daemon outlives a keeper that is killed, until the next start takes its socket


if __name__ == "__main__":
    keep(sys.argv[1], sys.argv[2:])
