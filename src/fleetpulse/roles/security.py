"""The security folder: an authority, and for each machine the folder that is copied to it.

The folder, and in it who may know what:

    ca.key                  signs certificates; stays on the machine where the folder was made
    ca.pem                  what every machine trusts
    MACHINE/config.yaml     its settings; paths in them are relative to this file
    MACHINE/ca.pem
    MACHINE/identity.pem    its key, then its certificate
    MACHINE/password        of the user that it logs in as
    broker/users/USER.password    what the broker lets users in by
"""

import datetime as dt
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from fleetpulse.config import Settings, load
from fleetpulse.config.written import written
from fleetpulse.domain.errors import FleetpulseError, UsageError
from fleetpulse.domain.machine import Machine
from fleetpulse.edges.credentials.authority import Authority
from fleetpulse.edges.credentials.certificate import CertificateFacts, certificate_facts
from fleetpulse.edges.credentials.folder import PRIVATE, PUBLIC, new_folder, replace_file
from fleetpulse.edges.credentials.secret_file import read_secret
from fleetpulse.roles.member import located

# Time to renew before the roles stop.
WARNING_DAYS: Final = 30
CA_KEY: Final = "ca.key"
CA: Final = "ca.pem"
IDENTITY: Final = "identity.pem"
PASSWORD: Final = "password"  # noqa: S105  the name of a file
USERS: Final = "users"
SETTINGS: Final = "config.yaml"
_PASSWORD_BYTES: Final = 32
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class MachineFolder:
    """A machine's folder, where it belongs (None: not in the settings), and until when it holds."""

    machine: Machine
    path: Path
    host: str | None
    not_after: dt.datetime

    @property
    def is_here(self) -> bool:
        """Tell whether the machine is the one where the folder was made."""
        return self.host in _LOOPBACK


@dataclass(frozen=True, slots=True)
class Finding:
    """A certificate with the whole days until its end, and what is wrong with it or its folder.

    Without facts it could not be read; the first problem says why.
    """

    name: str
    facts: CertificateFacts | None
    days_left: int
    problems: tuple[str, ...]


def init(settings: Settings, folder: Path, days: int) -> tuple[MachineFolder, ...]:
    """Make the security folder; return its machines.

    Their certificates hold for `days`. Raises UsageError where `folder` is there already or no host
    of the broker is set, DiskError, and what `located` raises; nothing is left then.
    """
    hosts = _broker_hosts(settings)
    now = dt.datetime.now(dt.UTC)
    authority = Authority.new(now)
    passwords = {machine: _new_password() for machine in Machine}
    with new_folder(folder) as made:
        made.write(".gitignore", b"*\n", PUBLIC)
        made.write(CA_KEY, authority.key_pem(), PRIVATE)
        made.write(CA, authority.certificate_pem(), PUBLIC)
        for machine in Machine:
            names = hosts if machine is Machine.BROKER else ()
            identity = authority.issue(machine, names, now, days)
            made.write(f"{machine}/{IDENTITY}", identity, PRIVATE)
            made.write(f"{machine}/{CA}", authority.certificate_pem(), PUBLIC)
            made.write(f"{machine}/{PASSWORD}", passwords[machine], PRIVATE)
            made.write(f"{machine}/{SETTINGS}", _settings_text(settings, machine), PUBLIC)
            made.write(f"{Machine.BROKER}/{_user_file(machine)}", passwords[machine], PRIVATE)
    return _machine_folders(folder, settings, Machine)


def renew(
    folder: Path, days: int, only: Machine | None, *, passwords: bool
) -> tuple[MachineFolder, ...]:
    """Give machines (all, or `only` one) new keys and certificates, and new passwords if asked.

    Returns the machines whose folders have changed; with new passwords the broker's is one of them.
    The broker's certificate is for the host in its own settings, as they are now. Raises UsageError
    where the folder is not as `init` made it, DiskError, and what `located` raises; each file is
    then the old or the new one, whole.
    """
    if not (folder / CA).exists():
        raise UsageError(f"{folder}: no security folder; make one with: fleetpulse security init")
    authority = Authority.read(folder / CA_KEY, folder / CA)
    settings = load(folder / Machine.BROKER / SETTINGS, {}).settings
    now = dt.datetime.now(dt.UTC)
    machines = tuple(Machine) if only is None else (only,)
    hosts = _broker_hosts(settings) if Machine.BROKER in machines else ()
    for machine in machines:
        names = hosts if machine is Machine.BROKER else ()
        identity = authority.issue(machine, names, now, days)
        replace_file(folder / machine / IDENTITY, identity, PRIVATE)
        if passwords:
            password = _new_password()
            replace_file(folder / Machine.BROKER / _user_file(machine), password, PRIVATE)
            replace_file(folder / machine / PASSWORD, password, PRIVATE)
    if passwords and Machine.BROKER not in machines:
        machines = (*machines, Machine.BROKER)  # who lets them in
    return _machine_folders(folder, settings, machines)


def show(folder: Path) -> tuple[Finding, ...]:
    """Return what is in a security folder: the authority, then each machine.

    Raises UsageError where there is none.
    """
    if not (folder / CA).exists():
        raise UsageError(
            f"{folder}: no security folder; make one with fleetpulse security init, name another "
            "with --folder, or ask for this machine's own with --config"
        )
    now = dt.datetime.now(dt.UTC)
    authority = _finding("authority", folder / CA, folder / CA, now, "")
    machines = [_machine_finding(folder, machine, now) for machine in Machine]
    return (authority, *machines)


def show_own(settings: Settings) -> tuple[Finding, ...]:
    """Return what this machine's settings name: the authority, then its certificate.

    Raises UsageError where they name none.
    """
    part = settings.security
    if part.ca_file is None or part.certificate_file is None:
        raise UsageError(
            "no security folder, and the settings name no certificate (security.ca_file, "
            "security.certificate_file); make them with: fleetpulse security init"
        )
    now = dt.datetime.now(dt.UTC)
    return (
        _finding("authority", part.ca_file, part.ca_file, now, ""),
        _finding("this machine", part.certificate_file, part.ca_file, now, ""),
    )


def _broker_hosts(settings: Settings) -> tuple[str, ...]:
    host = located(settings).hosts.broker
    if host is None:
        raise UsageError(
            "no broker address: set hosts.broker, the broker's certificate is made for it"
        )
    return tuple(dict.fromkeys((host, *_LOOPBACK)))


def _machine_folders(
    folder: Path, settings: Settings, machines: Iterable[Machine]
) -> tuple[MachineFolder, ...]:
    return tuple(
        MachineFolder(
            machine,
            folder / machine,
            getattr(settings.hosts, machine, None),
            certificate_facts(folder / machine / IDENTITY, folder / CA).not_after,
        )
        for machine in machines
    )


def _settings_text(settings: Settings, machine: Machine) -> bytes:
    security: Mapping[str, object] = {
        "tls": True,
        "ca_file": CA,
        "certificate_file": IDENTITY,
        "key_file": IDENTITY,
        "user": machine.user,
        "password_file": PASSWORD,
        **({"users_dir": USERS} if machine is Machine.BROKER else {}),
    }
    title = f"Settings of {machine}; a key left out keeps its default (fleetpulse config show)."
    return written(settings, security, title).encode()


def _user_file(machine: Machine) -> str:
    return f"{USERS}/{machine.user}.password"


def _new_password() -> bytes:
    return f"{secrets.token_urlsafe(_PASSWORD_BYTES)}\n".encode()


def _machine_finding(folder: Path, machine: Machine, now: dt.datetime) -> Finding:
    own = folder / machine
    found = _finding(machine, own / IDENTITY, folder / CA, now, machine)
    problems = list(found.problems)
    try:
        if machine is Machine.BROKER and found.facts:
            host = located(load(own / SETTINGS, {}).settings).hosts.broker
            if host not in found.facts.hosts:
                problems.append(
                    f"is not for hosts.broker, which is {host}; fleetpulse security renew "
                    f"--role {machine}"
                )
        users = folder / Machine.BROKER / _user_file(machine)
        if read_secret(own / PASSWORD) != read_secret(users):
            problems.append(
                f"its password is not the one in {users}; fleetpulse security renew --passwords "
                f"--role {machine}"
            )
    except FleetpulseError as err:
        problems.append(str(err))
    return replace(found, problems=tuple(problems))


def _finding(name: str, path: Path, ca_path: Path, now: dt.datetime, subject: str) -> Finding:
    try:
        facts = certificate_facts(path, ca_path)
    except FleetpulseError as err:
        return Finding(name, None, 0, (str(err),))
    problems = []
    if not facts.is_signed_by_ca:
        problems.append(f"is not signed by {ca_path}; put the two back that were made together")
    if subject and facts.subject != subject:
        problems.append(f"is the certificate of {facts.subject}; copy that of {subject} again")
    # The authority is renewed with its folder.
    step = "renew" if path != ca_path else "init --folder NEW"
    if now > facts.not_after:
        problems.append(f"has expired; fleetpulse security {step}")
    elif now < facts.not_before:
        problems.append("is not valid yet; check the clock of this machine")
    elif facts.not_after - now <= dt.timedelta(days=WARNING_DAYS):
        problems.append(f"expires in {facts.days_left(now)} days; fleetpulse security {step}")
    return Finding(name, facts, facts.days_left(now), tuple(problems))
