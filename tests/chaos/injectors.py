"""What goes wrong on the consumer's machine: system calls that kill or fail, disks, clocks.

`test_injectors.py` proves of each that its fault happens, and where.
"""

import fcntl
import os
import re
import shutil
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

# What changes files; a kill before each of these is a kill at every state that a disk can be in.
CHANGING_CALLS = (
    "openat,write,pwrite64,pwritev,writev,fsync,fdatasync,sync_file_range,ftruncate,truncate,"
    "fallocate,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat"
)
_WAIT_S = 10.0
# ext4 stops at once: what is not on the disk by then never gets there, its log included.
_EXT4_SHUTDOWN = 0x8004587D
_WITHOUT_LOG = 2


def lack(*tools: str) -> str | None:
    """Return what this machine lacks to inject faults with these tools, None where nothing."""
    if sys.platform != "linux":
        return "Linux: only it has these faults"
    if os.geteuid():
        return "root: only root mounts disks and traces anything"
    for tool in tools:
        if shutil.which(tool) is None:
            return f"the program {tool}: install its package"
    return None


def run_tool(*command: str, accepted: tuple[int, ...] = (0,)) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode in accepted, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


# System calls


@dataclass
class Traced:
    """A process whose system calls are watched, and killed or failed where it was asked."""

    log: Path
    process: "subprocess.Popen[bytes]"

    def lines(self) -> list[str]:
        return self.log.read_text(errors="replace").splitlines()

    def calls(self) -> Counter[str]:
        """Return how often each watched system call was made."""
        found = (re.match(r"(?:\d+ +)?(?:\S+ )?([a-z_0-9]+)\(", line) for line in self.lines())
        return Counter(match.group(1) for match in found if match)

    def is_killed(self) -> bool:
        """Tell whether the process died of SIGKILL inside a watched system call."""
        lines = self.lines()
        return any(line.endswith("+++ killed by SIGKILL +++") for line in lines)

    def injected(self) -> list[str]:
        """Return the system calls that were made to fail."""
        return [line for line in self.lines() if line.endswith("(INJECTED)")]


def trace_options(
    log: Path, calls: str, inject: str | None = None, paths: tuple[Path, ...] = ()
) -> list[str]:
    """Return the command that watches these system calls, and does something to some of them.

    `inject` is strace's, such as `fdatasync:error=EIO:when=2`; `paths` limit it to some files.
    """
    options = ["strace", "-f", "-qq", "-s", "0", "-o", str(log), "-e", f"trace={calls}"]
    if inject is not None:
        options += ["-e", f"inject={inject}"]
    for path in paths:
        options += ["-P", str(path)]
    return options


def attach(pid: int, log: Path, calls: str, inject: str | None = None) -> Traced:
    """Watch a stopped process; counting begins when it goes on."""
    command = [*trace_options(log, calls, inject), "-p", str(pid)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    status = Path(f"/proc/{pid}/status")
    wait_until(lambda: "TracerPid:\t0\n" not in status.read_text(), "strace did not attach")
    return Traced(log, process)


def wait_until(
    condition: Callable[[], object],
    why: str,
    timeout_s: float = _WAIT_S,
    every_s: float = 0.0005,
) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, why
        time.sleep(every_s)


def process_state(pid: int) -> str:
    """Return the letter of a process's state: `T` is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


# Disks


@dataclass
class Disk:
    """A mounted disk whose power can be cut; `cuts` counts how often that was done."""

    image: Path
    place: Path
    cuts: int = 0

    def cut_power(self) -> None:
        """Lose what is not on the disk; whoever still writes gets errors from now on."""
        descriptor = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _EXT4_SHUTDOWN, struct.pack("I", _WITHOUT_LOG))
        finally:
            os.close(descriptor)
        self.cuts += 1

    def turn_on(self) -> None:
        """Mount again what a power cut left; nobody may have a file of it open."""
        self.unmount()
        self.mount()

    def mount(self) -> None:
        run_tool("mount", "-o", "loop,errors=remount-ro", str(self.image), str(self.place))

    def unmount(self) -> None:
        kept = self._kept()
        run_tool("umount", str(self.place))
        # Mounted again too early it would be the same as before, without power.
        wait_until(lambda: not kept.exists(), f"{self.place} is still in use")

    def _kept(self) -> Path:
        """Return what exists as long as the system knows the disk."""
        device = run_tool("findmnt", "-n", "-o", "SOURCE", str(self.place)).strip()
        return Path("/sys/fs/ext4") / Path(device).name

    def make_read_only(self) -> None:
        """Let the file system find an error, on which it takes no more writes."""
        (self._kept() / "trigger_fs_error").write_text("1")

    def restore(self) -> None:
        """Check it and mount it again, as an operator does."""
        self.unmount()
        # The second pass finds nothing left to mend.
        for accepted in ((0, 1), (0,)):
            run_tool("e2fsck", "-fy", str(self.image), accepted=accepted)
        self.mount()


@contextmanager
def ext4_disk(folder: Path, size_mb: int = 64) -> Iterator[Disk]:
    disk = Disk(folder / "disk.img", folder / "disk")
    disk.place.mkdir()
    with disk.image.open("wb") as image:
        image.truncate(size_mb << 20)
    run_tool("mkfs.ext4", "-q", "-F", str(disk.image))
    # Whoever copies the mounts of this machine, as network namespaces do, learns of each unmount;
    # otherwise the copy keeps the disk as it is, power or not.
    run_tool("mount", "--bind", str(folder), str(folder))
    try:
        run_tool("mount", "--make-shared", str(folder))
        disk.mount()
        try:
            yield disk
        finally:
            disk.unmount()
    finally:
        run_tool("umount", str(folder))


@dataclass
class SmallDisk:
    """A disk with little room; `fill` takes what is left of it, `make_room` gives it back."""

    place: Path
    _filler: list[Path] = field(default_factory=list)

    def fill(self, leave_bytes: int = 0) -> None:
        filler = self.place / f"filler{len(self._filler)}"
        found = os.statvfs(self.place)
        free_bytes = found.f_bavail * found.f_bsize - leave_bytes
        self._filler.append(filler)
        # Somebody else may take some of the room meanwhile.
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            file.write(b"x" * free_bytes)

    def make_room(self) -> None:
        for filler in self._filler:
            filler.unlink()
        self._filler.clear()


@contextmanager
def small_disk(folder: Path, size_kb: int) -> Iterator[SmallDisk]:
    place = folder / "small"
    place.mkdir()
    run_tool("mount", "-t", "tmpfs", "-o", f"size={size_kb}k", "tmpfs", str(place))
    try:
        yield SmallDisk(place)
    finally:
        run_tool("umount", str(place))
