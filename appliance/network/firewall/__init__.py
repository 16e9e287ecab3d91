"""Controls clients' traffic through the host: NAT, forwarding, and blocked destinations."""
