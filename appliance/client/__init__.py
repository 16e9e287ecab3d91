"""Connects to an exit: speaks its HTTP API, brings up a tunnel, implements `wg-appliance connect`.

`selftest` is a client too and uses the tunnel modules of this package.
"""
