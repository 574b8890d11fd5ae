"""A small Nostr relay (NIP-01, NIP-42) in this process, as good or as bad as a test wants it."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

from tunnel_rs.proto.nostr_events import AUTH_KIND, is_authentic, parse_event


@dataclass
class Behaviour:
    """What the relay does beside relaying. `tamper` may change, drop (None) or multiply events."""

    keeps: bool = False
    """Stores ephemeral events too, and gives them to late subscribers."""
    refuses: str = ""
    """Reason to refuse every event with."""
    closes_first: int = 0
    """How many subscriptions it closes before it lets one live."""
    delay: float = 0.0
    """Seconds that it keeps each event."""
    wants_auth: bool = False
    says_auth_failed: bool = False
    tamper: Callable[[dict[str, Any]], list[dict[str, Any]]] = field(default=lambda event: [event])


class TestRelay:
    """See `relay`."""

    __test__ = False

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.url = ""
        self.events: list[dict[str, Any]] = []
        self.requests = 0
        self.sockets: dict[web.WebSocketResponse, dict[str, list[dict[str, Any]]]] = {}
        self.authenticated: set[web.WebSocketResponse] = set()
        self.changed = asyncio.Event()

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.sockets[socket] = {}
        if self.behaviour.wants_auth:
            await socket.send_str(json.dumps(["AUTH", "challenge"]))
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await self._message(socket, json.loads(message.data))
        finally:
            del self.sockets[socket]
        return socket

    async def _message(self, socket: web.WebSocketResponse, message: list[Any]) -> None:
        match message:
            case ["REQ", str(name), *filters]:
                await self._subscribe(socket, name, filters)
            case ["AUTH", dict(fields)]:
                event = parse_event(fields)
                assert event is not None and is_authentic(event) and event.kind == AUTH_KIND
                assert event.tag("challenge") == "challenge" and event.tag("relay") == self.url
                ok = not self.behaviour.says_auth_failed
                if ok:
                    self.authenticated.add(socket)
                await socket.send_str(json.dumps(["OK", event.id, ok, "" if ok else "no member"]))
            case ["EVENT", dict(fields)]:
                await self._publish(socket, fields)
        self.changed.set()

    def _lacks_auth(self, socket: web.WebSocketResponse) -> bool:
        return self.behaviour.wants_auth and socket not in self.authenticated

    async def _subscribe(
        self, socket: web.WebSocketResponse, name: str, filters: list[dict[str, Any]]
    ) -> None:
        self.requests += 1
        if self._lacks_auth(socket):
            await socket.send_str(json.dumps(["CLOSED", name, "auth-required: who are you?"]))
            return
        if self.behaviour.closes_first:
            self.behaviour.closes_first -= 1
            await socket.send_str(json.dumps(["CLOSED", name, "error: tired"]))
            return
        self.sockets[socket][name] = filters
        for event in self.events if self.behaviour.keeps else ():
            if any(matches(each, event) for each in filters):
                await socket.send_str(json.dumps(["EVENT", name, event]))
        await socket.send_str(json.dumps(["EOSE", name]))

    async def _publish(self, socket: web.WebSocketResponse, fields: dict[str, Any]) -> None:
        event = parse_event(fields)
        assert event is not None and is_authentic(event), "we sent an event that is not valid"
        reason = self.behaviour.refuses
        if self._lacks_auth(socket):
            reason = "auth-required: who are you?"
        await socket.send_str(json.dumps(["OK", event.id, not reason, reason]))
        if reason:
            return
        self.events.append(fields)
        if self.behaviour.delay:
            await asyncio.sleep(self.behaviour.delay)
        for told in self.behaviour.tamper(fields):
            await self.deliver(told)

    async def deliver(self, event: dict[str, Any]) -> None:
        """Send an event to everybody whose filter fits."""
        for socket, subscriptions in list(self.sockets.items()):
            for name, filters in list(subscriptions.items()):
                if any(matches(each, event) for each in filters):
                    await socket.send_str(json.dumps(["EVENT", name, event]))

    async def drop_connections(self) -> None:
        for socket in list(self.sockets):
            await socket.close()


def matches(filter: dict[str, Any], event: dict[str, Any]) -> bool:
    """NIP-01 filters, as far as signalling uses them."""
    if "kinds" in filter and event["kind"] not in filter["kinds"]:
        return False
    return all(
        any(len(tag) > 1 and tag[0] == key[1:] and tag[1] in wanted for tag in event["tags"])
        for key, wanted in filter.items()
        if key.startswith("#")
    )


@asynccontextmanager
async def relay(behaviour: Behaviour | None = None) -> AsyncIterator[TestRelay]:
    """A relay on loopback; its `url` is for clients."""
    served = TestRelay(behaviour or Behaviour())
    app = web.Application()
    app.router.add_get("/", served.handle)
    # Longer than any delay: what is cancelled instead may outlive the cleanup.
    runner = web.AppRunner(app, shutdown_timeout=2)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        assert site._server is not None
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        served.url = f"ws://127.0.0.1:{port}/"
        yield served
        await served.drop_connections()
    finally:
        await runner.cleanup()


async def serve(host: str, port: int) -> None:
    """A well-behaved relay, for ever."""
    served = TestRelay(Behaviour())
    app = web.Application()
    app.router.add_get("/", served.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2])))
