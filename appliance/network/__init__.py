"""Controls this host's network: WireGuard, firewall, netlink, addresses."""
