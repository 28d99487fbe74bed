"""One `rclone rcd` a machine, shared by all processes of a user that need the same one, on a private unix socket.

It starts on first use, is started anew where it died, and ends with the last process that uses it (`keeper.py`).
"""

from __future__ import annotations

import hashlib
import http.client
import json
import logging
import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from humanpose3d.remotes import rclone
from humanpose3d.remotes.rclone import Failure, Pace, config_path, limit_flags

try:
    import fcntl
except ImportError:  # Windows: no unix sockets either; each call is a process there
    fcntl = None  # type: ignore[assignment]

SWITCH = "HUMANPOSE3D_RCLONE_DAEMON"  # "0": each call starts an rclone process of its own
FOLDER = "HUMANPOSE3D_RCLONE_FOLDER"  # where the daemons' folders lie; set for the processes we start
KEEPER = Path(__file__).with_name("keeper.py")
USERS = "users"  # in a daemon's folder: locked, shared, by everyone who uses it
START_S = 20.0  # from start to the first answer; it takes 0.1 s
POLL_S = 0.01
LONGEST_SOCKET = 100  # bytes of a unix socket's path
BLOCK = 256 << 10
CRAWL_S = 20.0  # a transfer slower than SLOWEST_BYTES_PER_S for so long is asked for anew
# What decides which drives rclone reaches, and as whom: processes that differ in it do not share a daemon.
_SETTINGS = ("RCLONE_", "AWS_", "AZURE_", "GOOGLE_", "OS_", "ST_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")

_log = logging.getLogger("humanpose3d")


class NoDaemon(Exception):
    """A daemon cannot run here."""


class Daemon:
    """The daemon of one folder, and this process's connections to it, one a thread."""

    def __init__(self, folder: Path, command: Sequence[str]) -> None:
        self.folder, self.socket_path = folder, folder / "rcd.sock"
        self._command = [*command, "--rc-addr", f"unix://{self.socket_path}"]
        self._own = threading.local()
        self._starting = threading.Lock()
        self._users: int | None = None  # descriptor whose lock says that we use it
        self._keeper: subprocess.Popen | None = None

    def call(self, method: str, limit_s: float, **arguments: Any) -> dict[str, Any]:
        """The answer of a remote-control method. FileNotFoundError: no such file or folder. Failure."""
        body = json.dumps(arguments).encode()
        with self._answer("POST", f"/{method}", {"Content-Type": "application/json"}, body, limit_s) as answer:
            return json.loads(_rest(answer))

    def size(self, fs: str, name: str, limit_s: float) -> tuple[int, str]:
        """(bytes, time of change as text) of a file. FileNotFoundError; Failure."""
        try:
            with self._answer("HEAD", _target(fs, name), {}, None, limit_s) as answer:
                return int(answer.headers["Content-Length"]), answer.headers.get("Last-Modified", "")
        except Failure:
            # The answer to a HEAD has no room for the reason.
            with self._answer("GET", _target(fs, name), {"Range": "bytes=0-0"}, None, limit_s) as answer:
                total = _total(answer)
                return int(answer.headers["Content-Length"]) if total is None else total, ""

    @contextmanager
    def read(self, fs: str, name: str, offset: int, length: int | None, limit_s: float) -> Iterator[Reading]:
        """A file's bytes from `offset` on, all of them or `length`. FileNotFoundError; Failure."""
        headers = {} if length is None else {"Range": f"bytes={offset}-{offset + length - 1}"}
        with self._answer("GET", _target(fs, name), headers, None, limit_s, is_range=length is not None) as answer:
            yield Reading(answer, offset)

    @contextmanager
    def _answer(
        self,
        verb: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | None,
        limit_s: float,
        *,
        is_range: bool = False,
    ) -> Iterator[http.client.HTTPResponse]:
        """A good answer, whose rest is thrown away at the end. Any trouble closes the connection."""
        is_done = False
        try:
            answer = self._send(verb, target, headers, body, limit_s)
            if answer.status not in (200, 206) and not (is_range and answer.headers.get("Content-Range")):
                raise _explained(answer, target)
            yield answer
            is_done = answer.isclosed()
        except TimeoutError:
            raise Failure(f"no answer for {limit_s:.0f} s") from None
        except (http.client.HTTPException, ConnectionError) as error:
            raise Failure(f"the rclone daemon hung up ({type(error).__name__})") from None
        finally:
            if not is_done:
                self._hang_up()

    def _send(
        self, verb: str, target: str, headers: Mapping[str, str], body: bytes | None, limit_s: float
    ) -> http.client.HTTPResponse:
        connection, is_used = self._connection(limit_s)
        try:
            connection.request(verb, target, body, dict(headers))
            return connection.getresponse()
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            if not is_used:
                raise
        # It was closed while nobody used it, or the daemon has been started anew since.
        self._hang_up()
        connection, _ = self._connection(limit_s)
        connection.request(verb, target, body, dict(headers))
        return connection.getresponse()

    def _connection(self, limit_s: float) -> tuple[http.client.HTTPConnection, bool]:
        """(this thread's connection, whether it was used before)."""
        connection = getattr(self._own, "connection", None)
        if connection is not None and connection.sock is not None and self._own.pid == os.getpid():
            connection.timeout = limit_s
            connection.sock.settimeout(limit_s)
            return connection, True
        self._own.connection, self._own.pid = _UnixConnection(self._connected(), limit_s), os.getpid()
        return self._own.connection, False

    def _hang_up(self) -> None:
        connection = getattr(self._own, "connection", None)
        if connection is not None:
            connection.close()
            self._own.connection = None

    def _connected(self) -> socket.socket:
        for _ in range(3):
            with self._starting:
                self._use()
            try:
                return _dial(self.socket_path)
            except OSError:
                with self._starting:
                    self._start()
        raise NoDaemon(f"rclone's daemon in {self.folder} dies as soon as it has started; its log is there")

    def _use(self) -> None:
        """Holds the users' lock, in a folder that is there."""
        until = time.monotonic() + START_S
        while self._users is None or not _is_at(self._users, self.folder / USERS):
            users = -1
            try:
                _private_folder(self.folder)
                users = os.open(self.folder / USERS, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                fcntl.flock(users, fcntl.LOCK_SH | fcntl.LOCK_NB)
                if _is_at(users, self.folder / USERS):
                    self._users, users = users, -1  # an older one stays ours: its keeper serves other threads still
            except (BlockingIOError, FileNotFoundError):  # a keeper is ending it at this moment
                if time.monotonic() > until:
                    raise NoDaemon(f"{self.folder / USERS} stays locked") from None
                time.sleep(POLL_S)
            finally:
                if users >= 0:
                    os.close(users)

    def _start(self) -> None:
        """Starts the daemon, unless another process just did."""
        until = time.monotonic() + START_S
        with (self.folder / "start.lock").open("ab") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > until:
                        raise NoDaemon(f"another process has been starting {self.folder} for {START_S:.0f} s") from None
                    time.sleep(POLL_S)
            if self._is_up():
                return
            self.socket_path.unlink(missing_ok=True)
            log = self.folder / "log"
            with log.open("wb") as output:
                self._keeper = self._launch(output)
            while not self._is_up():
                if self._keeper.poll() is not None or time.monotonic() > until:
                    self._keeper.terminate()
                    told = log.read_text(errors="replace").strip().splitlines()
                    raise NoDaemon(told[-1] if told else f"it did not answer within {START_S:.0f} s")
                time.sleep(POLL_S)

    def _launch(self, output: IO[bytes]) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(KEEPER), str(self.folder / USERS), *self._command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # a Ctrl-C is for the program, which may still have files to finish
            env={name: value for name, value in os.environ.items() if not name.startswith("RCLONE_RC")},
        )

    def _is_up(self) -> bool:
        try:
            _dial(self.socket_path).close()
            return True
        except OSError:
            return False


class Reading:
    """The body of one answer: what it says of the file, and its blocks."""

    def __init__(self, answer: http.client.HTTPResponse, offset: int) -> None:
        self._answer = answer
        self.total = _total(answer)  # bytes of the whole file
        if self.total is None and answer.status == 200:
            self.total = int(answer.headers["Content-Length"])
        self._is_past_end = answer.status not in (200, 206)
        self._skip = offset if answer.status == 200 else 0  # a drive that cannot seek sends all of it

    def blocks(self, buffer: memoryview) -> Iterator[memoryview]:
        """Parts of `buffer`, filled; each is to be used before the next. Failure where it comes too slowly."""
        if self._is_past_end:
            return
        came, start = 0, time.monotonic()
        while count := self._receive(buffer):
            came += count
            now = time.monotonic()
            if now - start > CRAWL_S:
                if came < rclone.SLOWEST_BYTES_PER_S * (now - start):
                    raise Failure(f"{came} bytes in {now - start:.0f} s: too slow")
                came, start = 0, now
            if self._skip >= count:
                self._skip -= count
                continue
            yield buffer[self._skip : count]
            self._skip = 0

    def _receive(self, buffer: memoryview) -> int:
        """What has come, up to a buffer full. `readinto` would wait for all of that, however slowly it trickles."""
        left, source = self._answer.length, self._answer.fp
        if left is None or source is None:
            return self._answer.readinto(buffer)
        count = source.readinto1(buffer[:left])
        self._answer.length = left - count
        if count == left:
            self._answer.close()  # the body, not the connection
        return count


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a socket that is connected already."""

    def __init__(self, connected: socket.socket, limit_s: float) -> None:
        super().__init__("rclone", timeout=limit_s)
        self.sock = connected
        connected.settimeout(limit_s)
        self.auto_open = 0


_daemons: dict[Path, Daemon] = {}
_guard = threading.Lock()
_given_up: set[Path] = set()


def _forget() -> None:
    """In a forked child: another thread may have held a lock, and connections are the parent's."""
    global _guard
    _guard = threading.Lock()
    _daemons.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def daemon_for(flags: Sequence[str]) -> Daemon | None:
    """The daemon with these throttle flags; None where each call is to be a process of its own."""
    if os.environ.get(SWITCH, "") == "0" or fcntl is None:
        return None
    command = [
        str(rclone.rclone_binary()), "rcd", "--rc-serve", "--rc-no-auth", "--log-level", "ERROR",
        "--ask-password=false", "--rc-server-read-timeout", "48h", "--rc-server-write-timeout", "48h",
        *limit_flags(), *flags,
    ]  # fmt: skip
    folder = _folder_of(command)
    with _guard:
        if folder in _given_up:
            return None
        return _daemons.setdefault(folder, Daemon(folder, command))


def give_up(daemon: Daemon, reason: Exception) -> None:
    """From now on each call of this process is an rclone process of its own; said once."""
    with _guard:
        if daemon.folder in _given_up:
            return
        _given_up.add(daemon.folder)
    _log.warning("rclone's daemon cannot run here (%s): each request starts a process of its own, 50 ms each", reason)


def pace_of(remote: str, flags: Sequence[str]) -> Pace:
    """The pace that all processes keep with one remote."""
    daemon = daemon_for(flags)
    key = (daemon.folder if daemon else None, remote)
    with _guard:
        if key not in _paces:
            name = hashlib.sha256(remote.encode()).hexdigest()[:8]
            _paces[key] = Pace(daemon.folder / f"pause-{name}" if daemon else None)
        return _paces[key]


_paces: dict[tuple[Path | None, str], Pace] = {}


def _folder_of(command: Sequence[str]) -> Path:
    """One for all processes of this user that would start the same daemon in the same surroundings."""
    settings = {name: value for name, value in sorted(os.environ.items()) if name.upper().startswith(_SETTINGS)}
    facts = json.dumps([list(command), str(config_path().absolute()), settings])
    name = f"hp3d-{os.getuid()}-{hashlib.sha256(facts.encode()).hexdigest()[:10]}"
    base = os.environ.get(FOLDER) or tempfile.gettempdir()
    if len(os.fsencode(f"{base}/{name}/rcd.sock")) > LONGEST_SOCKET:
        base = "/tmp"
    os.environ[FOLDER] = base  # a child may have another TMPDIR
    return Path(base) / name


def _private_folder(folder: Path) -> None:
    """Makes it, for this user alone: it is all that protects the socket. NoDaemon where it is somebody else's."""
    try:
        folder.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        pass
    except OSError as error:
        raise NoDaemon(f"{folder} cannot be made ({error.strerror})") from None
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise NoDaemon(f"{folder} is not a private folder of this user")


def _dial(path: Path) -> socket.socket:
    dialled = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        dialled.settimeout(START_S)
        dialled.connect(str(path))
        return dialled
    except BaseException:
        dialled.close()
        raise


def _is_at(descriptor: int, path: Path) -> bool:
    """The open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _target(fs: str, name: str) -> str:
    """The address of a file. A "]" would end the remote's part of it: a folder with one goes into the other part."""
    if "]" in fs:
        cut = fs.rfind("/", 0, fs.index("]"))
        cut = cut if cut >= 0 else fs.index(":")
        fs, name = fs[: cut + 1], f"{fs[cut + 1 :].rstrip('/')}/{name}"
    return f"/{quote(f'[{fs}]', safe='')}/{quote(name)}"


def _total(answer: http.client.HTTPResponse) -> int | None:
    total = answer.headers.get("Content-Range", "").rpartition("/")[2]
    return int(total) if total.isdigit() else None


def _rest(answer: http.client.HTTPResponse) -> bytes:
    data = answer.read()
    if answer.length:
        raise Failure("the answer is cut short")
    return data


def _explained(answer: http.client.HTTPResponse, target: str) -> Exception:
    """What went wrong, from an answer that says so."""
    text = answer.read()
    try:
        complaint = str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        complaint = text.decode(errors="replace").strip() or f"status {answer.status}"
    complaint = " ".join(complaint.split())
    if answer.status == 404 or "is a directory" in complaint:
        return FileNotFoundError(f"{target} is missing")
    told = answer.headers.get("Retry-After", "")
    return Failure(complaint, retry_after_s=float(told) if told.isdigit() else None)
