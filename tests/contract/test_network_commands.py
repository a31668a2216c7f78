"""`fleetpulse network`, run as a process against a fake service: lines, exit codes, no token."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import zerotier_fake
from zerotier_fake import MEMBER_ID, NETWORK_ID, FakeZeroTier, waiting

CANARY = "canary0token0never0shown"
JOINED = f"network {NETWORK_ID} (clever_krum): joined and authorised, private\n"
ADDRESS = "  address 10.147.20.190/24 on ztnnhrtimp, MTU 2800\n"
# What hinders a network: the state that the service shows, and a piece of what is said of it.
WAITED_FOR = {
    "REQUESTING_CONFIGURATION": "its controller 8056c2e21c has not answered yet",
    "ACCESS_DENIED": f"access denied; authorise member {MEMBER_ID} in the network's controller",
    "AUTHENTICATION_REQUIRED": "it wants a sign-in in the browser",
}
FINAL = {
    "NOT_FOUND": (2, "its controller knows no such network; check the ID"),
    "PORT_ERROR": (1, "ZeroTier cannot make its network device"),
    "CLIENT_TOO_OLD": (1, "this machine's ZeroTier is too old for it; update ZeroTier"),
}


@dataclass(frozen=True, slots=True)
class Done:
    code: int
    out: str
    err: str

    def json(self) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.out)
        return found


@dataclass(frozen=True, slots=True)
class Commands:
    """Runs commands with a service and a token file; none of them may show the token."""

    folder: Path
    port: int
    token_file: Path

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        settings = {
            "FLEETPULSE__ZEROTIER__PORT": str(self.port),
            "FLEETPULSE__ZEROTIER__TOKEN_FILE": str(self.token_file),
            "TMPDIR": str(self.folder),
        }
        return subprocess.Popen(
            [sys.executable, "-m", "fleetpulse", "network", *arguments],
            env=os.environ | settings,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: str) -> Done:
        return self.end(self.start(*arguments))

    def end(self, process: subprocess.Popen[str]) -> Done:
        out, err = process.communicate(timeout=60)
        assert CANARY not in out
        assert CANARY not in err
        assert list(self.folder.glob("fleetpulse-*.log")) == []
        return Done(process.returncode, out, err)


@pytest.fixture
def fake() -> Iterator[FakeZeroTier]:
    with zerotier_fake.running(CANARY) as running:
        running.peers = [
            zerotier_fake.peer("0000000001", role="PLANET"),
            zerotier_fake.peer("0000000002", latency=30),
            zerotier_fake.peer("0000000003", latency=10),
            zerotier_fake.peer("0000000004", latency=-1, paths=[], version="-1.-1.-1"),
        ]
        yield running


@pytest.fixture
def network(fake: FakeZeroTier, tmp_path: Path) -> Commands:
    token_file = tmp_path / "authtoken.secret"
    token_file.write_text(CANARY)
    token_file.chmod(0o600)
    return Commands(tmp_path, fake.port, token_file)


class TestStatus:
    def test_shows_member_networks_addresses_and_links(
        self, fake: FakeZeroTier, network: Commands
    ) -> None:
        fake.networks[NETWORK_ID] = zerotier_fake.network()
        assert network("status") == Done(
            0,
            f"member {MEMBER_ID}, ZeroTier 1.6.4, online\n"
            + JOINED
            + ADDRESS
            + "links to members: 2 direct, 1 relayed, median latency 20 ms\n",
            "",
        )

    def test_json_holds_the_same(self, fake: FakeZeroTier, network: Commands) -> None:
        fake.networks[NETWORK_ID] = zerotier_fake.network()
        done = network("status", "--json")
        assert (done.code, done.err) == (0, "")
        assert done.json() == {
            "member_id": MEMBER_ID,
            "version": "1.6.4",
            "is_online": True,
            "is_tcp_relayed": False,
            "networks": [
                {
                    "network_id": NETWORK_ID,
                    "name": "clever_krum",
                    "status": "OK",
                    "is_authorized": True,
                    "is_public": False,
                    "addresses": ["10.147.20.190/24"],
                    "device": "ztnnhrtimp",
                    "mtu_bytes": 2800,
                    "allow_managed": True,
                    "allow_global": False,
                    "allow_default": False,
                    "hindrance": None,
                    "dangers": [],
                }
            ],
            "peers": [
                {
                    "member_id": "0000000002",
                    "role": "LEAF",
                    "link": "direct",
                    "path": "195.181.173.159/9993",
                    "latency_ms": 30,
                    "version": "1.6.4",
                },
                {
                    "member_id": "0000000003",
                    "role": "LEAF",
                    "link": "direct",
                    "path": "195.181.173.159/9993",
                    "latency_ms": 10,
                    "version": "1.6.4",
                },
                {
                    "member_id": "0000000004",
                    "role": "LEAF",
                    "link": "relayed",
                    "path": None,
                    "latency_ms": None,
                    "version": None,
                },
            ],
        }

    def test_without_a_network_says_how_to_join_one(self, network: Commands) -> None:
        done = network("status")
        assert done.code == 1
        assert "no network joined; join one with: fleetpulse network join" in done.out

    def test_one_network_that_works_does_not_hide_one_that_does_not(
        self, fake: FakeZeroTier, network: Commands
    ) -> None:
        for status, reason in WAITED_FOR.items():
            other = f"{NETWORK_ID[:-1]}2"
            fake.networks = {
                NETWORK_ID: zerotier_fake.network(),
                other: waiting(status, other),
            }
            done = network("status")
            assert done.code == 1
            assert f"network {other}: joined, {reason}" in done.out
            assert JOINED in done.out

    @pytest.mark.parametrize(
        ("changed", "reason"),
        [
            (
                {"assignedAddresses": []},
                f"authorised, but without an address: give member {MEMBER_ID}",
            ),
            ({"allowManaged": False}, "this machine does not take the network's addresses"),
        ],
    )
    def test_network_without_a_usable_address_is_not_well(
        self, fake: FakeZeroTier, network: Commands, changed: dict[str, object], reason: str
    ) -> None:
        fake.networks[NETWORK_ID] = zerotier_fake.network() | changed
        done = network("status")
        assert done.code == 1
        assert reason in done.out

    def test_what_exposes_the_machine_is_a_warning(
        self, fake: FakeZeroTier, network: Commands
    ) -> None:
        fake.networks[NETWORK_ID] = zerotier_fake.network(
            type="PUBLIC", allowDefault=True, allowGlobal=True
        )
        done = network("status")
        assert done.code == 0
        assert "joined and authorised, public\n" in done.out
        warnings = [one for one in done.out.splitlines() if one.startswith("  warning: ")]
        assert [one.split(": ")[1].removeprefix(f"network {NETWORK_ID} ") for one in warnings] == [
            "is public",
            "may take over this machine's default route; do",
            "may set addresses and routes of the Internet; do",
        ]

    def test_machine_that_reaches_nobody_is_told(
        self, fake: FakeZeroTier, network: Commands
    ) -> None:
        fake.status |= {"online": False, "tcpFallbackActive": True}
        done = network("status")
        assert "offline: it reaches none of ZeroTier's roots\n" in done.out
        assert "warning: UDP does not get through" in done.out


class TestJoin:
    def test_waits_for_the_controller_and_says_whose_turn_it_is(
        self, fake: FakeZeroTier, network: Commands
    ) -> None:
        fake.joining = [
            waiting("REQUESTING_CONFIGURATION"),
            waiting("ACCESS_DENIED"),
            waiting("ACCESS_DENIED"),
            zerotier_fake.network(assignedAddresses=[]),
            zerotier_fake.network(),
        ]
        done = network("join", NETWORK_ID.upper())
        assert (done.code, done.out) == (0, f"member {MEMBER_ID}\n{JOINED}{ADDRESS}")
        said = [one.split(f"network {NETWORK_ID}: ")[1] for one in done.err.splitlines()]
        assert said[0].startswith(WAITED_FOR["REQUESTING_CONFIGURATION"])
        assert said[1].startswith(WAITED_FOR["ACCESS_DENIED"])
        assert said[2].startswith("authorised, but without an address")
        assert len(said) == 3

    def test_network_that_the_service_has_not_taken_up_yet_is_waited_for(
        self, fake: FakeZeroTier, network: Commands
    ) -> None:
        fake.joining = [{}, {}, zerotier_fake.network()]
        done = network("join", NETWORK_ID)
        assert done.code == 0
        assert "the service has not taken it up yet" in done.err

    def test_network_that_is_joined_already_is_shown_at_once(
        self, fake: FakeZeroTier, network: Commands
    ) -> None:
        fake.networks[NETWORK_ID] = zerotier_fake.network(type="PUBLIC")
        done = network("join", NETWORK_ID)
        assert (done.code, done.err) == (0, "")
        assert "warning: network 8056c2e21c000001 is public" in done.out

    @pytest.mark.parametrize("status", WAITED_FOR)
    def test_gives_up_in_time_and_stays_joined(
        self, fake: FakeZeroTier, network: Commands, status: str
    ) -> None:
        fake.joining = [waiting(status)]
        done = network("join", NETWORK_ID, "--timeout", "100ms")
        assert (done.code, done.out) == (69, "")
        last = done.err.splitlines()[-1]
        assert last.startswith(
            f"fleetpulse: network {NETWORK_ID} after 0.1 s: {WAITED_FOR[status]}"
        )
        assert NETWORK_ID in fake.networks

    @pytest.mark.parametrize("status", FINAL)
    def test_does_not_wait_for_what_waiting_cannot_mend(
        self, fake: FakeZeroTier, network: Commands, status: str
    ) -> None:
        fake.joining = [waiting("REQUESTING_CONFIGURATION"), waiting(status)]
        code, reason = FINAL[status]
        done = network("join", NETWORK_ID)
        assert (done.code, done.out) == (code, "")
        assert done.err.splitlines()[-1].startswith(f"fleetpulse: network {NETWORK_ID}: {reason}")

    def test_network_that_is_not_there_is_left_again(
        self, fake: FakeZeroTier, network: Commands
    ) -> None:
        fake.joining = [waiting("NOT_FOUND")]
        assert network("join", NETWORK_ID).code == 2
        assert fake.networks == {}

    def test_network_that_was_joined_before_is_not_left(
        self, fake: FakeZeroTier, network: Commands
    ) -> None:
        fake.networks[NETWORK_ID] = waiting("NOT_FOUND")
        assert network("join", NETWORK_ID).code == 2
        assert list(fake.networks) == [NETWORK_ID]

    @pytest.mark.parametrize(
        ("command", "text"),
        [
            ("join", ""),
            ("join", "8056c2e21c00001"),
            ("leave", "8056c2e21c00000g"),
            ("leave", "../x"),
        ],
    )
    def test_text_that_is_no_network_id_is_refused_before_anything_is_asked(
        self, fake: FakeZeroTier, network: Commands, command: str, text: str
    ) -> None:
        done = network(command, text)
        assert (done.code, done.out) == (2, "")
        assert f"found {text!r}, wanted a network ID: 16 hexadecimal digits" in done.err
        assert fake.asked == []

    def test_token_is_in_no_process_list_while_it_waits(
        self, fake: FakeZeroTier, network: Commands
    ) -> None:
        asked = threading.Event()
        fake.joining = [waiting("ACCESS_DENIED")]
        fake.on_request = asked.set
        process = network.start("join", NETWORK_ID, "--timeout", "1s")
        assert asked.wait(30)
        found = psutil.Process(process.pid)
        assert CANARY not in f"{found.cmdline()}{found.environ()}{found.children()}"
        assert network.end(process).code == 69
        assert {one.headers["x-zt1-auth"] for one in fake.asked} == {CANARY}


def test_leave_is_done_once(fake: FakeZeroTier, network: Commands) -> None:
    fake.networks[NETWORK_ID] = zerotier_fake.network()
    assert network("leave", NETWORK_ID) == Done(0, f"left network {NETWORK_ID}\n", "")
    assert fake.networks == {}
    again = Done(0, f"this machine was not in network {NETWORK_ID}\n", "")
    assert network("leave", NETWORK_ID) == again


def test_peers_are_listed_members_first(fake: FakeZeroTier, network: Commands) -> None:
    assert network("peers").out.splitlines() == [
        "0000000002  member, direct by 195.181.173.159/9993, latency 30 ms, ZeroTier 1.6.4",
        "0000000003  member, direct by 195.181.173.159/9993, latency 10 ms, ZeroTier 1.6.4",
        "0000000004  member, relayed, latency unknown",
        "0000000001  root (PLANET), direct by 195.181.173.159/9993, latency 40 ms, ZeroTier 1.6.4",
    ]
    listed = network("peers", "--json").json()["peers"]
    assert isinstance(listed, list)
    assert [one["member_id"] for one in listed] == [f"000000000{one}" for one in (2, 3, 4, 1)]
    fake.peers = []
    assert network("peers").out.startswith("no peers: ")


def test_service_that_does_not_run(network: Commands, fake: FakeZeroTier) -> None:
    fake.stop()
    done = network("status")
    assert (done.code, done.out) == (69, "")
    assert done.err.startswith("fleetpulse: no ZeroTier service runs on this machine: nothing ")
    assert done.err.count("\n") == 1


def test_token_of_another_service(network: Commands, fake: FakeZeroTier) -> None:
    fake.token = CANARY[::-1]
    done = network("status", "--json")
    assert (done.code, done.out) == (77, "")
    assert "the ZeroTier service does not take the token (401)" in done.err


def open_to_all(token_file: Path) -> None:
    token_file.chmod(0o644)


def absent(token_file: Path) -> None:
    token_file.unlink()


def of_two_lines(token_file: Path) -> None:
    token_file.write_text(f"{CANARY}\n{CANARY}\n")


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (open_to_all, "its mode 0644 lets every user of this machine at ZeroTier's token"),
        (absent, "there is no such file; correct zerotier.token_file"),
        (of_two_lines, "wanted one line with the token of the ZeroTier service"),
    ],
)
def test_token_file_that_is_not_as_it_should_be(
    network: Commands, fake: FakeZeroTier, spoil: Callable[[Path], None], what: str
) -> None:
    spoil(network.token_file)
    done = network("status")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"fleetpulse: {network.token_file}: {what}")
    assert fake.asked == []


def test_token_file_of_somebody_else(network: Commands, fake: FakeZeroTier) -> None:
    # Root may read every file, so it gives that right up once the command's modules are there.
    code = (
        "import os, sys; import fleetpulse.cli.network, fleetpulse.roles.network; "
        "from fleetpulse.cli import main; "
        "os.geteuid() or os.setresuid(65534, 65534, 65534); sys.exit(main(['network', 'peers']))"
    )
    network.token_file.chmod(0)
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ
        | {
            "FLEETPULSE__ZEROTIER__PORT": str(fake.port),
            "FLEETPULSE__ZEROTIER__TOKEN_FILE": str(network.token_file),
        },
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    done = network.end(process)
    assert (done.code, done.out) == (77, "")
    assert done.err.startswith(
        f"fleetpulse: {network.token_file}: this user may not read the token"
    )
    assert fake.asked == []


def test_service_is_never_anywhere_else_than_on_loopback(network: Commands) -> None:
    (network.folder / "c.yaml").write_text("zerotier: {host: 192.0.2.1}\n")
    done = network("status", "--config", "c.yaml")
    assert done.code == 2
    assert "unknown key zerotier.host" in done.err
