"""What a role needs of its own machine while it runs: room, a folder, and no port too many."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from fleetpulse.domain.errors import AlreadyRunning
from fleetpulse.domain.role import Role
from fleetpulse.edges.overlay import Address, is_overlay, overlay_networks
from fleetpulse.edges.place import Room, prove_writable, room_at
from fleetpulse.edges.ports import OpenPort, open_ports
from fleetpulse.edges.sink.disk import Lock
from fleetpulse.edges.sink.state import STATE_SUFFIX, StateStore
from fleetpulse.roles.broker import data_dir
from fleetpulse.roles.checks.case import Case, address_of, own_addresses
from fleetpulse.roles.checks.verdict import Verdict, failed, passed, warned

_MIB: Final = 1 << 20
_GIB: Final = 1 << 30
_FAIL_BYTES: Final = 200 * _MIB
_FAIL_SHARE: Final = 0.01
_WARN_BYTES: Final = 5 * _GIB
_WARN_SHARE: Final = 0.1
# Roles that keep a state in the output folder, under their own name.
_KEEPERS: Final = (Role.CONSUMER1, Role.CONSUMER2, Role.MONITOR, Role.SPARK_STREAM)


def disk(case: Case) -> Verdict:
    """See how much room the disks of the outputs and of the broker's messages have."""
    folders = [case.settings.output_dir]
    broker = data_dir(case.settings, None)
    if case.role is Role.BROKER or (case.role is None and broker.exists()):
        folders.append(broker)
    return judge_rooms({folder: room_at(folder) for folder in folders})


def judge_rooms(rooms: dict[Path, Room]) -> Verdict:
    """Return what is to be said of folders with this much room."""
    texts = {
        folder: f"{folder}: {_size(room.free_bytes)} free of {_size(room.total_bytes)}"
        for folder, room in rooms.items()
    }
    step = "make room, or set output_dir to a larger disk"
    for folder, room in rooms.items():
        if room.free_bytes < max(_FAIL_BYTES, _FAIL_SHARE * room.total_bytes):
            return failed(f"{texts[folder]}; {step}")
    for folder, room in rooms.items():
        if room.free_bytes < max(_WARN_BYTES, _WARN_SHARE * room.total_bytes):
            return warned(f"{texts[folder]}; {step}")
    return passed("; ".join(texts.values()))


def output(case: Case) -> Verdict:
    """Write a file where the outputs go, and look at the states that roles keep there."""
    folder = case.settings.output_dir
    prove_writable(folder)
    names = [case.role] if case.role in _KEEPERS else [] if case.role else _KEEPERS
    running = [text for name in names if name and (text := _state(folder, name.value))]
    return passed("; ".join([f"{folder} can be written", *running]))


def _state(folder: Path, name: str) -> str | None:
    """Return who runs a role there; raises where its state cannot be used."""
    lock_path, state_path = folder / f"{name}.lock", folder / f"{name}{STATE_SUFFIX}"
    if not lock_path.exists() or not state_path.exists():
        return None
    try:
        lock = Lock(lock_path)
    except AlreadyRunning as err:
        return str(err).partition(";")[0]
    try:
        StateStore(state_path).close()
    finally:
        lock.close()
    return f"the state of {name} is whole"


def ports(case: Case) -> Verdict:
    """See that nothing of ours takes connections from beyond this machine and its VPN."""
    overlay = overlay_networks(case.settings.overlay.network, case.overlay)
    everything = own_addresses()
    mine = {one.address for one in everything}
    given = [address_of(one) for one in case.addresses]
    serves = case.role is Role.BROKER or any(one in mine for one in given)
    allowed = [one.address for one in everything if is_overlay(one.address, overlay)]
    if not overlay:
        # Without a VPN the broker may serve the local network; `overlay` has said so.
        allowed += [one for one in given if one is not None]
    own = [
        one
        for one in open_ports()
        if (serves and one.port == case.settings.broker.port) or is_ours(one.command)
    ]
    return judge_ports(own, allowed)


def judge_ports(own: Sequence[OpenPort], allowed: Iterable[Address]) -> Verdict:
    """Return what is to be said of our open ports; loopback and `allowed` are no danger."""
    good = set(allowed)
    exposed = [one for one in own if not one.address.is_loopback and one.address not in good]
    if exposed:
        whose = ", ".join(
            f"{one.place} (process {one.pid})" if one.pid else one.place for one in exposed
        )
        return failed(
            f"open beyond this machine and its VPN: {whose}; for the broker set hosts.broker to "
            "the overlay address (fleetpulse broker config --advertise-overlay) and start it "
            "again, stop anything else"
        )
    places = ", ".join(one.place for one in own if not one.address.is_loopback)
    return passed(f"ours are on this machine and its VPN alone{f' ({places})' if places else ''}")


def is_ours(command: tuple[str, ...]) -> bool:
    """Tell whether a command line is that of a command of ours, or of a broker that it started."""
    if "kafka.Kafka" in command:
        # No other broker has the settings of its log beside its own.
        log_settings = Path(command[-1]).with_name("log4j2.properties")
        return f"-Dlog4j2.configurationFile=file://{log_settings}" in command
    # Started by its name, by the interpreter that its first line names, or as a module.
    started_as = [Path(word).name for word in command[:2]]
    return "fleetpulse" in started_as or command[1:3] == ("-m", "fleetpulse")


def _size(count: int) -> str:
    return f"{count / _GIB:.1f} GiB" if count >= _GIB else f"{count / _MIB:.0f} MiB"
