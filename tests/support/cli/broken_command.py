"""A command that fails as none should."""

from __future__ import annotations

import asyncio

import click

from appliance.cli.lazy_group import Commands


@click.group(cls=Commands)
def broken() -> None:
    """Fail."""


@broken.command()
def words() -> None:
    """Raise an error of two lines, with an escape sequence in it."""
    raise RuntimeError("first \x1b[31m\nsecond")


@broken.command()
def tasks() -> None:
    """Raise one error in a group of tasks, as a server does."""
    asyncio.run(_tasks())


@broken.command()
def disk() -> None:
    """Raise an error of the host that nothing turned into a sentence."""
    raise OSError(28, "No space left on device", "/var/lib/file")


async def _tasks() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_fail())


async def _fail() -> None:
    raise KeyError("absent")
