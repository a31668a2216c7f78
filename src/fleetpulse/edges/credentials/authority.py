"""The certificate authority of one installation: it makes the certificates of the machines.

Keys are on the curve P-256: TLS libraries of every machine here (OpenSSL, Java) take them, and they
are made in a millisecond. Certificates follow RFC 5280: an authority with path length 0 signs
machines only, and a machine's certificate says whether it may serve.
"""

import datetime as dt
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fleetpulse.domain.errors import UsageError
from fleetpulse.edges.credentials.certificate import read_certificate
from fleetpulse.edges.credentials.secret_file import read_private

AUTHORITY_DAYS: Final = 3650
KEY_BYTES_MAX: Final = 64 * 1024
# Machines whose clocks are this far behind take a new certificate at once.
_BACKDATED: Final = dt.timedelta(hours=1)
_SIGNS: Final = {"key_cert_sign": True, "crl_sign": True}
_SPEAKS: Final = {"digital_signature": True}
_USAGES: Final = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


@dataclass(frozen=True, slots=True, repr=False)
class Authority:
    """The key and the certificate of an authority."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def new(cls, now: dt.datetime, days: int = AUTHORITY_DAYS) -> Self:
        """Return a new authority that holds for `days` from `now` (with a time zone)."""
        key = ec.generate_private_key(ec.SECP256R1())
        # Two installations have authorities of different names, so that a foreign certificate is
        # refused as unknown and not as forged.
        name = _name(f"fleetpulse authority {secrets.token_hex(4)}")
        draft = _draft(name, name, key.public_key(), now, now + dt.timedelta(days=days))
        draft = draft.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        draft = draft.add_extension(_usage(**_SIGNS), critical=True)
        return cls(key, draft.sign(key, hashes.SHA256()))

    @classmethod
    def read(cls, key_path: Path, certificate_path: Path) -> Self:
        """Return the authority in two files.

        Raises UsageError where one of them is not there, not private (the key) or not what it
        should be, and where they do not belong together; DiskError where reading fails.
        """
        certificate = read_certificate(certificate_path)
        content = read_private(key_path, KEY_BYTES_MAX)
        try:
            key = serialization.load_pem_private_key(content, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise UsageError(
                f"{key_path}: no elliptic curve key in PEM form, without a password; put back the "
                "file that fleetpulse security init made"
            )
        if key.public_key() != certificate.public_key():
            raise UsageError(
                f"{key_path}: not the key of {certificate_path}; put back the two files that "
                "fleetpulse security init made together"
            )
        return cls(key, certificate)

    def key_pem(self) -> bytes:
        """Return the key as unencrypted PKCS #8, for the one file that holds it."""
        return _key_pem(self.key)

    def certificate_pem(self) -> bytes:
        """Return the certificate, which everybody may see."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, name: str, hosts: Sequence[str], now: dt.datetime, days: int) -> bytes:
        """Return a new key and its certificate as one PEM text, the key first.

        One text, since a file that is replaced as a whole never holds a key and a certificate that
        do not match. The subject's common name is `name`; with `hosts` (names and IP addresses) it
        is for serving under each of them, too. It holds for `days` from `now`. Raises UsageError
        where the authority itself ends before that.
        """
        ends = (now + dt.timedelta(days=days)).replace(microsecond=0)  # as certificates count
        last = self.certificate.not_valid_after_utc
        if ends > last:
            raise UsageError(
                f"a certificate for {days} days would outlive its authority, which ends on "
                f"{last:%Y-%m-%d}; choose fewer days, or make a new folder with: "
                "fleetpulse security init"
            )
        key = ec.generate_private_key(ec.SECP256R1())
        draft = _draft(_name(name), self.certificate.subject, key.public_key(), now, ends)
        draft = draft.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)  # noqa: FBT003
        draft = draft.add_extension(_usage(**_SPEAKS), critical=True)
        roles = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if hosts:
            roles.insert(0, ExtendedKeyUsageOID.SERVER_AUTH)
            names = [_general_name(host) for host in dict.fromkeys(hosts)]
            draft = draft.add_extension(x509.SubjectAlternativeName(names), critical=False)
        draft = draft.add_extension(x509.ExtendedKeyUsage(roles), critical=False)
        above = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        draft = draft.add_extension(above, critical=False)
        certificate = draft.sign(self.key, hashes.SHA256())
        return _key_pem(key) + certificate.public_bytes(serialization.Encoding.PEM)


def _draft(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    starts: dt.datetime,
    ends: dt.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(starts - _BACKDATED)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _usage(**allowed: bool) -> x509.KeyUsage:
    return x509.KeyUsage(**{usage: allowed.get(usage, False) for usage in _USAGES})


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
