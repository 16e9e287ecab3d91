"""Reads JSON that another host has sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

import msgspec

if TYPE_CHECKING:
    T = TypeVar("T")


class Unreadable(ValueError):
    """Is raised for data that is no JSON, or not of the type."""


@overload
def read(data: bytes | msgspec.Raw, shape: type[T]) -> T: ...
@overload
def read(data: bytes | msgspec.Raw, shape: Any) -> Any: ...
def read(data: bytes | msgspec.Raw, shape: Any) -> Any:
    """Returns what the data says. Raises Unreadable, whatever it is."""
    try:
        return msgspec.json.decode(data, type=shape)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Unreadable(str(error)) from error
