"""Accounts by a figure, against a plain dictionary."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appliance.domain.windows import MOST
from appliance.store.rows.account_order import AccountOrder

accounts = st.integers(0, 200)
figures = st.sampled_from((-1, 0, 5, 2**40, MOST, 2**70)) | st.integers(0, 9)


@given(st.lists(st.tuples(accounts, st.none() | figures, figures)))
def test_against_a_dictionary(steps: list[tuple[int, int | None, int]]) -> None:
    """Whatever was put, given up and put again: the lowest are those that hold now, in order, and asking moves none."""
    found, plain = AccountOrder(), dict[int, int]()
    for account, figure, limit in steps:
        found.put(account, figure)
        if figure is None:
            plain.pop(account, None)
        else:
            plain[account] = min(figure, MOST)
        expected = {number for number, put in plain.items() if put <= limit}
        up_to = found.up_to(limit)
        assert set(up_to) == expected
        assert [plain[number] for number in up_to] == sorted(plain[number] for number in expected)
        assert found.lowest() == min(plain.values(), default=None)
        assert len(found) == len(plain)
