"""When to publish and when to ask: two small state machines without I/O (spec `discovery.md`
sections 3 and 4). Times are seconds of any one monotonic clock."""

from collections.abc import Sequence

from tunnel_rs.proto.pkarr import EndpointRecord

REPUBLISH_INTERVAL = 300.0
WITHDRAW_AFTER = 10.0

LOOKUP_DELAYS = (0.0, 0.2, 0.3, 0.6, 1.0, 2.0, 3.0)
LOOKUP_TIMEOUT = 3.0


class PublishSchedule:
    """What to publish, and when.

    Call `update` whenever the ways to reach us change, naming only relays that we are connected
    to. Then sleep until `next_attempt()`; call `begin()` for the record to publish, and report how
    it went with `succeeded` or `failed`.

    A record that names no way is not worth publishing, except to withdraw one that is out: when
    the last relay has been gone for `WITHDRAW_AFTER` seconds (it mostly comes back before), the
    empty packet goes out. Nothing is ever repeated that is no longer true.
    """

    def __init__(
        self, *, interval: float = REPUBLISH_INTERVAL, withdraw_after: float = WITHDRAW_AFTER
    ) -> None:
        self._interval = interval
        self._withdraw_after = withdraw_after
        self._wanted = EndpointRecord()
        self._published: EndpointRecord | None = EndpointRecord()
        self._published_at = 0.0
        self._in_flight: EndpointRecord | None = None
        self._due: float | None = None
        self._failures = 0

    @property
    def published(self) -> EndpointRecord | None:
        """The record that is out, empty at first. None while that is not known: an attempt failed,
        but may have arrived."""
        return self._published

    @property
    def failures(self) -> int:
        """Consecutive attempts that failed."""
        return self._failures

    def update(self, record: EndpointRecord, now: float) -> None:
        """The ways to reach us are these from now on."""
        if record == self._wanted:
            return
        self._wanted = record
        if self._in_flight is None:
            self._due = self._due_after_change(now)

    def _due_after_change(self, now: float) -> float | None:
        if self._wanted.names_a_way:
            known = self._wanted == self._published
            return self._published_at + self._interval if known else now
        nothing_out = self._published is not None and not self._published.names_a_way
        return None if nothing_out else now + self._withdraw_after

    def next_attempt(self) -> float | None:
        """When to call `begin`. None: not before the next `update` or outcome."""
        return None if self._in_flight is not None else self._due

    def begin(self) -> EndpointRecord:
        """The record to publish now; it is in flight until its outcome is reported."""
        self._in_flight = self._wanted
        return self._wanted

    def succeeded(self, now: float) -> None:
        """The attempt was accepted."""
        self._failures = 0
        self._published, self._published_at = self._end_attempt(), now
        self._due = self._due_after_change(now)

    def failed(self, now: float) -> None:
        """The attempt failed: the next one comes n seconds after n failures in a row, or at once
        when the record has changed meanwhile."""
        self._failures += 1
        attempted, self._published = self._end_attempt(), None
        changed = attempted != self._wanted
        delay = min(self._failures, self._interval)
        self._due = self._due_after_change(now) if changed else now + delay

    def _end_attempt(self) -> EndpointRecord:
        if self._in_flight is None:
            raise RuntimeError("no attempt to publish is under way")
        record, self._in_flight = self._in_flight, None
        return record


class StaggeredLookup:
    """One look-up asked several times over: which repeats to start when, and when to give up.

    Sleep until `next_event()`; `start_due(now)` tells how many questions to send; report one that
    failed with `failed`. The first success wins and ends the look-up, which this does not see.
    """

    def __init__(
        self,
        started: float,
        *,
        delays: Sequence[float] = LOOKUP_DELAYS,
        timeout: float = LOOKUP_TIMEOUT,
    ) -> None:
        self._starts = [started + delay for delay in sorted(delays)]
        self._timeout = timeout
        self._sent = 0
        self._pending: dict[int, float] = {}

    @property
    def sent(self) -> int:
        """Questions started so far; they are numbered from 0."""
        return self._sent

    @property
    def over(self) -> bool:
        """All repeats were started and none is pending."""
        return not self._pending and self._sent == len(self._starts)

    def start_due(self, now: float) -> list[int]:
        """Numbers of the questions to send now."""
        first = self._sent
        while self._sent < len(self._starts) and self._starts[self._sent] <= now:
            self._pending[self._sent] = now + self._timeout
            self._sent += 1
        return list(range(first, self._sent))

    def failed(self, number: int) -> None:
        """A question was answered in the negative, or could not be sent."""
        self._pending.pop(number, None)

    def expire(self, now: float) -> list[int]:
        """Numbers of the questions that have timed out; they count as failed."""
        expired = [number for number, deadline in self._pending.items() if deadline <= now]
        for number in expired:
            del self._pending[number]
        return expired

    def next_event(self) -> float | None:
        """When the next question is to be sent or times out. None when all is over."""
        times = list(self._pending.values())
        if self._sent < len(self._starts):
            times.append(self._starts[self._sent])
        return min(times, default=None)
