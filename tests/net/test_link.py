"""Tests that what claims the face of `tunnel_rs.net.link` has it: names, arguments and kinds."""

import inspect
from typing import Any

import pytest
from tests.support.memory_link import MemoryLink, MemoryStream
from tests.support.recorder import Recorder
from tests.support.tape import Tape

from tunnel_rs.forward.dialogue import Dialogue
from tunnel_rs.net.link import ByteStream, Link, StreamReceiver
from tunnel_rs.net.quic_connection import QuicConnection
from tunnel_rs.net.quic_stream import QuicStream
from tunnel_rs.net.splice import Splice

LINKS = [QuicConnection, MemoryLink]
STREAMS = [QuicStream, MemoryStream]
RECEIVERS = [Dialogue, Splice, Recorder, Tape]


def face(protocol: type) -> dict[str, Any]:
    return {name: each for name, each in vars(protocol).items() if not name.startswith("_")}


@pytest.mark.parametrize(
    ("protocol", "made"),
    [
        *((Link, made) for made in LINKS),
        *((ByteStream, made) for made in STREAMS),
        *((StreamReceiver, made) for made in RECEIVERS),
    ],
)
def test_every_method_is_there_with_the_same_arguments(protocol: type, made: type) -> None:
    for name, wanted in face(protocol).items():
        if isinstance(wanted, property):
            continue  # may be an attribute of the instance
        found = getattr(made, name)
        assert inspect.iscoroutinefunction(found) == inspect.iscoroutinefunction(wanted), name
        assert list(inspect.signature(found).parameters) == list(
            inspect.signature(wanted).parameters
        ), name


def test_the_parts_of_a_link_are_documented() -> None:
    for protocol in (Link, ByteStream, StreamReceiver):
        for name, each in face(protocol).items():
            assert each.__doc__ or name in ("stream_id",), name
