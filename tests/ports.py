"""Free ports, and servers that listen on them."""

from __future__ import annotations

import socket
import subprocess
import time


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(port: int, server: subprocess.Popen) -> None:
    """Returns when the server answers there."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        assert server.poll() is None, f"{server.args} ended"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"{server.args} did not start in 20 s")
