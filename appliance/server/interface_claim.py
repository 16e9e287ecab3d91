"""Claims the tunnel's interface at start: one of this name that is another program's is refused, nothing is changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.domain.errors import HostError, TunnelError
from appliance.network.wireguard.owned_device import VANISH_TIMEOUT_S, OwnedDevice
from appliance.network.wireguard.ownership import OwnMarks
from appliance.network.wireguard.wireguard_go import START_TIMEOUT_S

if TYPE_CHECKING:
    from appliance.network.exit_node import Exit
    from appliance.network.wireguard.tunnel import TunnelDevice
    from appliance.store.server_keys import ServerKeys

SETTING_UP_S = 2.0  # what another program gets to set up an interface that it has made


def claim(device: TunnelDevice, exit_: Exit, server_keys: ServerKeys, *, own_unit: bool) -> OwnedDevice:
    """Returns the device, guarded. Blocks. Raises HostError if the interface is not ours.

    `own_unit`: a systemd unit of ours makes the interface.
    """
    public_keys = server_keys.public_keys() | {exit_.public_key}
    own = OwnMarks(public_keys, exit_.listen_port, exit_.own_prefixes)
    owned = OwnedDevice(device, own, patience_s=0 if own_unit else SETTING_UP_S)
    try:
        present = owned.claim(START_TIMEOUT_S if own_unit else VANISH_TIMEOUT_S)
    except TunnelError as error:
        device.close()
        raise HostError(str(error)) from error
    # Before server.key is set on it: if this process dies in between, the interface is still known.
    server_keys.note({exit_.public_key, *(key for key in public_keys if key == present)})
    return owned
