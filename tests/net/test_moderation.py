"""When the reader of a socket looks away for a millisecond."""

from tunnel_rs.net.moderation import PAUSE, ReceiveModeration


def _answers(batches: list[int], interval: float) -> list[bool]:
    moderation = ReceiveModeration()
    return [moderation.pause_after(batch, i * interval) for i, batch in enumerate(batches)]


def test_evenly_spaced_packets_are_gathered() -> None:
    assert all(_answers([2] * 20, interval=0.0001)[5:])


def test_a_question_and_its_answer_are_not_delayed() -> None:
    assert not any(_answers([1] * 50, interval=0.0003))


def test_bursts_are_left_alone() -> None:
    assert not any(_answers([60] * 20, interval=0.001)[2:])


def test_a_quiet_socket_is_read_at_once() -> None:
    assert not any(_answers([1, 3, 2, 1], interval=0.5))


def test_it_stays_on_while_gathering_pays() -> None:
    assert all(_answers([3] * 5 + [12] * 50, interval=PAUSE)[5:])
