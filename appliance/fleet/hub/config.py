"""Renders the configuration of a hub's nats-server from the directory of members. Pure.

Members and invitations sign on in the account FLEET, which has no JetStream; the hub's streams are in the account HUB,
which offers FLEET three services. NATS does not check the reply subject of a message against its sender's rights: in
one account with JetStream, a member could have answers written into others' records.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.fleet.hub.cluster import COPIES
from appliance.fleet.link.wire import PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterable

    from appliance.fleet.hub.cluster import Cluster
    from appliance.fleet.membership.members import FleetMember

SERVICES = ("state", "led", "join")  # of the hub, for members
ANSWER_WITHIN_S = 10  # a member may answer a request once, in this time

# A connection more than members use, so that the hub's own users are let in when members hold all of theirs.
MOST_CONNECTIONS, MOST_OF_MEMBERS = 256, 240

# JetStream reserves what a stream may hold at most. That of an exit has the last record of each session, 600 to 950
# bytes with what is around it: 20,000 live ones fit into half of it, from where on the ended ones are dropped. Claims,
# 250 bytes a key, are in two buckets of half of theirs; what is lent of limits, 500 bytes an account that is used on
# three exits, in one.
MOST_EXITS, STREAM_MB, CLAIMS_MB, LEASES_MB = 64, 32, 128, 64
DISK_MB, STREAMS = MOST_EXITS * STREAM_MB + CLAIMS_MB + LEASES_MB, MOST_EXITS + 3
LEAD_MB = 1  # of several hubs: the bucket that says which one leads

STANDARD = 'allowed_connection_types: ["STANDARD"]'  # no WebSocket, MQTT or leaf node
NODE_ID = re.compile(r"nod_[0-9a-f]{24}")
USER_KEY = re.compile(r"U[A-Z2-7]{55}")  # as NATS writes a user's public NKEY


@dataclass(frozen=True, slots=True)
class Rights:
    """Holds the subjects that a user may publish and subscribe. `responds`: it may answer what it is asked, too."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    responds: bool = False


@dataclass(frozen=True, slots=True)
class ServerFiles:
    """Names the files that the server reads and writes. `log`: "" for standard error; a file is kept small.

    `authority`: the certificates by which the hubs of a cluster know each other.
    """

    certificate: str
    key: str
    streams: str
    log: str = ""
    authority: str = ""


@dataclass(frozen=True, slots=True)
class HubSettings:
    """Holds what the configuration is made from. `listen`: HOST:PORT.

    `hub_nkey`, `system_nkey`: of the hub's own users in the accounts HUB and SYS. `invitations`: the NKEYs of those
    that are open, or were a short while ago: the holder of one is then told in words what is wrong with it.
    `cluster`: None: the hub stands alone.
    """

    server_name: str
    listen: str
    files: ServerFiles
    hub_nkey: str
    system_nkey: str
    members: tuple[FleetMember, ...]
    invitations: tuple[str, ...] = ()
    cluster: Cluster | None = None


def member_rights(node_id: str) -> Rights:
    """Returns the rights of a node: the sender's id is in each subject that it may publish."""
    return Rights(
        publish=(
            f"{PREFIX}.hb.{node_id}",
            f"{PREFIX}.state.{node_id}.>",
            f"{PREFIX}.led.{node_id}.>",
            f"{PREFIX}.rpc.*.{node_id}.>",
        ),
        subscribe=(f"{member_inbox(node_id)}.>", f"{PREFIX}.hb.*", f"{PREFIX}.rpc.{node_id}.>"),
        responds=True,
    )


def invitation_rights(nkey: str) -> Rights:
    """Returns the rights of whoever holds an invitation: to ask for membership, and to read the answer."""
    return Rights(publish=(join_subject(nkey),), subscribe=(f"{invitation_inbox(nkey)}.>",))


def member_inbox(node_id: str) -> str:
    """Returns the prefix of the subjects on which a node awaits answers."""
    return f"_INBOX_{node_id}"


def invitation_inbox(nkey: str) -> str:
    """Returns the prefix of the subjects on which the holder of an invitation awaits answers."""
    return f"_INBOX_join_{nkey}"


def join_subject(nkey: str) -> str:
    """Returns the subject on which the holder of an invitation asks for membership."""
    return f"{PREFIX}.join.{nkey}"


def render(settings: HubSettings) -> str:
    """Returns the text of the configuration. The same settings give the same text.

    Raises ValueError for an id or a key that could widen a right.
    """
    hub, system = _checked_key(settings.hub_nkey), _checked_key(settings.system_nkey)
    room = _room(settings.cluster)
    members = "".join(f"      {line}\n" for line in _users(settings))
    exports = "".join(f'      {{service: "{PREFIX}.{name}.>", accounts: [FLEET]}}\n' for name in SERVICES)
    imports = "".join(f'      {{service: {{account: HUB, subject: "{PREFIX}.{name}.>"}}}}\n' for name in SERVICES)
    return (
        f"{_server(settings)}"
        f"{'' if settings.cluster is None else _cluster(settings.cluster, settings.files)}"
        "system_account: SYS\n"
        "accounts {\n"
        f"  SYS: {{users: [{{nkey: {system}, {STANDARD}}}]}}\n"
        "  HUB: {\n"
        f"    jetstream: {{max_mem: 16MB, max_file: {room.of_account}MB, max_streams: {room.streams}, "
        "max_consumers: 256}\n"
        f"    users: [{{nkey: {hub}, {STANDARD}}}]\n"
        f"    exports: [\n{exports}    ]\n"
        "  }\n"
        "  FLEET: {\n"
        f"    limits: {{max_connections: {MOST_OF_MEMBERS}}}\n"
        f"    users: [\n{members}    ]\n"
        f"    imports: [\n{imports}    ]\n"
        "  }\n"
        "}\n"
    )


def _server(settings: HubSettings) -> str:
    files = settings.files
    log = f"log_file: {_quoted(files.log)}\nlogfile_size_limit: 4MB\nlogfile_max_num: 2\n" if files.log else ""
    return f"""# Written by wg-appliance from the members of the fleet; changes are lost.
server_name: {_quoted(settings.server_name)}
listen: {_quoted(settings.listen)}
{log}ping_interval: "5s"
ping_max: 2
max_payload: 256KB
max_connections: {MOST_CONNECTIONS}
max_subscriptions: 1000
write_deadline: "5s"
tls {{
  cert_file: {_quoted(files.certificate)}
  key_file: {_quoted(files.key)}
  min_version: "1.3"
  timeout: 3
}}
authorization {{ timeout: 3 }}
jetstream {{
  store_dir: {_quoted(files.streams)}
  max_memory_store: 16MB
  max_file_store: {_room(settings.cluster).of_server}MB
  sync_interval: always
}}
"""


@dataclass(frozen=True, slots=True)
class _Room:
    """Holds what JetStream may have, in MB: a server counts its own copies, the account those of all servers."""

    of_server: int
    of_account: int
    streams: int


def _room(cluster: Cluster | None) -> _Room:
    if cluster is None:
        return _Room(DISK_MB, DISK_MB, STREAMS)
    of_server = DISK_MB + LEAD_MB
    return _Room(of_server, of_server * COPIES, STREAMS + 1)


def _cluster(cluster: Cluster, files: ServerFiles) -> str:
    # Members know the hubs from the fleet, and are not told of them by nats-server. What is asked of a hub that is gone
    # goes to it, and is lost, until the others know.
    routes = [f"tls://{each}" for each in cluster.routes]
    return f"""cluster {{
  # The others dial {cluster.dialled}.
  name: {_quoted(cluster.name)}
  listen: {_quoted(cluster.listen)}
  no_advertise: true
  pool_size: 1
  ping_interval: "1s"
  ping_max: 3
  routes: {_listed(routes)}
  tls {{
    cert_file: {_quoted(files.certificate)}
    key_file: {_quoted(files.key)}
    ca_file: {_quoted(files.authority)}
    verify: true
    min_version: "1.3"
    timeout: 3
  }}
}}
"""


def needs_restart(before: str, text: str) -> bool:
    """Tells whether a server that runs by one configuration has to be started anew to go by the other."""
    return _started_with(before) != _started_with(text)


def _started_with(text: str) -> tuple[str, ...]:
    """Returns the lines that a reload does not take over; and where the hub is dialled, as its certificate says so."""
    fixed = "server_name:", "listen:", "store_dir:", "name:", "# The others dial"
    return tuple(line for line in map(str.strip, text.splitlines()) if line.startswith(fixed))


def _users(settings: HubSettings) -> Iterable[str]:
    for member in sorted(settings.members, key=lambda each: each.id):
        if member.left_at is None:
            yield _user(member.nkey, member_rights(_checked_id(member.id)))
    for nkey in sorted(settings.invitations):
        yield _user(nkey, invitation_rights(_checked_key(nkey)))


def _user(nkey: str, rights: Rights) -> str:
    permissions = [
        f"publish: {{allow: {_listed(rights.publish)}}}",
        f"subscribe: {{allow: {_listed(rights.subscribe)}}}",
    ]
    if rights.responds:
        permissions.append(f'allow_responses: {{max: 1, expires: "{ANSWER_WITHIN_S}s"}}')
    return f"{{nkey: {_checked_key(nkey)}, {STANDARD}, permissions: {{{', '.join(permissions)}}}}}"


def _checked_id(node_id: str) -> str:
    if not NODE_ID.fullmatch(node_id):
        raise ValueError(f"{node_id!r} is not the id of a node: nod_ and 24 hexadecimal digits")
    return node_id


def _checked_key(nkey: str) -> str:
    if not USER_KEY.fullmatch(nkey):
        raise ValueError(f"{nkey!r} is not the public NKEY of a user")
    return nkey


def _listed(subjects: Iterable[str]) -> str:
    return f"[{', '.join(map(_quoted, subjects))}]"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
