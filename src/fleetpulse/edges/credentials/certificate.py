"""What a certificate says, and whether the file around it is as it should be."""

import datetime as dt
import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from fleetpulse.domain.errors import DiskError, UsageError
from fleetpulse.edges.credentials.secret_file import read_private

_MAX_BYTES: Final = 256 * 1024
_WRONG_PATHS: Final = (
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENXIO,
    errno.EACCES,
    errno.EPERM,
)
_KEY_MARK: Final = b"PRIVATE KEY-----"


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """A certificate: it holds from `not_before` to `not_after`, both included and in UTC.

    `subject` is its common name, `hosts` the names and addresses that it may serve under,
    `fingerprint` its SHA-256 as pairs of hexadecimal digits.
    """

    subject: str
    hosts: tuple[str, ...]
    not_before: dt.datetime
    not_after: dt.datetime
    fingerprint: str
    ca_fingerprint: str
    is_signed_by_ca: bool

    def days_left(self, now: dt.datetime) -> int:
        """Return the whole days until it expires, negative once it has."""
        return (self.not_after - now).days

    def holds_at(self, now: dt.datetime) -> bool:
        """Tell whether it is neither expired nor of the future."""
        return self.not_before <= now <= self.not_after


def certificate_facts(path: Path, ca_path: Path) -> CertificateFacts:
    """Return what the first certificate in `path` says, held against the authority in `ca_path`.

    Where `path` holds a key, too, the key must be that of the certificate and the file private.
    Raises UsageError naming the file where this is not so, or where there is no certificate in it;
    DiskError where reading fails.
    """
    certificate = read_certificate(path)
    authority = read_certificate(ca_path)
    try:
        certificate.verify_directly_issued_by(authority)
        is_signed_by_ca = True
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        is_signed_by_ca = False
    return CertificateFacts(
        subject=_common_name(certificate),
        hosts=_hosts(certificate),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        fingerprint=_fingerprint(certificate),
        ca_fingerprint=_fingerprint(authority),
        is_signed_by_ca=is_signed_by_ca,
    )


def read_certificate(path: Path) -> x509.Certificate:
    """Return the first certificate in a PEM file; errors as `certificate_facts`."""
    content = _read(path)
    if _KEY_MARK in content:
        content = read_private(path, _MAX_BYTES)
    try:
        certificate = x509.load_pem_x509_certificates(content)[0]
    except (ValueError, UnsupportedAlgorithm):
        raise UsageError(
            f"{path}: no certificate in PEM form; copy the file again from the security folder"
        ) from None
    if _KEY_MARK in content:
        _refuse_other_key(path, content, certificate)
    return certificate


def _read(path: Path) -> bytes:
    try:
        with open(path, "rb", opener=_open) as file:
            return file.read(_MAX_BYTES) or b""  # None: a pipe that is just empty
    except OSError as err:
        what = f"{path}: cannot read the certificate ({err.strerror})"
        if err.errno in _WRONG_PATHS:
            raise UsageError(
                f"{what}; check the path, or copy the file from the security folder"
            ) from err
        raise DiskError(f"{what}; check the disk and run this again") from err


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _refuse_other_key(path: Path, content: bytes, certificate: x509.Certificate) -> None:
    try:
        key = serialization.load_pem_private_key(content, password=None)
        matches = key.public_key() == certificate.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        matches = False
    if not matches:
        raise UsageError(
            f"{path}: its key and its certificate do not belong together; copy the file again from "
            "the security folder"
        )


def _common_name(certificate: x509.Certificate) -> str:
    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


def _hosts(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):  # none, or a foreign one that cannot be read
        return ()
    addresses = map(str, names.get_values_for_type(x509.IPAddress))
    return (*names.get_values_for_type(x509.DNSName), *addresses)


def _fingerprint(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()
