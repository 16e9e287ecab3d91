"""Renders the chains of the exit's nftables table, one in a file. Pure."""
