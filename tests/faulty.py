"""Servers that rclone reaches as drives, and a proxy before them that does what networks do at their worst."""

from __future__ import annotations

import socket
import struct
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from humanpose3d.remotes import rclone_binary
from tests.ports import free_port, wait_for_port

KINDS = ("s3", "webdav", "sftp")


@dataclass(frozen=True)
class Fault:
    """What happens to one connection, once `after` bytes have come down it."""

    kind: str  # cut, reset, hang, crawl (64 bytes every 50 ms), corrupt (one bit); "answer": instead of what was asked
    after: int = 100_000
    times: int = 1
    answer: bytes = b""


def busy(status: int, retry_after_s: int | None = None, *, times: int = 1) -> Fault:
    """An answer that says "too many requests" or "come back later"."""
    text = {429: "Too Many Requests", 503: "Service Unavailable"}[status]
    wait = f"Retry-After: {retry_after_s}\r\n" if retry_after_s is not None else ""
    answer = f"HTTP/1.1 {status} {text}\r\nContent-Length: 0\r\n{wait}Connection: close\r\n\r\n"
    return Fault("answer", 0, times, answer.encode())


class FaultyProxy:
    """Forwards TCP to a port on 127.0.0.1. Faults wait in a queue; each is met by the connections that get so far."""

    def __init__(self, origin: int) -> None:
        self.origin, self.delay_s = origin, 0.0
        self.bytes_down = 0
        self.met: list[str] = []  # the faults that happened
        self._faults: deque[Fault] = deque()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def plan(self, *faults: Fault) -> None:
        with self._lock:
            self._faults = deque(fault for fault in faults for _ in range(fault.times))

    def close(self) -> None:
        self._closed.set()
        for each in [self._listener, *self._sockets]:
            _shut(each)

    def __enter__(self) -> FaultyProxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client = self._listener.accept()[0]
                server = socket.create_connection(("127.0.0.1", self.origin), 5)
            except OSError:
                continue
            self._sockets += [client, server]
            threading.Thread(target=self._up, args=(client, server), daemon=True).start()
            threading.Thread(target=self._down, args=(server, client), daemon=True).start()

    def _take(self, kinds: tuple[str, ...], came: int) -> Fault | None:
        with self._lock:
            if self._faults and self._faults[0].kind in kinds and came > self._faults[0].after:
                self.met.append(self._faults[0].kind)
                return self._faults.popleft()
        return None

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(1 << 16):
                time.sleep(self.delay_s)
                is_question = data.startswith((b"GET ", b"HEAD ", b"PUT ", b"PROPFIND "))
                if is_question and (fault := self._take(("answer",), 1)) is not None:
                    client.sendall(fault.answer)
                    break
                if (fault := self._take(("corrupt up",), len(data))) is not None:
                    data = _flipped(data)
                server.sendall(data)
        _shut(client), _shut(server)

    def _down(self, server: socket.socket, client: socket.socket) -> None:
        came = 0
        with suppress(OSError):
            while data := server.recv(1 << 16):
                came += len(data)
                self.bytes_down += len(data)
                fault = self._take(("cut", "reset", "hang", "crawl", "corrupt"), came)
                if fault is not None and fault.kind == "cut":
                    break
                if fault is not None and fault.kind == "reset":
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
                    client.shutdown(socket.SHUT_RD)  # wakes the thread that listens to it: it holds the socket open
                    break
                if fault is not None and fault.kind == "hang":
                    self._closed.wait()
                if fault is not None and fault.kind == "crawl":
                    self._crawl(data, server, client)
                client.sendall(_flipped(data) if fault is not None and fault.kind == "corrupt" else data)
        _shut(client), _shut(server)

    def _crawl(self, data: bytes, server: socket.socket, client: socket.socket) -> None:
        while data and not self._closed.is_set():
            for start in range(0, len(data), 64):
                client.sendall(data[start : start + 64])
                if self._closed.wait(0.05):
                    return
            data = server.recv(1 << 16)


def _flipped(data: bytes) -> bytes:
    """One bit of it, in the middle: away from the headers of an answer."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


_LINGER_NOT = struct.pack("ii", 1, 0)  # closing such a socket resets its connection


def _shut(each: socket.socket) -> None:
    with suppress(OSError):
        if each.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, len(_LINGER_NOT)) != _LINGER_NOT:
            each.shutdown(socket.SHUT_RDWR)
    each.close()


@contextmanager
def serving(kind: str, folder: Path, work: Path, *, remembers: bool = False) -> Iterator[int]:
    """The port of an rclone server of `folder`.

    remembers: what it has listed, for a minute. Without that it sees at once what others write to `folder`, but spins
    for ever over some uploads that broke off.
    """
    port = free_port()
    login = {
        "s3": ["--auth-key", "KEY,SECRET"],
        "webdav": ["--user", "me", "--pass", "secret"],
        "sftp": ["--user", "me", "--pass", "secret"],
    }[kind]
    command = [str(rclone_binary()), "serve", kind, str(folder), "--addr", f"127.0.0.1:{port}", *login]
    command += [
        "--config",
        str(work / "none.conf"),
        "--cache-dir",
        str(work / "cache"),
        "--dir-cache-time",
        "1m" if remembers else "0",
    ]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_port(port, server)
        yield port
    finally:
        server.kill()
        server.wait(timeout=10)


def remote_settings(kind: str, port: int) -> str:
    """The section `[drive]` of an rclone configuration that reaches such a server."""
    obscured = subprocess.run(
        [str(rclone_binary()), "obscure", "secret"], capture_output=True, check=True, text=True
    ).stdout.strip()
    lines = {
        "s3": ["provider = Rclone", f"endpoint = http://127.0.0.1:{port}", "access_key_id = KEY",
               "secret_access_key = SECRET"],
        "webdav": [f"url = http://127.0.0.1:{port}", "vendor = rclone", "user = me", f"pass = {obscured}"],
        "sftp": ["host = 127.0.0.1", f"port = {port}", "user = me", f"pass = {obscured}"],
    }[kind]  # fmt: skip
    return "\n".join(["[drive]", f"type = {kind}", *lines, ""])
