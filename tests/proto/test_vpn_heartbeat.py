from tunnel_rs.proto.vpn_heartbeat import (
    CLIENT_PATIENCE,
    PING_INTERVAL,
    SERVER_PATIENCE,
    Heartbeat,
)


def test_the_first_ping_is_due_at_once_and_then_every_ten_seconds() -> None:
    heartbeat = Heartbeat(100.0, patience=CLIENT_PATIENCE, interval=PING_INTERVAL)
    due = [now for now in range(100, 141) if heartbeat.ping_due(float(now))]
    assert due == [100, 110, 120, 130, 140]


def test_who_only_answers_never_pings() -> None:
    heartbeat = Heartbeat(0.0, patience=SERVER_PATIENCE)
    assert not any(heartbeat.ping_due(float(now)) for now in range(100))


def test_silence_longer_than_the_patience_is_the_end() -> None:
    heartbeat = Heartbeat(0.0, patience=30.0)
    heartbeat.heard(5.0)
    assert not heartbeat.is_lost(35.0)
    assert heartbeat.is_lost(35.1)


def test_the_next_look_is_when_something_may_have_changed() -> None:
    heartbeat = Heartbeat(0.0, patience=30.0, interval=10.0)
    heartbeat.ping_due(0.0)
    assert 10.0 < heartbeat.next_look(0.0) < 10.1
    assert heartbeat.is_lost(29.0 + heartbeat.next_look(29.0)) is False  # a ping is due first
    server = Heartbeat(0.0, patience=30.0)
    assert server.is_lost(server.next_look(0.0))


def test_a_dead_peer_is_noticed_within_forty_seconds() -> None:
    for heartbeat in (
        Heartbeat(0.0, patience=SERVER_PATIENCE),
        Heartbeat(0.0, patience=CLIENT_PATIENCE, interval=PING_INTERVAL),
    ):
        now = 0.0
        while not heartbeat.is_lost(now):
            heartbeat.ping_due(now)
            now += heartbeat.next_look(now)
        assert now < 40.0
