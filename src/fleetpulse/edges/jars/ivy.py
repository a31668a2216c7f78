"""Apache Ivy, which ships inside PySpark: downloads modules from its default repository."""

import errno
import importlib.util
import os
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final
from xml.sax.saxutils import quoteattr

from fleetpulse.domain.errors import DiskError, FleetpulseError, ServiceUnreachable, UsageError
from fleetpulse.edges.jars.lock import Module
from fleetpulse.edges.jars.truststore import PASSWORD, java_truststore, system_certificates

# A server that does not answer ends a run instead of hanging it.
_TIMEOUTS: Final = (
    "-Dsun.net.client.defaultConnectTimeout=20000",
    "-Dsun.net.client.defaultReadTimeout=60000",
)
_UNTRUSTED: Final = "SSLHandshakeException"


def retrieve(
    modules: Sequence[Module],
    pattern: str,
    work_dir: Path,
    java: Path,
    on_jar: Callable[[], None],
    *,
    is_transitive: bool,
) -> None:
    """Download the jars of the modules, with `is_transitive` all that they need too.

    `pattern` is Ivy's for the files; `work_dir` takes what Ivy keeps meanwhile, and its log goes
    to fetch.log beside that folder. `on_jar` is called for each jar. Where Java does not trust the
    repository's certificate, the system's authorities are tried. Raises ServiceUnreachable and
    DiskError, which name the log, and UsageError without PySpark.
    """
    ivy_jar = next(pyspark_jars_dir().glob("ivy-*.jar"), None)
    if ivy_jar is None:
        raise UsageError(f"{pyspark_jars_dir()}: no ivy jar; reinstall pyspark and run this again")
    wanted = work_dir / "ivy.xml"
    wanted.write_text(_ivy_xml(modules, is_transitive=is_transitive), encoding="utf-8")
    proxy = proxy_options(urllib.request.getproxies())
    arguments = ["-jar", str(ivy_jar), "-cache", str(work_dir / "ivy"), "-ivy", str(wanted)]
    arguments += ["-confs", "default", "-retrieve", pattern]
    log_path = work_dir.parent / "fetch.log"
    if _run([str(java), *_TIMEOUTS, *proxy, *arguments], log_path, on_jar):
        return
    if _UNTRUSTED in _text_of(log_path):
        trust = _system_trust(work_dir / "system.jks")
        if _run([str(java), *_TIMEOUTS, *proxy, *trust, *arguments], log_path, on_jar):
            return
    raise _failure(log_path)


def pyspark_jars_dir() -> Path:
    """Return PySpark's folder of jars; UsageError where PySpark is not installed."""
    package = importlib.util.find_spec("pyspark")
    for folder in (package and package.submodule_search_locations) or ():
        return Path(folder) / "jars"
    raise UsageError(
        "PySpark is not installed, and it brings the tool that fetches jars; install it with: "
        "pip install 'fleetpulse[broker]'"
    )


def proxy_options(proxies: Mapping[str, str]) -> list[str]:
    """Return Java's options for the system's proxies (scheme -> URL), which Java does not read.

    A password in a URL is left out: a command line is seen by everybody on the machine.
    """
    options = []
    for scheme in ("http", "https"):
        url = urllib.parse.urlsplit(proxies.get(scheme, ""))
        if url.hostname:
            options.append(f"-D{scheme}.proxyHost={url.hostname}")
            options.append(f"-D{scheme}.proxyPort={url.port or 80}")
    return options


def _run(command: list[str], log_path: Path, on_jar: Callable[[], None]) -> bool:
    with (
        log_path.open("w", encoding="utf-8") as log,
        subprocess.Popen(  # noqa: S603  our own Java and arguments
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        try:
            for line in process.stdout or ():
                log.write(line)
                if "[SUCCESSFUL ]" in line:
                    on_jar()
        except BaseException:
            # An error or Ctrl-C of ours: it must not go on alone.
            process.kill()
            raise
    return process.returncode == 0


def _ivy_xml(modules: Sequence[Module], *, is_transitive: bool) -> str:
    # "default" alone means the module's jar and what it needs to run.
    dependencies = "".join(
        f"<dependency org={quoteattr(module.group)} name={quoteattr(module.artifact)} "
        f'rev={quoteattr(module.version)} conf="default->default" '
        f'transitive="{str(is_transitive).lower()}"/>'
        for module in modules
    )
    return (
        '<ivy-module version="2.0"><info organisation="fleetpulse" module="jars"/>'
        '<configurations><conf name="default"/></configurations>'
        f"<dependencies>{dependencies}</dependencies></ivy-module>"
    )


def _system_trust(path: Path) -> list[str]:
    if sys.platform == "darwin":
        return ["-Djavax.net.ssl.trustStoreType=KeychainStore"]
    path.write_bytes(java_truststore(system_certificates(os.environ)))
    store = [f"-Djavax.net.ssl.trustStore={path}", "-Djavax.net.ssl.trustStoreType=JKS"]
    return [*store, f"-Djavax.net.ssl.trustStorePassword={PASSWORD}"]


def _text_of(log_path: Path) -> str:
    return log_path.read_text(encoding="utf-8", errors="replace")


def _failure(log_path: Path) -> FleetpulseError:
    log, folder = _text_of(log_path), log_path.parent
    if os.strerror(errno.ENOSPC) in log or not shutil.disk_usage(folder).free:
        return DiskError(
            f"{folder}: the disk is full; make room, or set FLEETPULSE_CACHE to a folder on "
            f"another disk, and run this again (log: {log_path})"
        )
    if _UNTRUSTED in log:
        return ServiceUnreachable(
            "the download of jars failed: the repository's certificate is not trusted; set "
            "SSL_CERT_FILE to the certificates of your network, then run this again "
            f"(log: {log_path})"
        )
    return ServiceUnreachable(
        "the download of jars failed; check the network (and HTTPS_PROXY, if it needs a proxy), "
        f"then run this again (log: {log_path})"
    )
