"""An account's holder, who asks for devices over HTTP."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from appliance.domain.tiers import Tier

if TYPE_CHECKING:
    import httpx

    from tests.support.api.exit_under_test import Client, ExitUnderTest


@dataclass
class Owner:
    """An account's holder, who has devices."""

    client: Client

    @classmethod
    async def of(cls, exit_: ExitUnderTest, name: str = "ada", tier: Tier = Tier.PAID) -> Owner:
        return cls(await exit_.client(name, tier))

    async def ask(self, method: str, path: str, body: object = None, **query: str) -> httpx.Response:
        exit_ = self.client.exit_
        answer = await exit_.http.request(method, path, json=body, params=query, headers=self.client.headers)
        await exit_.settled()
        return answer

    async def post(self, name: object = "phone", **fields: object) -> httpx.Response:
        return await self.ask("POST", "/v1/devices", {"name": name, "region": "fsn", **fields})

    async def add(self, name: str = "phone", **fields: object) -> dict[str, Any]:
        answer = await self.post(name, **fields)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    async def get(self, device_id: str) -> dict[str, Any]:
        return self._good(await self.ask("GET", f"/v1/devices/{device_id}"))

    async def patch(self, device_id: str, **fields: object) -> httpx.Response:
        return await self.ask("PATCH", f"/v1/devices/{device_id}", fields)

    async def rotate(self, device_id: str, **fields: object) -> httpx.Response:
        return await self.ask("POST", f"/v1/devices/{device_id}/rotate", fields)

    async def remove(self, device_id: str) -> httpx.Response:
        return await self.ask("DELETE", f"/v1/devices/{device_id}")

    @staticmethod
    def _good(answer: httpx.Response) -> dict[str, Any]:
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


def key_of(exit_: ExitUnderTest, device_id: str) -> bytes:
    key: bytes = exit_.rows("SELECT public_key FROM devices WHERE id = ?", device_id)[0][0]
    return key


def private_key(made: dict[str, Any]) -> bytes:
    line = next(line for line in made["wg_config"].splitlines() if line.startswith("PrivateKey"))
    return base64.b64decode(line.removeprefix("PrivateKey = "))
