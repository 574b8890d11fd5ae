import pytest
from tests.support.ice_scene import client_settings, nostr_client, nostr_server
from tests.support.nostr_relay import Behaviour, relay
from tests.support.sockets import connect, echo_server, read_exactly, send, until

from tunnel_rs.errors import PeerNotFoundError, TargetError
from tunnel_rs.proto.signalling import Encryption
from tunnel_rs.reports import Trying, TunnelLost, TunnelUp


async def echo_through(port: int, data: bytes = b"hello") -> None:
    sock = await connect(("127.0.0.1", port))
    await send(sock, data)
    assert await read_exactly(sock, len(data)) == data
    sock.close()


@pytest.mark.parametrize("encryption", list(Encryption))
async def test_a_session_is_introduced_by_a_relay(encryption: Encryption) -> None:
    async with echo_server() as target, relay() as one:
        async with nostr_server(one.url, encryption=encryption):
            settings = client_settings(target.url)
            async with nostr_client(settings, one.url, encryption=encryption) as (running, _, told):
                await echo_through(running.port())
                # What tells a service manager that the listeners are open.
                assert told.of(Trying)
        types = {tag[1] for event in one.events for tag in event["tags"] if tag[0] == "type"}
        encrypted = encryption is not Encryption.OFF
        assert types == {
            f"tunnel-{name}{'-e' if encrypted else ''}" for name in ("request", "offer", "answer")
        }
        secrets = [e for e in one.events if "candidate" in str(e)]
        assert not secrets


async def test_one_good_relay_among_bad_ones_is_enough() -> None:
    async with echo_server() as target, relay() as good:
        async with relay(Behaviour(refuses="blocked: kind 24242")) as bad:
            urls = ("ws://127.0.0.1:9/", bad.url, good.url)
            async with (
                nostr_server(*urls),
                nostr_client(client_settings(target.url), *urls) as (
                    running,
                    _,
                    reports,
                ),
            ):
                await echo_through(running.port())
                assert "blocked: kind 24242" in reports.texts("warning")


async def test_a_lost_session_is_introduced_anew() -> None:
    async with echo_server() as target, relay() as one, nostr_server(one.url):
        settings = client_settings(target.url, reconnect=True)
        async with nostr_client(settings, one.url) as (running, introducer, _):
            await echo_through(running.port())
            session = introducer._session
            assert session is not None and session._endpoint is not None
            session._endpoint.close(0, "cut by the test")
            await until(lambda: bool(running.reports.of(TunnelLost)))
            await echo_through(running.port(), b"again")
            assert len(running.reports.of(TunnelUp)) == 2


async def test_a_server_that_spoke_in_secret_is_not_believed_in_plain_text_again() -> None:
    async with echo_server() as target, relay() as one, nostr_server(one.url):
        async with nostr_client(client_settings(target.url), one.url) as (running, client, _):
            await echo_through(running.port())
            assert client._encryption is Encryption.REQUIRED


async def test_a_refused_source_ends_the_client_with_the_reason() -> None:
    async with relay() as one, nostr_server(one.url):
        settings = client_settings("tcp://192.0.2.1:22")
        async with nostr_client(settings, one.url) as (running, _, _):
            with pytest.raises(TargetError, match="not among the sources"):
                await running.task


async def test_silence_is_told_with_the_relays_that_were_asked() -> None:
    async with relay() as one:
        settings = client_settings("tcp://127.0.0.1:22")
        async with nostr_client(settings, one.url, max_wait=0.3) as (running, _, _):
            with pytest.raises(PeerNotFoundError, match=one.url):
                await running.task
