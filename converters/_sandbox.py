"""What a process gives up before it reads what a stranger wrote, as far as the kernel lets it.

Nothing here can be taken back, so it runs in a process that exists for one reading. Each part stands alone,
since kernels and containers differ in what they allow; `Ability` tells what was had.

- Limits: setrlimit(2).
- Network: an empty network namespace of its own, unshare(2), network_namespaces(7).
- Files: Landlock, landlock(7): nothing may be opened but what is named here, and nothing written.
- System calls: a filter, seccomp(2). It lists what is forbidden rather than what is allowed: a list of all
  that NumPy, HDF5 and FFmpeg need would differ from one build of them to the next.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_NO_NEW_PRIVILEGES = 38  # linux/prctl.h
_CLONE_NEWUSER, _CLONE_NEWNET, _CLONE_THREAD = 0x1000_0000, 0x4000_0000, 0x0001_0000  # linux/sched.h
_CPU_SECONDS = 6 * 3600
_OPEN_FILES = 256
_ADDRESS_SPACE = 1 << 33


@dataclass(frozen=True, slots=True)
class Ability:
    """One way of confining a process, and whether it is to be had here."""

    name: str
    given: bool
    detail: str


def confine(readable: Sequence[str], memory_bytes: int) -> list[Ability]:
    """Give up all that a reader does not need, and tell what of it the system took.

    Parameters
    ----------
    readable
        The files and folders that may be opened from now on, for reading only.
    memory_bytes
        Most bytes of memory; an allocation above fails.
    """
    parts: tuple[tuple[str, Callable[[], str]], ...] = (
        ("limits", lambda: _limit(memory_bytes)),
        ("no network", _leave_network),
        ("landlock", lambda: _landlock(readable)),
        ("seccomp", _filter_calls),
    )
    return [_tried(name, part) for name, part in parts]


def _tried(name: str, part: Callable[[], str]) -> Ability:
    try:
        return Ability(name, given=True, detail=part())
    except (OSError, ImportError, AttributeError, ValueError) as error:
        return Ability(name, given=False, detail=f"{getattr(error, 'strerror', None) or error}")


def _limit(memory_bytes: int) -> str:
    import resource

    wanted = {
        "RLIMIT_CORE": 0,
        "RLIMIT_FSIZE": 0,
        "RLIMIT_NOFILE": _OPEN_FILES,
        "RLIMIT_CPU": _CPU_SECONDS,
        "RLIMIT_AS": _ADDRESS_SPACE,
        "RLIMIT_DATA": memory_bytes,
    }
    held = []
    for name, most in wanted.items():
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        try:
            resource.setrlimit(kind, (bound, bound))
        except (OSError, ValueError):
            continue  # macOS takes no limit of memory
        held.append(name.removeprefix("RLIMIT_").lower())
    return ", ".join(held)


def _called(name: str, *arguments: object) -> int:
    """Call a function of the C library that returns what a system call does, or raise `OSError`."""
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, "is a facility of Linux")
    function = getattr(ctypes.CDLL(None, use_errno=True), name)
    function.restype = ctypes.c_long if name == "syscall" else ctypes.c_int
    result = int(function(*arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _call(number: int, *arguments: object) -> int:
    """Make a system call that the C library has no function for."""
    return _called("syscall", ctypes.c_long(number), *arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Machine:
    """The numbers of system calls on one kind of processor (asm/unistd.h), and its name in linux/audit.h."""

    audit: int
    seccomp: int
    clone: int
    tgkill: int
    prlimit64: int
    fcntl: int
    mmap: int
    forbidden: tuple[int, ...]


# The same everywhere: pidfd_send_signal, io_uring_*, the calls that mount, pidfd_open, pidfd_getfd,
# process_madvise, mount_setattr, process_mrelease, fchmodat2, setxattrat, removexattrat, file_setattr.
_LATE_CALLS = (*range(424, 435), 438, 440, 442, 448, 452, 463, 466, 469)
_CLONE3 = 435

# In both: socket, bind, listen, accept, connect, accept4, socketpair; ptrace, process_vm_readv,
# process_vm_writev, kill, tkill, rt_sigqueueinfo, rt_tgsigqueueinfo; mount, umount2, pivot_root, chroot,
# unshare, setns; execve, execveat; add_key, request_key, keyctl; bpf, perf_event_open, userfaultfd;
# init_module, finit_module, delete_module, kexec_load, reboot; open_by_handle_at, personality. Then what
# Landlock does not see: fchmod, fchmodat, fchown, fchownat, setxattr, lsetxattr, fsetxattr, removexattr,
# lremovexattr, fremovexattr, utimensat, truncate. Then what outlives a process and counts as no memory of it:
# shmget, shmat, shmctl, semget, semop, semctl, semtimedop, msgget, msgsnd, msgrcv, msgctl, mq_open,
# mq_unlink. On x86_64 fork, vfork, chmod, chown, lchown, utime, utimes and futimesat besides.
_MACHINES = {
    "x86_64": _Machine(
        audit=0xC000_003E,
        seccomp=317,
        clone=56,
        tgkill=234,
        prlimit64=302,
        fcntl=72,
        mmap=9,
        forbidden=(41, 49, 50, 43, 42, 288, 53, 101, 310, 311, 62, 200, 129, 297, 165, 166, 155, 161, 272,
                   308, 59, 322, 248, 249, 250, 321, 298, 323, 175, 313, 176, 246, 169, 304, 135,
                   91, 268, 93, 260, 188, 189, 190, 197, 198, 199, 280, 76,
                   29, 30, 31, 64, 65, 66, 220, 68, 69, 70, 71, 240, 241,
                   57, 58, 90, 92, 94, 132, 235, 261),
    ),
    "aarch64": _Machine(
        audit=0xC000_00B7,
        seccomp=277,
        clone=220,
        tgkill=131,
        prlimit64=261,
        fcntl=25,
        mmap=222,
        forbidden=(198, 200, 201, 202, 203, 242, 199, 117, 270, 271, 129, 130, 138, 240, 40, 39, 41, 51, 97,
                   268, 221, 281, 217, 218, 219, 280, 241, 282, 105, 273, 106, 104, 142, 265, 92,
                   52, 53, 55, 54, 5, 6, 7, 14, 15, 16, 88, 45,
                   194, 196, 195, 190, 193, 191, 192, 186, 189, 188, 187, 180, 181),
    ),
}  # fmt: skip


def _machine() -> _Machine:
    found = _MACHINES.get(platform.machine())
    if found is None or sys.platform != "linux" or sys.maxsize < 1 << 32:
        raise OSError(errno.ENOSYS, f"is not known here for {platform.machine()} and {sys.platform}")
    return found


def _leave_network() -> str:
    try:
        _called("unshare", _CLONE_NEWNET)
    except PermissionError:
        # Who may not make a network namespace may do so as the owner of a user namespace.
        _called("unshare", _CLONE_NEWUSER | _CLONE_NEWNET)
        return "a namespace of its own, in a user namespace"
    return "a namespace of its own"


# linux/landlock.h. Rights on files by the version of the interface that brought them.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_FILE_RIGHTS = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
_NET_RIGHTS = 0b11
_SCOPES = 0b11
_NET_SINCE, _SCOPES_SINCE = 4, 6
_ASK_VERSION = 1
_PATH_BENEATH = 1


def _landlock(readable: Iterable[str]) -> str:
    version = _call(_CREATE_RULESET, None, ctypes.c_size_t(0), _ASK_VERSION)
    rights = sum(bits for since, bits in _FILE_RIGHTS.items() if since <= version)
    words = [rights]
    if version >= _NET_SINCE:
        words.append(_NET_RIGHTS)
    if version >= _SCOPES_SINCE:
        words.append(_SCOPES)
    attributes = struct.pack(f"={len(words)}Q", *words)
    ruleset = _call(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    try:
        for path in readable:
            _allow(ruleset, path)
        _keep_privileges_down()
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return f"version {version}" + (", no TCP" if version >= _NET_SINCE else "")


def _allow(ruleset: int, path: str) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there needs no leave
    try:
        rights = _READ_FILE | _READ_DIR if Path(path).is_dir() else _READ_FILE
        _call(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, place), 0)
    finally:
        os.close(place)


def _keep_privileges_down() -> None:
    _called("prctl", _NO_NEW_PRIVILEGES, 1, 0, 0, 0)


# linux/filter.h, linux/bpf_common.h, linux/seccomp.h
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_AT_NUMBER, _AT_MACHINE, _AT_ARGUMENTS = 0, 4, 16
_ALLOW, _REFUSE, _KILL = 0x7FFF_0000, 0x0005_0000, 0x8000_0000
_MODE_FILTER, _ALL_THREADS = 1, 1
_X32_CALLS = 0x4000_0000
_F_SETOWN, _F_SETSIG, _F_SETOWN_EX = 8, 10, 15  # linux/fcntl.h
_MAP_SHARED, _MAP_ANONYMOUS, _MAP_GROWSDOWN = 0x01, 0x20, 0x100  # linux/mman.h

_Step = tuple[int, int, int, int]


def _filter_calls() -> str:
    machine = _machine()
    _keep_privileges_down()
    program = b"".join(struct.pack("=HBBI", *step) for step in _program(machine))
    code = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    _call(machine.seccomp, _MODE_FILTER, _ALL_THREADS, head)
    return f"{len(machine.forbidden) + len(_LATE_CALLS) + 1} system calls forbidden, 5 restricted"


def _program(machine: _Machine) -> Iterator[_Step]:
    """Yield the filter's steps: (code, steps to skip if true, if false, operand)."""
    yield _LOAD, 0, 0, _AT_MACHINE
    yield _EQUAL, 1, 0, machine.audit
    yield _RETURN, 0, 0, _KILL
    yield _LOAD, 0, 0, _AT_NUMBER
    yield _AT_LEAST, 0, 1, _X32_CALLS
    yield _RETURN, 0, 0, _KILL
    for number in (*machine.forbidden, *_LATE_CALLS):
        yield _EQUAL, 0, 1, number
        yield _RETURN, 0, 0, _REFUSE | errno.EPERM
    # Its flags lie in memory, where no filter can look: libraries take clone where there is no clone3.
    yield _EQUAL, 0, 1, _CLONE3
    yield _RETURN, 0, 0, _REFUSE | errno.ENOSYS
    own = ((_EQUAL, os.getpid(), _ALLOW),)
    yield from _judged(machine.clone, 0, ((_ANY_BIT, _CLONE_THREAD, _ALLOW),), _REFUSE | errno.EPERM)
    yield from _judged(machine.tgkill, 0, own, _REFUSE | errno.EPERM)
    yield from _judged(machine.prlimit64, 0, (*own, (_EQUAL, 0, _ALLOW)), _REFUSE | errno.EPERM)
    # Whose signals a file's owner gets is not asked of Landlock by every kernel.
    owners = tuple((_EQUAL, what, _REFUSE | errno.EPERM) for what in (_F_SETOWN, _F_SETSIG, _F_SETOWN_EX))
    yield from _judged(machine.fcntl, 1, owners, _ALLOW)
    # Neither shared memory nor a growing stack counts for RLIMIT_DATA (mm/mmap.c: is_data_mapping).
    shared = _MAP_SHARED | _MAP_ANONYMOUS
    tests = ((_ANY_BIT, _MAP_GROWSDOWN, _REFUSE | errno.ENOMEM), (_EQUAL, shared, _REFUSE | errno.ENOMEM))
    yield from _judged(machine.mmap, 3, tests, _ALLOW, mask=shared | _MAP_GROWSDOWN)
    yield _RETURN, 0, 0, _ALLOW


def _judged(
    number: int, argument: int, tests: Sequence[tuple[int, int, int]], otherwise: int, mask: int = 0xFFFF_FFFF
) -> Iterator[_Step]:
    """Yield the steps that judge a call by an argument's lower half: the first test that holds tells."""
    yield _EQUAL, 0, 2 * len(tests) + 3, number
    yield _LOAD, 0, 0, _AT_ARGUMENTS + 8 * argument
    yield _AND, 0, 0, mask
    for test, operand, verdict in tests:
        yield test, 0, 1, operand
        yield _RETURN, 0, 0, verdict
    yield _RETURN, 0, 0, otherwise
