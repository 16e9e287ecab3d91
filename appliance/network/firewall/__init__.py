"""What leaves the host on behalf of clients: NAT, forwarding, and what is blocked."""
