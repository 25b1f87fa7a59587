"""What a process may do once it runs code that nobody has read: Linux's namespaces and Landlock, and limits everywhere.

All of it is asked of the kernel by the process itself, after a fork and before any such code, and cannot be taken back. Nothing
needs to be installed and nobody needs to be root. Source: the manual pages namespaces(7), user_namespaces(7), landlock(7).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import struct
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

LINUX = sys.platform == "linux"
NEW_USER, NEW_PID, NEW_NET, NEW_IPC, NEW_UTS, NEW_MOUNTS = (
    0x10000000, 0x20000000, 0x40000000, 0x08000000, 0x04000000, 0x00020000,
)  # fmt: skip
NOSUID, NODEV, NOEXEC, RECURSIVE, PRIVATE = 2, 4, 8, 0x4000, 0x40000
DEATH_SIGNAL, DUMPABLE, NO_NEW_PRIVS, SUBREAPER = 1, 4, 38, 36
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same numbers on every machine
READ_FILE, READ_DIR, WRITE_FILE, TRUNCATE = 1 << 2, 1 << 3, 1 << 1, 1 << 14
RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}  # how many rights over files each version of Landlock knows
FILES, PROCESSES, OPEN, CORE = 2**24, 64, 64, 0
SCRATCH = 2**26  # bytes of the folder that is the process's own


def libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _done(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _prctl(option: int, value: int) -> None:
    _done(libc().prctl(option, value, 0, 0, 0), "prctl")


def dies_with_its_parent() -> None:
    if LINUX:
        _prctl(DEATH_SIGNAL, signal.SIGKILL)


def adopts_orphans() -> None:
    """Processes below this one that lose their parent become its own, so that it can end them."""
    if LINUX:
        _prctl(SUBREAPER, 1)


def enter_namespaces() -> None:
    """Users, processes, network, mounts and messages of its own; the next child is process number 1 of a new world.

    Raises OSError where the kernel or its administrator does not allow it.
    """
    uid, gid = os.getuid(), os.getgid()
    flags = NEW_USER | NEW_PID | NEW_NET | NEW_IPC | NEW_UTS | NEW_MOUNTS
    _done(libc().unshare(flags), "unshare")
    for name, line in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        Path(f"/proc/self/{name}").write_text(line)
    with contextlib.suppress(OSError):  # nobody within makes a world of his own
        Path("/proc/sys/user/max_user_namespaces").write_text("0")
    _done(libc().mount(None, b"/", None, RECURSIVE | PRIVATE, None), "mount")


def own_scratch(folder: str) -> None:
    """A folder in memory, of limited size, in the place of this one. Only in a namespace of its own."""
    options = f"size={SCRATCH},nr_inodes=2000,mode=700".encode()
    _done(libc().mount(b"tmpfs", folder.encode(), b"tmpfs", NOSUID | NODEV | NOEXEC, options), "mount tmpfs")


def landlock_version() -> int:
    """The version of Landlock, 0 where there is none."""
    return max(0, libc().syscall(CREATE_RULESET, None, ctypes.c_size_t(0), 1)) if LINUX else 0


def lock(read: list[str], write: list[str]) -> None:
    """From here on only these can be read, and only these written; no program started, no network by TCP, and (from Landlock
    version 6 on) no signal sent to processes outside. Raises OSError where there is no Landlock."""
    version = landlock_version()
    rights = (1 << max(n for v, n in RIGHTS.items() if v <= max(version, 1))) - 1
    attributes = struct.pack("QQQ", rights, 0b11 if version >= 4 else 0, 0b11 if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    rules = _done(libc().syscall(CREATE_RULESET, attributes[:size], ctypes.c_size_t(size), 0), "Landlock")
    for paths, allowed in ((read, READ_FILE | READ_DIR), (write, rights & ~1)):
        for path in paths:
            _allow(rules, path, allowed & rights)
    _prctl(NO_NEW_PRIVS, 1)
    _done(libc().syscall(RESTRICT_SELF, rules, 0), "Landlock")
    os.close(rules)


def _allow(rules: int, path: str, allowed: int) -> None:
    with contextlib.suppress(FileNotFoundError, PermissionError):  # what cannot be reached need not be allowed
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        of_files = READ_FILE | WRITE_FILE | TRUNCATE
        attributes = struct.pack("=Qi", allowed if os.path.isdir(path) else allowed & of_files, place)
        _done(libc().syscall(ADD_RULE, rules, 1, attributes, 0), f"Landlock, {path}")
        os.close(place)


def readable() -> list[str]:
    """What Python, PyTorch and this package need to read, and the data sets; nothing else."""
    package = Path(__file__).resolve().parents[2]
    found = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    found += [str(package), *(p for p in sys.path if "-packages" in p or p.endswith(".zip") or p.endswith("lib-dynload"))]
    found += [str(package.parent / "results")] if (package.parent / "results").is_dir() else []
    found += [str(Path(os.environ.get("CLBOOK_DATA") or "~/.cache/clbook").expanduser())]
    found += ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache", "/etc/localtime"]
    found += ["/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"]
    prefix = Path(sys.base_prefix) / "lib"
    return list(dict.fromkeys(os.path.realpath(p) for p in [*found, str(prefix)] if p))


def drop_rights() -> None:
    """No capability is left, not even in its own namespace."""
    if LINUX:
        _prctl(NO_NEW_PRIVS, 1)
        header, data = struct.pack("Ii", 0x20080522, 0), struct.pack("6I", *[0] * 6)
        with contextlib.suppress(AttributeError):  # a C library without it
            _done(libc().capset(header, data), "capset")


def limit(seconds: float, memory_mb: float, alone: bool) -> None:
    """Seconds on the processor, address space beyond what is there, size of files, open files.

    And processes, where it is `alone` in a namespace: elsewhere all others of the same user would count.
    """
    import resource  # Windows has none

    most = int(seconds) + 1
    wanted = {"CPU": most, "FSIZE": FILES, "NOFILE": OPEN, "CORE": CORE}
    wanted |= {"NPROC": PROCESSES} if alone else {}
    if LINUX:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        wanted["AS"] = pages * resource.getpagesize() + int((memory_mb + 256) * 2**20)
    for name, value in wanted.items():
        with contextlib.suppress(ValueError, OSError):  # a limit that is lower already stays
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))


def works(attempt: Callable[[], None]) -> bool:
    """Whether a child process can do this and go on."""
    pid = os.fork()
    if pid == 0:
        done = 1
        with contextlib.suppress(BaseException):
            attempt()
            done = 0
        os._exit(done)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def probe(scratch: str) -> dict[str, int]:
    """What this machine offers: namespaces (0 or 1) and the version of Landlock (0 for none). Tried, not looked up."""

    def namespaces() -> None:
        enter_namespaces()
        pid = os.fork()  # the first process of the new world
        if pid == 0:
            fine = False
            with contextlib.suppress(BaseException):
                own_scratch(scratch)
                fine = os.getpid() == 1
            os._exit(0 if fine else 1)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
            raise OSError("no mounts of its own")

    def landlock() -> None:
        lock(readable(), [scratch])
        with contextlib.suppress(PermissionError):
            os.listdir("/")
            raise OSError("Landlock does not hold")

    version = landlock_version()
    return {
        "namespaces": int(LINUX and works(namespaces)),
        "landlock": version if version and works(landlock) else 0,
        "limits": 1,
    }
