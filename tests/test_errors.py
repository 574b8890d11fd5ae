"""The error tree: exit statuses, what may be tried again, what a message says."""

import pytest

from tunnel_rs import errors
from tunnel_rs.errors import ExitStatus, LinkClosedError, StreamResetError, TunnelError


def test_the_exit_statuses_are_those_of_the_manual() -> None:
    assert {status.name: status.value for status in ExitStatus} == {
        "DONE": 0,
        "FAILURE": 1,
        "USAGE": 2,
        "AUTH_REFUSED": 3,
        "PEER_NOT_FOUND": 4,
        "UNREACHABLE": 5,
        "INVALID_CONFIG": 6,
        "HUNG_UP": 129,
        "INTERRUPTED": 130,
        "TERMINATED": 143,
    }


@pytest.mark.parametrize(
    ("kind", "status", "transient"),
    [
        (errors.TunnelError, ExitStatus.FAILURE, False),
        (errors.UsageError, ExitStatus.USAGE, False),
        (errors.ConfigError, ExitStatus.INVALID_CONFIG, False),
        (errors.AuthRefusedError, ExitStatus.AUTH_REFUSED, False),
        (errors.PeerNotFoundError, ExitStatus.PEER_NOT_FOUND, True),
        (errors.UnreachableError, ExitStatus.UNREACHABLE, True),
        (errors.WrongPeerError, ExitStatus.UNREACHABLE, False),
        (errors.ProtocolError, ExitStatus.FAILURE, False),
        (errors.LocalError, ExitStatus.FAILURE, False),
        (errors.TargetError, ExitStatus.FAILURE, False),
        (errors.LinkClosedError, ExitStatus.UNREACHABLE, True),
        (errors.StreamResetError, ExitStatus.FAILURE, False),
    ],
)
def test_each_error_has_its_exit_status_and_says_whether_to_try_again(
    kind: type[TunnelError], status: ExitStatus, transient: bool
) -> None:
    assert issubclass(kind, TunnelError)
    assert kind.exit_status is status
    assert kind.transient is transient


def test_every_error_of_the_module_belongs_to_the_tree() -> None:
    kinds = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, Exception)
    ]
    assert len(kinds) == 12
    assert all(issubclass(kind, TunnelError) for kind in kinds)


def test_an_error_shows_its_message() -> None:
    assert str(errors.LocalError("port 22 is in use")) == "port 22 is in use"


def test_a_closed_link_keeps_code_reason_and_who_ended_it() -> None:
    error = LinkClosedError(1, "auth_failed", by_peer=True, by_application=True)
    assert str(error) == error.reason == "auth_failed"
    assert (error.code, error.by_peer, error.by_application) == (1, True, True)


def test_a_link_closed_without_a_reason_shows_its_code() -> None:
    error = LinkClosedError(7, "")
    assert str(error) == "closed with code 7"
    assert (error.reason, error.by_peer, error.by_application) == ("", False, False)


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("done", "the other side has ended it"),
        ("", "the other side has ended it"),
        ("bye", "the other side has ended it (bye)"),
    ],
)
def test_a_link_that_the_peer_has_ended_in_order_says_so(reason: str, shown: str) -> None:
    error = LinkClosedError(0, reason, by_peer=True, by_application=True)
    assert (str(error), error.reason) == (shown, reason)


def test_a_reset_stream_keeps_its_code() -> None:
    assert StreamResetError(9).code == 9
    assert str(StreamResetError(9)) == "the stream was reset by the peer"
    assert str(StreamResetError(9, "the link closed")) == "the link closed"
