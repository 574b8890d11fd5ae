import pytest

from tunnel_rs.proto.ice_messages import (
    IceParameters,
    Offer,
    Reject,
    Request,
    decode_request,
    encode,
)
from tunnel_rs.proto.nostr_events import EventType, Signal
from tunnel_rs.proto.nostr_flow import (
    FRESH,
    KNOWN_FOR,
    MAX_KNOWN,
    Asked,
    ClientFlow,
    Repeated,
    ServerFlow,
    Stale,
)
from tunnel_rs.proto.signalling import Encryption

ICE = IceParameters("abcdEFGH12345678", "0123456789abcdefghijkl", ())
WALL = 1_700_000_000
REQUEST = Request(ICE, "00112233445566aa", 0, "tcp://127.0.0.1:22")


def client(encryption: Encryption = Encryption.OFF) -> ClientFlow:
    return ClientFlow(REQUEST, encryption, interval=5.0, max_wait=120.0, now=0.0)


def schedule(flow: ClientFlow) -> list[tuple[float, list[bool]]]:
    """When the request is published, and which of the messages are encrypted."""
    found = []
    now = 0.0
    while not flow.is_over(now):
        messages = flow.due(now, WALL)
        if messages:
            found.append((now, [m.encrypted for m in messages]))
        now = flow.get_timer()
    return found


def test_the_request_is_repeated_less_and_less_often_until_the_end() -> None:
    assert [at for at, _ in schedule(client())] == [0, 5, 15, 35, 75]


@pytest.mark.parametrize(
    ("encryption", "first", "later"),
    [
        (Encryption.OFF, [False], [False]),
        (Encryption.AUTO, [True], [True, False]),
        (Encryption.REQUIRED, [True], [True]),
    ],
)
def test_plain_text_is_only_tried_as_far_as_it_may_be(
    encryption: Encryption, first: list[bool], later: list[bool]
) -> None:
    found = [encrypted for _, encrypted in schedule(client(encryption))]
    assert found[0] == first and all(each == later for each in found[1:])


def test_a_repeated_request_has_the_present_time_and_the_same_session() -> None:
    flow = client()
    [first] = flow.due(0.0, WALL)
    assert flow.due(4.9, WALL) == []
    [second] = flow.due(5.0, WALL + 5)
    one, two = decode_request(first.body), decode_request(second.body)
    assert (one.timestamp, two.timestamp) == (WALL, WALL + 5)
    assert one.session_id == two.session_id == REQUEST.session_id
    assert flow.published == 2


def offer(session_id: str = REQUEST.session_id) -> bytes:
    return encode(Offer(ICE, session_id=session_id))


def test_only_the_answer_to_this_session_counts() -> None:
    flow = client()
    assert flow.heard(Signal(EventType.OFFER, offer("ffff"), False)) is None
    assert flow.heard(Signal(EventType.OFFER, b"{}", False)) is None
    assert flow.heard(Signal(EventType.ANSWER, offer(), False)) is None
    assert flow.heard(Signal(EventType.OFFER, offer(), False)) is not None
    reject = Reject(REQUEST.session_id, "no")
    assert flow.heard(Signal(EventType.REJECT, encode(reject), False)) == reject


@pytest.mark.parametrize(
    ("encryption", "understood"),
    [
        (Encryption.OFF, {False}),
        (Encryption.AUTO, {False, True}),
        (Encryption.REQUIRED, {True}),
    ],
)
def test_both_sides_understand_what_their_setting_allows(
    encryption: Encryption, understood: set[bool]
) -> None:
    for encrypted in (False, True):
        heard = client(encryption).heard(Signal(EventType.OFFER, offer(), encrypted))
        assert (heard is not None) == (encrypted in understood)
        asked = ServerFlow(encryption).heard(request(encrypted=encrypted), 0.0, WALL)
        assert (asked is not None) == (encrypted in understood)


def request(session: str = "a", at: int = WALL, *, encrypted: bool = False) -> Signal:
    return Signal(EventType.REQUEST, encode(Request(ICE, session, at)), encrypted)


def test_a_request_is_fresh_for_30_seconds_and_from_the_future_always() -> None:
    for at in (WALL - FRESH, WALL, WALL + 100_000, 2**63):
        assert isinstance(ServerFlow(Encryption.AUTO).heard(request(at=at), 0.0, WALL), Asked)
    stale = ServerFlow(Encryption.AUTO).heard(request(at=WALL - FRESH - 1), 0.0, WALL)
    assert stale == Stale(FRESH + 1)


def test_a_session_is_asked_for_once() -> None:
    flow = ServerFlow(Encryption.AUTO)
    assert flow.heard(request(encrypted=True), 0.0, WALL) == Asked(Request(ICE, "a", WALL), True)
    assert flow.heard(request(), 1.0, WALL + 1) == Repeated("a")
    assert isinstance(flow.heard(request("b"), 1.0, WALL + 1), Asked)


def test_a_session_is_forgotten_when_repeating_it_is_stale_anyway() -> None:
    flow = ServerFlow(Encryption.AUTO)
    flow.heard(request(at=WALL + 600), 0.0, WALL)
    late = KNOWN_FOR + 1
    assert flow.heard(request(at=WALL + 600), late, WALL + int(late)) == Repeated("a")


def test_remembered_sessions_are_bounded() -> None:
    flow = ServerFlow(Encryption.AUTO)
    for number in range(MAX_KNOWN + 5):
        assert isinstance(flow.heard(request(str(number)), 0.0, WALL), Asked)
    assert len(flow._known) <= MAX_KNOWN
    assert isinstance(flow.heard(request("0"), 0.0, WALL), Asked)


@pytest.mark.parametrize("kind", [EventType.OFFER, EventType.ANSWER, EventType.REJECT])
def test_a_server_does_not_answer_what_is_no_request(kind: EventType) -> None:
    body = request().body
    assert ServerFlow(Encryption.AUTO).heard(Signal(kind, body, False), 0.0, WALL) is None
    broken = Signal(EventType.REQUEST, b"{}", False)
    assert ServerFlow(Encryption.AUTO).heard(broken, 0.0, WALL) is None
