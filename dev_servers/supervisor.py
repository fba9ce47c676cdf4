"""Keeps one child from outliving the process that asked for it. Run as a script, with the standard library alone.

    python -I -S supervisor.py OPTIONS    OPTIONS: JSON, see :class:`dev_servers.process.ChildProcess`

Standard input is the lifeline: the asker holds its other end, and the kernel closes that end however the asker dies, SIGKILL
included. Then the child gets its stop signal and, when ``stop_seconds`` have passed, SIGKILL. A line on the lifeline is the number
of a signal for the child. Standard output: first ``started PID`` or ``failed REASON``, at the end ``ended CODE`` (negative: the
signal). The child's own output goes to standard error, which is the log file.

What is promised when this process is gone: the child and all its descendants are gone too. Descendants that were orphaned come to
this process (it is their subreaper) and are ended. If this process is itself killed, the kernel sends the child its stop signal.
On other systems than Linux there is neither subreaper nor that signal: only the lifeline and the child's process group.
"""

import contextlib
import ctypes
import json
import os
import pwd
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

LINUX = sys.platform == "linux"
ORPHANS_SECONDS = 3.0  # Postgres's backends notice within a moment that their postmaster was killed, and leave by themselves

# linux/prctl.h and linux/capability.h
PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_SET_CHILD_SUBREAPER = 36
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAP_DAC_OVERRIDE = 1
LINUX_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def _prctl(option: int, argument: int, second: int = 0) -> None:
    _checked(_libc.prctl(option, ctypes.c_ulong(argument), ctypes.c_ulong(second), 0, 0), f"prctl({option})")


def _leave_root() -> None:
    """Become ``nobody``: Postgres refuses to run as root.

    One right is kept, to pass directories that only root may enter: the virtual environment and the data often lie below a home
    directory or a private temporary directory, and their modes are not ours to change.
    """
    nobody = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setresgid(nobody.pw_gid, nobody.pw_gid, nobody.pw_gid)
    if LINUX:
        _prctl(PR_SET_KEEPCAPS, 1)
    os.setresuid(nobody.pw_uid, nobody.pw_uid, nobody.pw_uid)
    if LINUX:
        header = (ctypes.c_uint32 * 2)(LINUX_CAPABILITY_VERSION_3, 0)
        right = 1 << CAP_DAC_OVERRIDE
        data = (ctypes.c_uint32 * 6)(right, right, right, 0, 0, 0)  # effective, permitted, inheritable; the upper 32 rights: none
        _checked(_libc.capset(header, data), "capset")
        _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE)


class Supervisor:
    """Runs the child of one set of options to its end."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._command: list[str] = options["command"]
        self._directory: str | None = options["directory"]
        self._stop_signal: int = options["stop_signal"]
        self._stop_seconds: float = options["stop_seconds"]
        self._leave_root: bool = options["leave_root"] and os.geteuid() == 0
        self._kill_at: float | None = None

    def run(self) -> None:
        """Start the child, serve the lifeline, and return when nothing is left of either."""
        wakeup_read, wakeup_write = os.pipe()
        os.set_blocking(wakeup_write, False)
        signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])  # the asker's mask is not the child's
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._noticed)
        if LINUX:
            _prctl(PR_SET_CHILD_SUBREAPER, 1)
        try:
            child = subprocess.Popen(  # noqa: S603 - running what it is told is its purpose
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr,
                stderr=sys.stderr,
                cwd=self._directory,
                process_group=0,
                preexec_fn=self._prepare_child,  # noqa: PLW1509 - this process has one thread
            )
        except (OSError, subprocess.SubprocessError) as error:
            self._report(f"failed {error}")
            return
        self._report(f"started {child.pid}")
        lifeline: list[int] = [0]
        while child.poll() is None:
            if self._kill_at is not None and time.monotonic() >= self._kill_at:
                os.killpg(child.pid, signal.SIGKILL)
            wait_seconds = None if self._kill_at is None else max(self._kill_at - time.monotonic(), 0.05)
            readable, _, _ = select.select([*lifeline, wakeup_read], [], [], wait_seconds)
            if 0 in readable and not self._obey(child.pid):
                lifeline = []
            if wakeup_read in readable and set(os.read(wakeup_read, 64)) - {signal.SIGCHLD}:
                self._stop(child.pid)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        self._end_orphans()
        self._report(f"ended {child.returncode}")

    def _prepare_child(self) -> None:
        try:
            if self._leave_root:
                _leave_root()
            if LINUX:
                _prctl(PR_SET_PDEATHSIG, self._stop_signal)  # last: a change of user clears it
        except Exception as error:
            os.write(2, f"before its start: {error!r}\n".encode())  # Popen tells only that there was one
            raise

    def _obey(self, pid: int) -> bool:
        """Send the child what the lifeline asks for; False when the lifeline has ended."""
        words = os.read(0, 4096).split()
        if not words:
            self._stop(pid)
            return False
        for word in words:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, int(word))
        return True

    def _stop(self, pid: int) -> None:
        if self._kill_at is None:
            self._kill_at = time.monotonic() + self._stop_seconds
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, self._stop_signal)
                os.kill(pid, signal.SIGCONT)  # a stopped child could not obey

    @staticmethod
    def _end_orphans() -> None:
        """Wait for descendants that the child left behind; after a while, end them."""
        kill_at = time.monotonic() + ORPHANS_SECONDS
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                if time.monotonic() >= kill_at:
                    for word in Path("/proc/self/task", str(os.getpid()), "children").read_text().split():
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(int(word), signal.SIGKILL)
                time.sleep(0.01)

    @staticmethod
    def _noticed(_: int, __: FrameType | None) -> None:
        """Do nothing here: the wakeup descriptor tells the loop."""

    @staticmethod
    def _report(line: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # nobody is left to read it
            os.write(1, line.encode() + b"\n")


if __name__ == "__main__":
    Supervisor(json.loads(sys.argv[1])).run()
