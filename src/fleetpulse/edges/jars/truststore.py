"""The system's certificates in the form that Java reads.

A network that inspects TLS has its own certificate authority. It is known to the system, and so to
pip and git, but not to a Java runtime that brings a list of its own.
"""

import contextlib
import hashlib
import os
import re
import ssl
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

# Debian and Ubuntu; Fedora and Red Hat; SUSE; macOS, Alpine and the BSDs.
_BUNDLES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
_PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
# Java's own stores have this password; it protects nothing, as all that they hold is public.
PASSWORD: Final = "changeit"  # noqa: S105
_MAGIC: Final = 0xFEEDFEED
_VERSION: Final = 2
_TRUSTED_CERTIFICATE: Final = 2


def system_certificates(environ: Mapping[str, str]) -> list[bytes]:
    """Return the certificate authorities of SSL_CERT_FILE, else of the system, each as DER."""
    named = environ.get("SSL_CERT_FILE")
    for path in (named,) if named else (*_BUNDLES, ssl.get_default_verify_paths().cafile):
        with contextlib.suppress(OSError, ValueError):
            text = Path(path or os.devnull).read_text(encoding="utf-8", errors="replace")
            if found := [ssl.PEM_cert_to_DER_cert(one) for one in _PEM.findall(text)]:
                return found
    return []


def java_truststore(certificates: Iterable[bytes]) -> bytes:
    """Return a JKS file that trusts the certificates, with PASSWORD.

    Source: sun.security.provider.JavaKeyStore of OpenJDK, engineStore.
    """
    entries = [
        struct.pack(">I", _TRUSTED_CERTIFICATE)
        + _text(f"system-{number}")
        + struct.pack(">Q", 0)
        + _text("X.509")
        + struct.pack(">I", len(certificate))
        + certificate
        for number, certificate in enumerate(certificates)
    ]
    body = struct.pack(">III", _MAGIC, _VERSION, len(entries)) + b"".join(entries)
    # The format's checksum, not a protection: SHA-1 is what it is defined with.
    salted = PASSWORD.encode("utf-16-be") + b"Mighty Aphrodite" + body
    return body + hashlib.sha1(salted, usedforsecurity=False).digest()


def _text(text: str) -> bytes:
    return struct.pack(">H", len(text)) + text.encode("ascii")
