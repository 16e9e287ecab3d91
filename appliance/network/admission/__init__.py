"""Admits to routing and to the tunnel only what the firewall's table has marked: a flush of the table opens nothing."""
