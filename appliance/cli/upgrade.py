"""`wg-appliance upgrade`."""

import click


@click.command()
def upgrade() -> None:
    """x"""
