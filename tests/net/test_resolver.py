"""Tests of `tunnel_rs.net.resolver`."""

import asyncio
import socket
import threading

import pytest

from tunnel_rs.errors import TargetError
from tunnel_rs.net.resolver import MAX_ADDRESSES, MAX_LOOKUPS, SystemResolver


class Lookup:
    """A scripted `getaddrinfo`."""

    def __init__(self, *answers: list[str] | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def __call__(self, host: str) -> list[str]:
        self.asked.append(host)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:0::7", "2001:db8::7"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
    ],
)
async def test_a_literal_passes_through_in_canonical_form_without_a_lookup(
    host: str, address: str
) -> None:
    assert await SystemResolver(lookup=Lookup())(host) == [address]


async def test_a_name_is_looked_up_once_and_duplicates_are_dropped() -> None:
    lookup = Lookup(["192.0.2.7", "2001:db8::7", "192.0.2.7", "::ffff:192.0.2.7"])
    assert await SystemResolver(lookup=lookup)("host.example") == ["192.0.2.7", "2001:db8::7"]
    assert lookup.asked == ["host.example"]


async def test_an_answer_is_cut_to_a_bounded_number_of_addresses() -> None:
    lookup = Lookup([f"10.0.{i // 256}.{i % 256}" for i in range(1000)])
    assert len(await SystemResolver(lookup=lookup)("farm.example")) == MAX_ADDRESSES


async def test_the_hosts_file_is_respected() -> None:
    assert "127.0.0.1" in await SystemResolver()("localhost")


async def test_an_unknown_name_is_a_target_error_that_names_it() -> None:
    gone = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    with pytest.raises(TargetError, match=r"^no\.example: cannot be resolved \(name or service"):
        await SystemResolver(lookup=Lookup(gone))("no.example")


async def test_a_name_that_cannot_be_encoded_is_a_target_error() -> None:
    with pytest.raises(TargetError, match="cannot be resolved"):
        await SystemResolver()("a" * 300)


async def test_an_empty_answer_is_a_target_error() -> None:
    with pytest.raises(TargetError, match=r"empty\.example: has no IP address"):
        await SystemResolver(lookup=Lookup([]))("empty.example")


async def test_a_resolver_that_hangs_is_given_up_and_its_thread_is_still_counted() -> None:
    release = threading.Event()
    started: list[str] = []

    def hang(host: str) -> list[str]:
        started.append(host)
        release.wait()
        return ["192.0.2.7"]

    resolve = SystemResolver(timeout=0.05, lookup=hang)
    try:
        answers = await asyncio.gather(
            *(resolve(f"h{i}.example") for i in range(MAX_LOOKUPS + 5)), return_exceptions=True
        )
        assert all(isinstance(answer, TargetError) for answer in answers)
        assert "no answer from the resolver in 0.05 s" in str(answers[0])
        assert len(started) == MAX_LOOKUPS
    finally:
        release.set()
    async with asyncio.timeout(5):
        while True:
            try:
                assert await resolve("again.example") == ["192.0.2.7"]
                break
            except TargetError:
                continue
