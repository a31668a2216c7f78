"""The user's cache of jars.

Ivy is told to fetch exactly the jars of the lock and none of their dependencies, so the lock alone
says what runs. The cache is one flat folder: sets share it, and every jar enters it whole and
checked, by a rename, so that processes may fetch at the same time.
"""

import contextlib
import hashlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from fleetpulse.domain.errors import DataChanged, DiskError, ServiceUnreachable, UsageError
from fleetpulse.edges.jars.ivy import retrieve
from fleetpulse.edges.jars.lock import Jar, Module

_REPORT_EVERY: Final = 10


def cache_dir(environ: Mapping[str, str]) -> Path:
    """Return the folder of everything downloaded or generated for this user.

    FLEETPULSE_CACHE, else `fleetpulse` below XDG_CACHE_HOME, else below ~/Library/Caches (macOS)
    or ~/.cache. Raises UsageError where no home folder is known.
    """
    if own := environ.get("FLEETPULSE_CACHE"):
        return Path(own).absolute()
    if xdg := environ.get("XDG_CACHE_HOME"):
        return Path(xdg).absolute() / "fleetpulse"
    try:
        home = Path.home()
    except RuntimeError as err:
        raise UsageError(
            "no folder for downloads: neither HOME nor FLEETPULSE_CACHE is set; set one of them"
        ) from err
    below = Path("Library", "Caches") if sys.platform == "darwin" else Path(".cache")
    return home / below / "fleetpulse"


def ensure_jars(
    jars: Sequence[Jar], cache: Path, java: Path, say: Callable[[str], None]
) -> tuple[Path, ...]:
    """Return the files of the jars in the same order, every byte checked; fetch missing ones.

    With all of them in `cache` there is no network and no Java, only their checksums (about 60 ms
    for the broker's 45 MB). `say` gets lines about a download. Raises DataChanged where a jar's
    content is not what the lock wants, ServiceUnreachable where the download fails, DiskError
    where the cache cannot be used, and UsageError without PySpark.
    """
    folder = cache / "jars"
    missing = [jar for jar in jars if not (folder / jar.module.file_name).is_file()]
    if missing:
        _fetch(missing, folder, java, say)
    return tuple(_checked(jar, folder / jar.module.file_name) for jar in jars)


def check_jars(jars: Sequence[Jar], cache: Path) -> tuple[Jar, ...]:
    """Return those of the jars that are not in the cache; nothing is fetched.

    Raises DataChanged where the content of one that is there is not what the lock wants, DiskError
    where it cannot be read.
    """
    folder = cache / "jars"
    missing = []
    for jar in jars:
        path = folder / jar.module.file_name
        if path.is_file():
            _checked(jar, path)
        else:
            missing.append(jar)
    return tuple(missing)


def resolve(
    set_name: str, modules: Sequence[Module], cache: Path, java: Path, provided: Path | None
) -> list[Jar]:
    """Return the jars that the modules need with all their dependencies, as downloaded now.

    Artifacts of which the folder `provided` has any version are left out. Raises as `ensure_jars`.
    """
    with _staging(cache / "jars") as staging:
        pattern = f"{staging}/[organisation]~[artifact]~[revision].[ext]"
        retrieve(modules, pattern, staging, java, lambda: None, is_transitive=True)
        found = {Module(*path.stem.split("~")): path for path in staging.glob("*~*.jar")}
        return [
            Jar(set_name, module, path.stat().st_size, _sha256(path))
            for module, path in sorted(found.items())
            if provided is None or not any(provided.glob(f"{module.artifact}-[0-9]*.jar"))
        ]


def _fetch(jars: Sequence[Jar], folder: Path, java: Path, say: Callable[[str], None]) -> None:
    set_name, done = jars[0].set_name, 0
    total_mb = sum(jar.size_bytes for jar in jars) / 1e6
    say(f"fetching {len(jars)} jars of {set_name} ({total_mb:.0f} MB)")

    def count() -> None:
        nonlocal done
        done += 1
        if done % _REPORT_EVERY == 0:
            say(f"{done} of {len(jars)} jars of {set_name}")

    with _staging(folder) as staging:
        pattern = f"{staging}/[artifact]-[revision].[ext]"
        modules = [jar.module for jar in jars]
        retrieve(modules, pattern, staging, java, count, is_transitive=False)
        for jar in jars:
            _accept(jar, staging / jar.module.file_name, folder)


def _accept(jar: Jar, fetched: Path, folder: Path) -> None:
    if not fetched.is_file():
        raise ServiceUnreachable(f"{jar.module}: the download brought no such jar; run this again")
    if (found := _sha256(fetched)) != jar.sha256:
        raise DataChanged(
            f"the download of {jar.module} is not the jar that the lock names: found SHA-256 "
            f"{found}, wanted {jar.sha256}; it was not kept. Something between this machine and "
            "the repository changes files: ask whoever runs the network"
        )
    fetched.replace(folder / fetched.name)


def _checked(jar: Jar, path: Path) -> Path:
    try:
        found = _sha256(path)
    except OSError as err:
        raise DiskError(f"{path}: cannot read it ({err.strerror}); check the disk") from err
    if found != jar.sha256:
        raise DataChanged(
            f"{path}: this is not the jar that was downloaded: found SHA-256 {found}, wanted "
            f"{jar.sha256}; delete the file and run this again, it is fetched anew"
        )
    return path


@contextlib.contextmanager
def _staging(parent: Path) -> Iterator[Path]:
    try:
        parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=parent, prefix=".fetch-"))
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as err:
        raise DiskError(
            f"{parent}: cannot store jars ({err.strerror}); make room, or set FLEETPULSE_CACHE to "
            "a folder that you may write, and run this again"
        ) from err


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
