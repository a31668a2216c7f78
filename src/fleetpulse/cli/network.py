"""`network status | join | leave | peers`."""

import statistics
from typing import Annotated, Any

import typer

from fleetpulse.cli.console import (
    ConfigOption,
    JsonOption,
    duration_option,
    print_json,
    settings_of,
    speaker,
)
from fleetpulse.edges.zerotier.answer import Membership, Peer

app = typer.Typer(help="See and change this machine's ZeroTier networks.", no_args_is_help=True)

NetworkArgument = Annotated[
    str, typer.Argument(metavar="NETWORK_ID", help="16 hexadecimal digits.", show_default=False)
]


@app.command()
def status(*, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show this machine's member ID, networks, addresses and links; exit 1 without a usable one."""
    from fleetpulse.roles.network import dangers, hindrance, zerotier_of  # noqa: PLC0415

    service = zerotier_of(settings_of(config).settings)
    node, networks, peers = service.node(), service.networks(), service.peers()
    hindrances = {one.network_id: hindrance(one, node.member_id) for one in networks}
    if as_json:
        print_json(
            {
                "member_id": node.member_id,
                "version": node.version,
                "is_online": node.is_online,
                "is_tcp_relayed": node.is_tcp_relayed,
                "networks": [
                    _network_facts(one)
                    | {"hindrance": hindrances[one.network_id], "dangers": dangers(one)}
                    for one in networks
                ],
                "peers": [_peer_facts(one) for one in peers if one.role == "LEAF"],
            }
        )
    else:
        online = "online" if node.is_online else "offline: it reaches none of ZeroTier's roots"
        typer.echo(f"member {node.member_id}, ZeroTier {node.version}, {online}")
        if node.is_tcp_relayed:
            typer.echo("  warning: UDP does not get through, a slow TCP relay carries everything")
        for one in networks:
            _show_network(one, hindrances[one.network_id], dangers(one))
        _show_links([one for one in peers if one.role == "LEAF"])
        if not networks:
            typer.echo("no network joined; join one with: fleetpulse network join NETWORK_ID")
    if not networks or any(reason is not None for reason in hindrances.values()):
        raise typer.Exit(1)


@app.command()
def join(
    network_id: NetworkArgument,
    *,
    timeout: Annotated[
        float, duration_option("--timeout", "Give up when it is not let in this long.", "60s")
    ] = 60.0,
    config: ConfigOption = None,
) -> None:
    """Join a network and wait until its controller lets this machine in and gives an address."""
    from fleetpulse.roles.network import dangers, zerotier_of  # noqa: PLC0415
    from fleetpulse.roles.network import join as join_network  # noqa: PLC0415
    from fleetpulse.roles.network import network_id as checked  # noqa: PLC0415

    name = checked(network_id)
    service = zerotier_of(settings_of(config).settings)
    membership, member_id = join_network(service, name, timeout, speaker("network"))
    typer.echo(f"member {member_id}")
    _show_network(membership, None, dangers(membership))


@app.command()
def leave(network_id: NetworkArgument, *, config: ConfigOption = None) -> None:
    """Leave a network; its addresses are gone from this machine."""
    from fleetpulse.roles.network import network_id as checked  # noqa: PLC0415
    from fleetpulse.roles.network import zerotier_of  # noqa: PLC0415

    name = checked(network_id)
    service = zerotier_of(settings_of(config).settings)
    if service.network(name) is None:
        typer.echo(f"this machine was not in network {name}")
        return
    service.leave(name)
    typer.echo(f"left network {name}")


@app.command()
def peers(*, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show the ZeroTier machines that this one talks to: direct or relayed, latency, version."""
    from fleetpulse.roles.network import zerotier_of  # noqa: PLC0415

    found = zerotier_of(settings_of(config).settings).peers()
    if as_json:
        print_json({"peers": [_peer_facts(one) for one in found]})
        return
    for one in found:
        link = "relayed" if one.path is None else f"direct by {one.path}"
        latency = "unknown" if one.latency_ms is None else f"{one.latency_ms} ms"
        version = "" if one.version is None else f", ZeroTier {one.version}"
        role = "member" if one.role == "LEAF" else f"root ({one.role})"
        typer.echo(f"{one.member_id}  {role}, {link}, latency {latency}{version}")
    if not found:
        typer.echo("no peers: this machine has talked to no other ZeroTier machine yet")


def _show_network(one: Membership, reason: str | None, warnings: tuple[str, ...]) -> None:
    name = f" ({one.name})" if one.name else ""
    kind = "public" if one.is_public else "private"
    typer.echo(
        f"network {one.network_id}{name}: "
        + (f"joined and authorised, {kind}" if reason is None else f"joined, {reason}")
    )
    for address in one.addresses:
        typer.echo(f"  address {address} on {one.device or 'no device'}, MTU {one.mtu_bytes}")
    for warning in warnings:
        typer.echo(f"  warning: {warning}")


def _show_links(leaves: list[Peer]) -> None:
    direct = [one for one in leaves if one.path is not None]
    known = [one.latency_ms for one in leaves if one.latency_ms is not None]
    latency = f", median latency {statistics.median(known):g} ms" if known else ""
    typer.echo(
        f"links to members: {len(direct)} direct, {len(leaves) - len(direct)} relayed{latency}"
    )


def _network_facts(one: Membership) -> dict[str, Any]:
    return {
        "network_id": one.network_id,
        "name": one.name,
        "status": one.status,
        "is_authorized": one.status == "OK",
        "is_public": one.is_public,
        "addresses": [str(address) for address in one.addresses],
        "device": one.device,
        "mtu_bytes": one.mtu_bytes,
        "allow_managed": one.allow_managed,
        "allow_global": one.allow_global,
        "allow_default": one.allow_default,
    }


def _peer_facts(one: Peer) -> dict[str, Any]:
    return {
        "member_id": one.member_id,
        "role": one.role,
        "link": "relayed" if one.path is None else "direct",
        "path": one.path,
        "latency_ms": one.latency_ms,
        "version": one.version,
    }
