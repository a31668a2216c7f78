"""The files of a TLS connection to a broker, and why one fails, by trying it.

The Kafka client says of a wrong authority, a wrong name and an expired certificate the same: that
verifying failed. Python's own TLS tells them apart. Source of the codes: OpenSSL, x509_vfy.h.
"""

import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TIMEOUT_S: Final = 3.0
# A broker that asks for a certificate refuses it after the handshake (TLS 1.3), or says nothing.
_REFUSAL_S: Final = 0.5
_NOT_YET: Final = 9
_EXPIRED: Final = 10
_OTHER_NAME: Final = (62, 64)


@dataclass(frozen=True, slots=True)
class Tls:
    """The files of an encrypted connection, all PEM.

    `ca_file` None trusts the system's authorities; without `certificate_file` and `key_file` the
    client shows no certificate.
    """

    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None

    @property
    def identity_files(self) -> set[Path]:
        """Return the one or two files that hold certificate and key."""
        return {one for one in (self.certificate_file, self.key_file) if one is not None}


def tls_problem(host: str, port: int, tls: Tls, timeout_s: float = TIMEOUT_S) -> str | None:
    """Return what is wrong with a TLS connection to `host:port`, and what to do; None: nothing.

    Raises OSError where there is no connection at all.
    """
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
        if tls.certificate_file:
            context.load_cert_chain(tls.certificate_file, tls.key_file)
    except ssl.SSLError as err:
        return (
            f"this machine's certificates cannot be used ({err.reason}); check security.ca_file, "
            "certificate_file and key_file"
        )
    with socket.create_connection((host, port), timeout_s) as plain:
        try:
            with context.wrap_socket(plain, server_hostname=host) as wrapped:
                wrapped.settimeout(_REFUSAL_S)
                wrapped.recv(1)
        except TimeoutError:
            # It waits for us to speak: nobody refused anything.
            return None
        except ssl.SSLCertVerificationError as err:
            return _server_problem(host, tls, err)
        except ssl.SSLError as err:
            return _own_problem(tls, err)
        except ConnectionError:
            pass
    return None


def shows_expired(host: str, port: int, tls: Tls) -> bool:
    """Tell whether the certificate that is shown at `host:port` has ended; raises OSError."""
    context = ssl.create_default_context(cafile=tls.ca_file)
    with socket.create_connection((host, port), TIMEOUT_S) as plain:
        try:
            context.wrap_socket(plain, server_hostname=host).close()
        except ssl.SSLCertVerificationError as err:
            return err.verify_code == _EXPIRED
    return False


def _server_problem(host: str, tls: Tls, err: ssl.SSLCertVerificationError) -> str:
    if err.verify_code == _EXPIRED:
        return (
            "the broker's certificate has expired; renew it (fleetpulse security renew) and run "
            "fleetpulse broker start on its machine; or the clock here is wrong"
        )
    if err.verify_code == _NOT_YET:
        return "the broker's certificate is not valid yet; check the clocks of both machines"
    if err.verify_code in _OTHER_NAME:
        return (
            f"the broker's certificate is not for {host}; set hosts.broker to a name or address in "
            "it (fleetpulse security show), or make one for this address (security renew)"
        )
    return (
        f"the broker's certificate is not of the authority in {tls.ca_file or 'this system'} "
        f"({err.verify_message}); copy this machine's folder from the one security init made"
    )


def _own_problem(tls: Tls, err: ssl.SSLError) -> str:
    reason = str(err.reason or err)
    if "WRONG_VERSION_NUMBER" in reason or "UNEXPECTED_EOF" in reason:
        return "it does not speak TLS; set security.tls the same here and on the broker's machine"
    if tls.certificate_file is None:
        return (
            f"the broker wants a certificate of this machine ({reason}); set "
            "security.certificate_file and key_file"
        )
    return (
        f"the broker refuses this machine's certificate {tls.certificate_file} ({reason}): it has "
        "expired or is of another authority; copy this machine's folder again (security renew)"
    )
