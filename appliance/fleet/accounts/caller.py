"""Describes the account that asks, with the token that it has shown: the exit that owns a session asks to see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.domain.entities import Account
from appliance.domain.errors import InvalidToken

if TYPE_CHECKING:
    from typing import Self


class Caller(Account, frozen=True, gc=False):
    """Is an account, with the token of the request that is made for it."""

    token: str = ""

    @classmethod
    def of(cls, account: Account, token: str) -> Self:
        return cls(
            id=account.id,
            name=account.name,
            tier=account.tier,
            disabled=account.disabled,
            created_at=account.created_at,
            windows=account.windows,
            token=token,
        )

    def __repr__(self) -> str:
        """Leaves the token out."""
        return f"Caller({self.id})"


def token_of(account: Account) -> str:
    """Returns the token that was shown. Raises InvalidToken: none was."""
    if not isinstance(account, Caller) or not account.token:
        raise InvalidToken
    return account.token
