"""Both controllers against the formulas of RFC 9002 (NewReno) and RFC 9438 (CUBIC)."""

from dataclasses import dataclass

import pytest
from aioquic.quic.congestion.base import create_congestion_control

from tunnel_rs.proto.congestion import Cubic, NewReno, registered_name
from tunnel_rs.proto.transport_settings import CongestionController

SIZE = 1200
RTT = 0.05
Controller = Cubic | NewReno


@dataclass
class Packet:
    """What a controller sees of a packet or train."""

    sent_bytes: int
    sent_time: float


def controller(kind: type[Controller]) -> Controller:
    return kind(max_datagram_size=SIZE)


def play_round(control: Controller, now: float, share: float = 1.0) -> float:
    """Fill `share` of the window, get it all acknowledged a round trip later; that time."""
    count = max(1, int(control.congestion_window * share) // SIZE)
    trains = [Packet(min(10, count - first) * SIZE, now) for first in range(0, count, 10)]
    for train in trains:
        control.on_packet_sent(packet=train)
    for train in trains:
        control.on_packet_acked(now=now + RTT, packet=train)
    assert control.bytes_in_flight == 0
    return now + RTT


def lose_one(control: Controller, sent: float, now: float) -> None:
    packet = Packet(SIZE, sent)
    control.on_packet_sent(packet=packet)
    control.on_packets_lost(now=now, packets=[packet])


def in_avoidance(kind: type[Controller], window: int) -> tuple[Controller, float]:
    """A controller whose window of `window` bytes has just been left by a loss."""
    control = controller(kind)
    control.congestion_window = window
    lose_one(control, 9.9, 10.0)
    return control, 10.0


@pytest.fixture(params=[Cubic, NewReno])
def kind(request: pytest.FixtureRequest) -> type[Controller]:
    chosen: type[Controller] = request.param
    return chosen


def test_controllers_are_known_to_aioquic_by_their_names() -> None:
    for choice, kind in (
        (CongestionController.CUBIC, Cubic),
        (CongestionController.NEW_RENO, NewReno),
    ):
        made = create_congestion_control(registered_name(choice), max_datagram_size=SIZE)
        assert type(made) is kind


def test_a_controller_we_do_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="'bbr' is not available"):
        registered_name(CongestionController.BBR)


def test_the_first_window_is_ten_datagrams(kind: type[Controller]) -> None:
    assert controller(kind).congestion_window == 10 * SIZE


def test_slow_start_doubles_the_window_each_round(kind: type[Controller]) -> None:
    control = controller(kind)
    now = 1.0
    for factor in (2, 4, 8):
        now = play_round(control, now)
        assert control.congestion_window == 10 * SIZE * factor


def test_a_train_grows_the_window_like_its_packets(kind: type[Controller]) -> None:
    control = controller(kind)
    train = Packet(10 * SIZE, 1.0)
    control.on_packet_sent(packet=train)
    control.on_packet_acked(now=1.0 + RTT, packet=train)
    assert control.congestion_window == 20 * SIZE


@pytest.mark.parametrize(("chosen", "beta"), [(Cubic, 0.7), (NewReno, 0.5)])
def test_a_loss_multiplies_the_window_once_a_round(chosen: type[Controller], beta: float) -> None:
    control = controller(chosen)
    control.congestion_window = 100 * SIZE
    lose_one(control, 1.0, 1.1)
    assert control.congestion_window == control.ssthresh == int(100 * SIZE * beta)
    lose_one(control, 1.05, 1.2)  # sent before the reduction: the same event
    assert control.congestion_window == int(100 * SIZE * beta)
    lose_one(control, 1.15, 1.3)
    assert control.congestion_window == int(int(100 * SIZE * beta) * beta)


def test_a_loss_that_was_none_is_taken_back(kind: type[Controller]) -> None:
    untouched, control = in_avoidance(kind, 100 * SIZE)[0], in_avoidance(kind, 100 * SIZE)[0]
    for turn in range(10):
        now = 11.0 + turn * 2 * RTT
        assert play_round(control, now) == play_round(untouched, now)
        assert control.congestion_window == untouched.congestion_window
        if turn == 5:
            lose_one(control, now + RTT, now + RTT + 0.01)
            assert control.congestion_window < untouched.congestion_window
            control.undo_loss()


def test_a_loss_is_taken_back_only_once(kind: type[Controller]) -> None:
    control = controller(kind)
    control.congestion_window = 100 * SIZE
    lose_one(control, 1.0, 1.1)
    control.undo_loss()
    assert control.congestion_window == 100 * SIZE and control.in_slow_start
    control.congestion_window = 50 * SIZE
    control.undo_loss()
    assert control.congestion_window == 50 * SIZE


def test_persistent_congestion_is_not_taken_back(kind: type[Controller]) -> None:
    control, _ = in_avoidance(kind, 100 * SIZE)
    control.on_persistent_congestion()
    control.undo_loss()
    assert control.congestion_window == 2 * SIZE


def test_the_window_never_falls_below_two_datagrams(kind: type[Controller]) -> None:
    control = controller(kind)
    for turn in range(50):
        lose_one(control, 1.0 + turn, 1.5 + turn)
    assert control.congestion_window == 2 * SIZE


def test_packets_of_a_recovery_period_do_not_grow_the_window(kind: type[Controller]) -> None:
    control, now = in_avoidance(kind, 100 * SIZE)
    window = control.congestion_window
    packets = [Packet(SIZE, 9.95) for _ in range(60)]
    for packet in packets:
        control.on_packet_sent(packet=packet)
    for packet in packets:
        control.on_packet_acked(now=now + 0.01, packet=packet)
    assert control.congestion_window == window


def test_persistent_congestion_leaves_the_smallest_window(kind: type[Controller]) -> None:
    control, _ = in_avoidance(kind, 100 * SIZE)
    control.on_persistent_congestion()
    assert control.congestion_window == 2 * SIZE


def test_expired_packets_are_no_sign_of_congestion(kind: type[Controller]) -> None:
    control = controller(kind)
    packet = Packet(SIZE, 1.0)
    control.on_packet_sent(packet=packet)
    control.on_packets_expired(packets=[packet])
    assert (control.bytes_in_flight, control.congestion_window) == (0, 10 * SIZE)


def test_a_window_that_is_not_used_does_not_grow_in_slow_start(kind: type[Controller]) -> None:
    control = controller(kind)
    now = 1.0
    for _ in range(100):
        now = play_round(control, now, share=0.3)
    assert control.congestion_window == 10 * SIZE


def test_a_window_that_is_not_used_does_not_grow_in_avoidance(kind: type[Controller]) -> None:
    control, now = in_avoidance(kind, 100 * SIZE)
    window = control.congestion_window
    for _ in range(200):
        now = play_round(control, now, share=0.5)
    assert control.congestion_window <= window + SIZE


def test_cubic_does_not_jump_after_it_was_not_used() -> None:
    """RFC 9438 section 5.8: time without use is no time of the cubic function."""
    idle, now = in_avoidance(Cubic, 100 * SIZE)
    for _ in range(400):
        now = play_round(idle, now, share=0.5)
    before = idle.congestion_window
    play_round(idle, play_round(idle, now))
    assert idle.congestion_window <= before + 4 * SIZE


def test_newreno_grows_by_a_datagram_a_round() -> None:
    control, now = in_avoidance(NewReno, 100 * SIZE)
    window = control.congestion_window
    now += 0.001
    for turn in range(1, 11):
        now = play_round(control, now)
        assert abs(control.congestion_window - (window + turn * SIZE)) <= SIZE


def test_cubic_follows_the_cubic_function() -> None:
    """W_cubic(t) = C (t - K)^3 + W_max with C = 0.4 (RFC 9438 section 4.2), on a path of which
    the Reno-friendly estimate stays below it."""
    segments = 1000
    control, start = in_avoidance(Cubic, segments * SIZE)
    k = (segments * 0.3 / 0.4) ** (1 / 3)
    now = start + 0.001
    while now < start + 2 * k:
        now = play_round(control, now)
        expected = 0.4 * (now - start - k) ** 3 + segments
        reno = 0.7 * segments + 3 * 0.3 / 1.7 * (now - start) / RTT
        assert control.congestion_window / SIZE == pytest.approx(max(expected, reno), rel=0.03)
    assert control.congestion_window > 1.25 * segments * SIZE


def test_cubic_is_as_fast_as_reno_where_reno_is_faster() -> None:
    """Alpha is 3 (1 - beta) / (1 + beta) up to the old window, then 1 (RFC 9438 section 4.3)."""
    control, now = in_avoidance(Cubic, 20 * SIZE)
    now += 0.001
    rounds = 0
    while control.congestion_window < 20 * SIZE:
        now = play_round(control, now)
        rounds += 1
    assert rounds == pytest.approx(6 / (3 * 0.3 / 1.7), abs=2)
    for _ in range(10):
        now = play_round(control, now)
    assert control.congestion_window / SIZE == pytest.approx(30, abs=2)


def test_cubic_converges_fast_when_the_window_keeps_falling() -> None:
    """A loss below the last W_max gives way: W_max = cwnd (1 + beta) / 2 (section 4.7)."""
    control, now = in_avoidance(Cubic, 1000 * SIZE)
    lose_one(control, now + 0.1, now + 0.2)
    w_max = 700 * 1.7 / 2
    k = ((w_max - 490) / 0.4) ** (1 / 3)
    start = now + 0.2
    now = start + 0.001
    while now < start + k:
        now = play_round(control, now)
    assert control.congestion_window / SIZE == pytest.approx(w_max, rel=0.03)


def test_cubic_grows_at_most_by_half_a_window_a_round() -> None:
    control, _ = in_avoidance(Cubic, 100 * SIZE)
    window = control.congestion_window
    play_round(control, 1000.0)
    assert control.congestion_window <= 1.5 * window + SIZE


def test_cubic_starts_a_new_curve_after_persistent_congestion() -> None:
    """RFC 9438 section 4.8: K is 0 and W_max the window when avoidance begins again."""
    control, now = in_avoidance(Cubic, 1000 * SIZE)
    control.on_persistent_congestion()
    now += 30.0
    while control.in_slow_start:
        now = play_round(control, now)
    begin = control.congestion_window
    start = now
    for _ in range(20):
        now = play_round(control, now)
    expected = 0.4 * (now - start) ** 3 + begin / SIZE
    reno = begin / SIZE + 20
    assert control.congestion_window / SIZE <= max(expected, reno) * 1.03


def test_a_growing_round_trip_ends_slow_start_without_a_loss(kind: type[Controller]) -> None:
    control = controller(kind)
    now = 1.0
    for turn in range(12):
        rtt = 0.05 if turn < 3 else 0.09
        for _ in range(8):
            control.on_rtt_measurement(now=now, rtt=rtt)
        now = play_round(control, now)
    assert not control.in_slow_start
    assert control.ssthresh is not None


def test_a_new_path_begins_anew(kind: type[Controller]) -> None:
    control, _ = in_avoidance(kind, 100 * SIZE)
    control.restart()
    assert control.congestion_window == 10 * SIZE
    assert control.in_slow_start


def test_log_data_names_the_windows(kind: type[Controller]) -> None:
    assert controller(kind).get_log_data() == {"cwnd": 10 * SIZE, "bytes_in_flight": 0}
