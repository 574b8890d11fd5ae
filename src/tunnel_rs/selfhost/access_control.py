"""The shell around `proto.relay_access`: a list in a watched file, and asking an HTTP service."""

import asyncio
import os
from pathlib import Path

import aiohttp

from tunnel_rs.errors import ConfigError
from tunnel_rs.proto.relay_access import (
    AccessPolicy,
    AccessService,
    AllowList,
    Decision,
    decide,
    parse_id_list,
)
from tunnel_rs.values import EndpointId, Secret

_ASK_TIMEOUT = 5.0
_MAX_ASKING = 64
_MAX_ANSWER = 64
_MAX_FILE = 128 * 1024 * 1024


class AccessControl:
    """Decides who may use the relay."""

    def __init__(self, policy: AccessPolicy, file: Path | None = None) -> None:
        """`file`: EndpointIds allowed besides those of the allow-list. Raises ConfigError."""
        if file is not None and not isinstance(policy, AllowList):
            raise ConfigError("an access file needs access.allowlist; the list may be empty")
        self._configured = policy
        self._policy = policy
        self._file = file
        self._seen: tuple[int, int, int] | None = None
        self._asking = asyncio.Semaphore(_MAX_ASKING)
        self._session: aiohttp.ClientSession | None = None
        if file is not None:
            self.reload()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def reload(self) -> None:
        """Read the file again. Raises ConfigError, and then the list in use stays."""
        if self._file is None or not isinstance(self._configured, AllowList):
            return
        self._seen = self._fingerprint()
        listed = parse_id_list(_read(self._file), str(self._file))
        self._policy = AllowList(self._configured.endpoint_ids | listed)

    def has_changed(self) -> bool:
        """Whether the file is not the one that was read last."""
        return self._file is not None and self._fingerprint() != self._seen

    def still_allows(self, endpoint_id: EndpointId, token: Secret[str] | None) -> bool:
        """Judge a connected client again. What a service once allowed stays allowed."""
        return decide(self._policy, endpoint_id, token) is not Decision.DENY

    async def may_enter(self, endpoint_id: EndpointId, token: Secret[str] | None) -> bool:
        policy = self._policy
        decision = decide(policy, endpoint_id, token)
        if decision is Decision.ASK and isinstance(policy, AccessService):
            return await self._ask(policy, endpoint_id)
        return decision is Decision.ALLOW

    async def _ask(self, service: AccessService, endpoint_id: EndpointId) -> bool:
        """No answer in time is a no."""
        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        try:
            async with asyncio.timeout(_ASK_TIMEOUT), self._asking:
                headers = service.headers(endpoint_id)
                async with self._session.post(
                    service.url, headers=headers, allow_redirects=False
                ) as answer:
                    body = await answer.content.read(_MAX_ANSWER)
                    return AccessService.allows(answer.status, body)
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    def _fingerprint(self) -> tuple[int, int, int] | None:
        assert self._file is not None
        try:
            status = os.stat(self._file)
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino


def _read(file: Path) -> str:
    try:
        if file.stat().st_size > _MAX_FILE:
            raise ConfigError(f"access file {file} is larger than {_MAX_FILE // 2**20} MiB")
        return file.read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"access file {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"access file {file} is not UTF-8 text") from None
