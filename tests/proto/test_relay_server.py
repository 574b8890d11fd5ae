"""The server's side: one client's conversation, and the roster of all."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.relay_peers import CHALLENGE, CLIENT_AUTH, ID, identity

from tunnel_rs.proto import relay_server as s
from tunnel_rs.proto.relay_frames import (
    Forward,
    Ping,
    StatusCode,
    encode_denial,
    encode_endpoint_gone,
    encode_health,
    encode_ping,
    encode_pong,
    encode_status,
    encode_to_relay,
)
from tunnel_rs.proto.relay_handshake import RelayVersion
from tunnel_rs.values import EndpointId

V1, V2 = RelayVersion.V1, RelayVersion.V2


def fresh(version: RelayVersion = V2) -> s.ClientConnection:
    return s.ClientConnection(version, lambda n: bytes(range(n)))


def admitted(version: RelayVersion = V2) -> s.ClientConnection:
    connection = fresh(version)
    assert connection.messages_to_send() == [b"\x00" + CHALLENGE]
    assert connection.receive(CLIENT_AUTH, 0.0) == s.Authenticated(EndpointId(ID))
    connection.admit(0.0, jitter=2.0)
    assert connection.messages_to_send() == [b"\x02"]
    return connection


def test_a_client_is_challenged_proves_its_id_and_is_admitted() -> None:
    connection = admitted()
    assert connection.endpoint_id == EndpointId(ID) and connection.is_admitted


def test_a_wrong_signature_is_denied() -> None:
    connection = fresh()
    connection.messages_to_send()
    event = connection.receive(CLIENT_AUTH[:-1] + b"\x00", 0.0)
    assert event == s.Failed("signature invalid")
    assert connection.messages_to_send() == [encode_denial("signature invalid")]
    assert connection.receive(CLIENT_AUTH, 0.0) is None, "there is no second try"


def test_what_comes_before_admission_is_refused() -> None:
    connection = fresh()
    assert isinstance(connection.receive(encode_ping(bytes(8)), 0.0), s.Failed)
    waiting = fresh()
    waiting.receive(CLIENT_AUTH, 0.0)
    assert isinstance(waiting.receive(CLIENT_AUTH, 0.0), s.Failed)


def test_a_denied_client_hears_why_and_nothing_it_sends_counts() -> None:
    connection = fresh()
    connection.receive(CLIENT_AUTH, 0.0)
    connection.messages_to_send()
    connection.deny("not authorized")
    assert connection.messages_to_send() == [encode_denial("not authorized")]
    assert connection.receive(encode_ping(bytes(8)), 0.0) is None
    assert connection.get_timer() is None


def test_pings_are_answered_and_datagrams_handed_on() -> None:
    connection = admitted()
    assert connection.receive(encode_ping(b"12345678"), 1) == Ping(b"12345678")
    assert connection.messages_to_send() == [encode_pong(b"12345678")]
    frame = connection.receive(encode_to_relay(ID, b"data"), 1)
    assert isinstance(frame, Forward) and frame.destination == ID


def test_a_quiet_client_is_pinged_after_15_seconds_and_the_jitter() -> None:
    connection = admitted()
    assert connection.get_timer() == 17.0 and connection.handle_timer(17.0) is None
    assert connection.messages_to_send() == [encode_ping(bytes(range(8)))]
    assert connection.handle_timer(22.0) == s.Failed("no answer to a ping")


def test_a_client_that_answers_stays() -> None:
    connection = admitted()
    connection.handle_timer(17.0)
    assert connection.receive(encode_pong(bytes(range(8))), 17.1) is None
    assert connection.handle_timer(22.0) is None and connection.get_timer() == 17.1 + 17.0


def test_a_client_is_told_once_that_it_is_rate_limited() -> None:
    for version, expected in ((V2, [encode_status(2)]), (V1, [])):
        connection = admitted(version)
        connection.rate_limited()
        connection.rate_limited()
        assert connection.messages_to_send() == expected


@given(st.lists(st.binary(max_size=120), max_size=20))
def test_no_sequence_of_messages_makes_it_raise(messages: Sequence[bytes]) -> None:
    for connection in (fresh(), admitted()):
        connection.messages_to_send()
        for message in messages:
            connection.receive(message, 1.0)
            assert len(connection.messages_to_send()) <= 1


# The roster.


def member(number: int, version: RelayVersion = V2) -> s.Member:
    return s.Member(identity(number).endpoint_id, version)


def key(number: int) -> bytes:
    return identity(number).endpoint_id.key


def test_datagrams_go_to_the_active_connection_of_the_destination() -> None:
    roster: s.Roster[str] = s.Roster()
    roster.add("a", member(1))
    roster.add("b", member(2))
    assert roster.route("a", key(2)) == (identity(1).endpoint_id, "b")
    assert roster.route("a", key(3)) is None
    assert roster.route("stranger", key(2)) is None
    assert len(roster) == 2 and "a" in roster and "stranger" not in roster


@pytest.mark.parametrize(
    ("version", "elsewhere", "healthy"),
    [
        (V2, encode_status(StatusCode.SAME_ID_ELSEWHERE), encode_status(StatusCode.HEALTHY)),
        (V1, encode_health(s._HEALTH[StatusCode.SAME_ID_ELSEWHERE]), encode_health("")),
    ],
)
def test_a_second_connection_with_the_same_id_takes_over_and_gives_back(
    version: RelayVersion, elsewhere: bytes, healthy: bytes
) -> None:
    roster: s.Roster[str] = s.Roster()
    roster.add("sender", member(1))
    roster.add("old", member(2, version))
    assert roster.add("new", member(2)) == ([("old", elsewhere)], None)
    assert roster.route("sender", key(2)) == (identity(1).endpoint_id, "new")
    assert roster.route("old", key(1)) == (identity(2).endpoint_id, "sender"), "it may still send"
    assert roster.remove("new") == [("old", healthy)]
    assert roster.route("sender", key(2)) == (identity(1).endpoint_id, "old")


def test_the_end_of_an_inactive_connection_is_told_to_nobody() -> None:
    roster: s.Roster[str] = s.Roster()
    roster.add("sender", member(1))
    roster.add("old", member(2))
    roster.add("new", member(2))
    roster.route("old", key(1))
    assert roster.remove("old") == [] and roster.remove("old") == []
    assert roster.remove("new") == [("sender", encode_endpoint_gone(key(2)))]


def test_those_a_sender_wrote_to_are_told_when_its_last_connection_ends() -> None:
    roster: s.Roster[str] = s.Roster()
    for name, number in (("a", 1), ("b", 2), ("c", 3)):
        roster.add(name, member(number))
    roster.route("a", key(2))
    roster.route("c", key(1))
    assert roster.remove("a") == [("b", encode_endpoint_gone(key(1)))]
    assert roster.remove("c") == [], "who has left is not told"


def test_one_id_holds_a_bounded_number_of_connections() -> None:
    roster: s.Roster[int] = s.Roster()
    surplus = [roster.add(n, member(1))[1] for n in range(s.MAX_SAME_ID + 1)]
    assert surplus[:-1] == [None] * s.MAX_SAME_ID and surplus[-1] == 0


def test_what_is_remembered_of_a_sender_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s, "MAX_REMEMBERED_PEERS", 2)
    roster: s.Roster[int] = s.Roster()
    for n in range(5):
        roster.add(n, member(n))
    for n in range(1, 5):
        assert roster.route(0, key(n)) is not None, "forwarding goes on"
    assert len(roster.remove(0)) == 2


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "remove", "route"]), st.integers(0, 11), st.integers(0, 3)
        ),
        max_size=80,
    )
)
def test_the_roster_keeps_its_books_whatever_comes(steps: list[tuple[str, int, int]]) -> None:
    roster: s.Roster[int] = s.Roster()
    present: dict[int, int] = {}
    for what, connection, number in steps:
        if what == "add" and connection not in present:
            roster.add(connection, member(number))
            present[connection] = number
        elif what == "remove":
            notices = roster.remove(connection)
            present.pop(connection, None)
            assert all(told in present for told, _ in notices)
        elif what == "route":
            route = roster.route(connection, key(number))
            holders = [c for c, n in present.items() if n == number]
            assert (route is not None) == (connection in present and bool(holders))
            assert route is None or route[1] == holders[-1]
    assert set(roster) == set(present) and roster.endpoint_count == len(set(present.values()))
    for connection in list(present):
        roster.remove(connection)
    books = (roster._members, roster._by_id, roster._active, roster._sent_to, roster._heard_from)
    assert not any(books), "nothing is left of those who have gone"
