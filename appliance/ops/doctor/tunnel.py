"""Checks the tunnel and how clients reach it: WireGuard, its port, its addresses, its uplink. Pure."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import TYPE_CHECKING

from appliance.network.firewall.chains.destinations import PRIVATE
from appliance.network.public_address import in_words
from appliance.network.wireguard import tunnel_mtu
from appliance.ops.doctor.finding import RESTART, Finding, failed, ok, unseen, warning

if TYPE_CHECKING:
    from collections.abc import Iterator
    from ipaddress import IPv4Address, IPv6Address, IPv6Network

    from appliance.network.uplinks import Uplink
    from appliance.ops.doctor.facts import Facts

LEAST_MTU = {4: 576, 6: 1280}
KINDS = {"kernel": "wireguard", "userspace": "tun"}


def wireguard(facts: Facts) -> Finding:
    """Checks that WireGuard is available, and that the interface's name is free or the appliance's."""
    host, setting, name = facts.wireguard, facts.settings.wireguard.backend, facts.settings.wireguard.interface
    backend = "kernel" if host.kernel_module and setting != "userspace" else "userspace"
    if setting == "kernel" and not host.kernel_module:
        return failed(
            "wireguard", "wireguard.backend is kernel, and this kernel has none", _set("wireguard.backend", '"auto"')
        )
    if backend == "userspace" and not host.wireguard_go:
        why = "wireguard.backend is userspace" if setting == "userspace" else "this kernel has none"
        return failed("wireguard", f"{why}, and wireguard-go is not installed", "apt-get install wireguard-go")
    if backend == "userspace" and not host.tun_device:
        return failed("wireguard", "wireguard-go needs /dev/net/tun, which is not there", "modprobe tun")
    if host.interface_kind not in (None, KINDS[backend]):
        # No command takes a link away that may be the uplink.
        remove = f"ip link del {name}, or " if host.interface_kind in KINDS.values() else ""
        return failed(
            "wireguard",
            f"an interface {name} is there that is not ours ({host.interface_kind or 'a device'})",
            f"{remove}set wireguard.interface to another name",
        )
    if host.foreign is not None:
        return failed(
            "wireguard",
            f"an interface {name} is there that is not ours: {host.foreign}",
            f"ip link del {name}, or set wireguard.interface to another name",
        )
    return ok("wireguard", "in the kernel" if backend == "kernel" else "wireguard-go")


def udp_port(facts: Facts) -> Finding:
    """Checks that the port is free or the tunnel's own. Whether packets reach it is up to the firewall checks."""
    port, holders, ours = facts.settings.wireguard.listen_port, facts.udp.holders, facts.udp.device
    if ours == port:
        return ok("udp-port", f"{port}, the tunnel listens there")
    if holders and ours is None and facts.wireguard.interface_kind is not None and not facts.machine.root:
        return unseen("udp-port", f"who listens on UDP port {port}")
    if holders:
        mend = f"ss -lunp 'sport = {port}', stop what listens there, or set wireguard.listen_port"
        return failed("udp-port", f"{port} is taken by {', '.join(holders)}", mend)
    if ours is not None:
        return failed("udp-port", f"the tunnel listens on {ours}, not on {port}", RESTART)
    return ok("udp-port", f"{port} is free")


def public_address(facts: Facts) -> Finding:
    """Checks whether clients can connect to the announced address."""
    network, port, dialled = facts.network, facts.settings.wireguard.listen_port, facts.dialled
    public = '"<the address clients dial>"'
    if dialled is None or (facts.settings.node.public_ip is None and not network.uplinks):
        what = "node.public_ip is auto, and this host has no default route"
        what += "" if dialled is None else f": clients are still told {dialled}"
        return failed("public-address", what, _set("node.public_ip", public))
    if (stale := _stale(facts)) is not None:
        return failed("public-address", stale, f"{RESTART}; journalctl -u wg-appliance -n 20")
    if facts.settings.node.public_ip is None:
        if is_private(dialled):
            mend = _set("node.public_ip", public) + f", and forward UDP port {port} to {dialled}"
            return failed("public-address", f"{dialled} is private: behind NAT, clients cannot dial it", mend)
        return ok("public-address", f"{dialled}, of the default route")
    if network.owns(dialled):
        if is_private(dialled):
            what = f"{dialled} is private: only clients of that network can dial it"
            return warning("public-address", what, _set("node.public_ip", public))
        return ok("public-address", f"{dialled}, this host's own")
    way = network.uplinks.get(dialled.version)
    if way is not None and way.address is not None and is_private(way.address):
        return ok("public-address", f"{dialled}, behind NAT: UDP port {port} has to be forwarded to {way.address}")
    what = f"{dialled} is no address of this host, which sends from {way.address if way else 'none'}"
    mend = _set("node.public_ip", '"auto"') + ", unless a NAT in front of it has that address"
    return warning("public-address", what, mend)


def _stale(facts: Facts) -> str | None:
    """Says what of the addresses that the server uses is no longer so. It takes changes over within a second."""
    used, now = facts.in_use, facts.network.standing
    if used is None or now is None:
        return None
    if used.address != now.address:
        whose = "this host now sends from" if facts.settings.node.public_ip is None else "the configuration says"
        return f"the server tells clients {used.address}, {whose} {now.address}"
    if used.translation != now.translation:
        was, would = in_words(used.translation), in_words(now.translation)
        return f"the server has clients' packets leave {was}; as the host is now they would {would}"
    return None


def uplink(facts: Facts) -> Finding:
    """Checks that there is a default route, and that the tunnel's packets fit its MTU."""
    found = facts.network.uplinks
    if not found:
        return failed(
            "uplink",
            "this host has no default route: clients' traffic goes nowhere",
            "ip route add default via <gateway>",
        )
    if facts.dialled is not None and facts.dialled_version not in found:
        what = f"no IPv{facts.dialled_version} default route: clients that dial {facts.dialled} get no answer"
        return failed("uplink", what, "ip route add default via <gateway>")
    if 4 not in found:
        return warning(
            "uplink", "no IPv4 default route: clients reach IPv6 alone", "ip route add default via <gateway>"
        )
    version = facts.dialled_version
    way = found.get(version, found[4])
    chosen = tunnel_mtu.fitting(each.mtu for each in found.values())
    mtu, overhead = facts.settings.wireguard.mtu or chosen, tunnel_mtu.OVERHEAD[version]
    sizes = f"{way.interface} has MTU {way.mtu}, a tunnel packet has up to {mtu} + {overhead}"
    if mtu + overhead <= way.mtu:
        return ok("uplink", sizes)
    return warning("uplink", f"{sizes}: packets are cut in two or lost", _mend_mtu(facts, way, mtu, overhead))


def _mend_mtu(facts: Facts, way: Uplink, mtu: int, overhead: int) -> str:
    fits = way.mtu - overhead
    if fits >= tunnel_mtu.LEAST:
        return _set("wireguard.mtu", '"auto"')
    if fits >= LEAST_MTU[6 if facts.settings.wireguard.subnet6 else 4]:
        return _set("wireguard.mtu", str(fits))
    return f"ip link set {way.interface} mtu {mtu + overhead}"


def routing(facts: Facts) -> Finding:
    """Checks whether this host routes clients' packets to the internet and back."""
    fault = facts.network.routing_fault
    if facts.wireguard.interface_kind is None:
        return ok("routing", "there is no tunnel yet")
    if facts.state is not None and not facts.state.served:
        return ok("routing", "the server is not running")
    if fault is None:
        return ok("routing", "clients' packets are routed to the internet and back")
    what, _, see = fault.partition("; see ")
    return failed("routing", what, f"see {see}, and remove the rule or route")


def ipv6(facts: Facts) -> Finding:
    """Checks whether the tunnel's IPv6 matches the host's."""
    subnet6, network = facts.settings.wireguard.subnet6, facts.network
    way = network.uplinks.get(6) if network.has_ipv6 else None
    reachable = way is not None and way.address is not None
    if subnet6 is None:
        if reachable:
            return warning(
                "ipv6", "this host has IPv6, and clients get none", _set("wireguard.subnet6", '"fd65:7869:7400::/112"')
            )
        return ok("ipv6", "neither the host nor the tunnel has it")
    if not network.has_ipv6:
        what = "wireguard.subnet6 is set, and this kernel has no IPv6: the server will not start"
        return failed("ipv6", what, _set("wireguard.subnet6", '""'))
    if network.ipv6_off and facts.forwarding.writable is False:
        what = "wireguard.subnet6 is set, IPv6 is disabled here and /proc/sys is read-only: the server will not start"
        mend = "on the machine around this container: sysctl -w net.ipv6.conf.default.disable_ipv6=0; or "
        return failed("ipv6", what, mend + _set("wireguard.subnet6", '""'))
    if way is not None and way.address is None:
        what = f"{way.interface} has an IPv6 default route and no address for it: what clients send there is lost"
        return warning(
            "ipv6",
            what,
            f"give it an address, or: ip -6 route del default dev {way.interface}, and where a router announces it: "
            f"sysctl -w net.ipv6.conf.{way.interface}.accept_ra_defrtr=0",
        )
    if way is None:
        # Without subnet6 clients would have no IPv6 address, and their IPv6 connections would time out, not be refused.
        return ok("ipv6", "this host has no way out for it: what clients send is refused at once")
    return ok("ipv6", f"clients' leaves by {way.interface}")


def subnet(facts: Facts) -> Finding:
    """Checks whether the host uses the tunnel's addresses already."""
    tunnel = facts.settings.wireguard
    for key, own in (("subnet", tunnel.subnet), ("subnet6", tunnel.subnet6)):
        if own is None:
            continue
        taken = list(_overlapping(facts, own))
        if not taken:
            continue
        name, other, is_address = taken[0]
        mend = _set(f"wireguard.{key}", f'"{_free(facts) if own.version == 4 else "<another /112>"}"')
        what = f"wireguard.{key} {own} overlaps with {other} on {name}"
        if is_address:
            return failed("subnet", f"{what}: the server will not start", mend)
        if other.prefixlen >= own.prefixlen:
            return failed("subnet", f"{what}: answers to clients go there", mend)
        return warning("subnet", f"{what}: the part that clients have is not reached there any more", mend)
    networks = ", ".join(str(n) for n in (tunnel.subnet, tunnel.subnet6) if n)
    return ok("subnet", f"{networks}: not used here otherwise{_of_devices(facts)}")


def _of_devices(facts: Facts) -> str:
    """Says how many of the subnet's addresses devices keep; nothing where there are none."""
    store = None if facts.state is None else facts.state.store
    if store is None or not store.devices:
        return ""
    return f"; devices have {store.devices} of {facts.settings.wireguard.subnet.num_addresses - 3} addresses"


def is_private(address: IPv4Address | IPv6Address) -> bool:
    """Tells whether the internet cannot reach the address. Documentation ranges count as public, as for egress."""
    return any(address in network for network in PRIVATE)


def _overlapping(facts: Facts, own: IPv4Network | IPv6Network) -> Iterator[tuple[str, IPv4Network | IPv6Network, bool]]:
    """Yields (interface, network, whether the host has an address in it)."""
    addresses = [(name, interface.network, True) for name, interface in facts.network.addresses]
    routes = [(name, network, False) for name, network in facts.network.routes]
    for name, network, is_address in [*addresses, *routes]:
        if network.version == own.version and network.prefixlen > 0 and network.overlaps(own):
            yield name, network, is_address


def _free(facts: Facts) -> IPv4Network:
    """Returns a /24 of RFC 1918 that this host does not use."""
    candidates = (IPv4Network((0x0A000000 + (second << 16), 24)) for second in range(101, 255))
    return next((c for c in candidates if not list(_overlapping(facts, c))), IPv4Network("192.168.233.0/24"))


def _set(key: str, value: str) -> str:
    return f"set {key} = {value} in the configuration, then: {RESTART}"
