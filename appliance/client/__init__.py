"""A client of an exit: the API as it is asked over HTTP, a tunnel that is dialled, `wg-appliance connect`.

`selftest` is a client too, and has its tunnel from here.
"""
