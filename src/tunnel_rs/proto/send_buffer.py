"""What a stream has to send, or to send again, in blocks that are given back to the system.

aioquic keeps it in one bytearray. With megabytes waiting, each megabyte that goes through has the
rest of them copied, and each growth leaves a hole of that size in the allocator's heap, which the
process then keeps for good. Blocks are written once, and are no part of the heap.
"""

from collections import deque
from mmap import mmap

from tunnel_rs.values import Buffer

BLOCK = 256 * 1024
"""Bytes of a block; local reads bring no more than that."""
MAX_SPARE = 16
"""Blocks of the process kept for the next use; pages that are new cost more than filling them."""
MAX_SPARE_IN_USE = 40
"""The same while a buffer has something: what a full connection (8 MiB) lets go before it takes
more."""
SMALL = 128 * 1024
"""Up to here a bytearray does as well, and most streams never have more."""

_spare: list[mmap] = []


class SendBuffer:
    """Append by `+=`, take slices, delete from the front: what aioquic does with its bytearray.

    Holds memory for what it has, to the next block, and none when it is empty.
    """

    __slots__ = ("_blocks", "_size", "_start")

    def __init__(self, data: Buffer = b"") -> None:
        self._blocks: deque[mmap] = deque()
        self._start = 0  # of what is held, within the first block
        self._size = 0
        self += data

    def __len__(self) -> int:
        return self._size

    def __iadd__(self, data: Buffer) -> "SendBuffer":
        with memoryview(data) as view:
            taken = 0
            while taken < len(view):
                at = (self._start + self._size) % BLOCK
                if not at:
                    self._blocks.append(_spare.pop() if _spare else mmap(-1, BLOCK))
                n = min(BLOCK - at, len(view) - taken)
                self._blocks[-1][at : at + n] = view[taken : taken + n]
                taken += n
                self._size += n
        return self

    def __delitem__(self, part: slice) -> None:
        """Only from the front: `del buffer[:n]`."""
        first, stop, _ = part.indices(self._size)
        if first:
            raise ValueError("bytes leave a send buffer from its front")
        self._start += stop
        self._size -= stop
        while self._blocks and (self._start >= BLOCK or not self._size):
            _give_back(self._blocks.popleft())
            self._start -= BLOCK
        if not self._size:
            self._start = 0
            del _spare[MAX_SPARE:]

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self._size)
        with self.view(start, stop) as view:
            return bytes(view)

    def view(self, start: int, stop: int) -> memoryview:
        """Bytes `start` to `stop - 1` of what is held, to be read before the next change."""
        number, at = divmod(self._start + start, BLOCK)
        left = stop - start
        if at + left <= BLOCK:
            with memoryview(self._blocks[number]) if left else memoryview(b"") as whole:
                return whole[at : at + left]
        pieces = []
        while left > 0:
            n = min(BLOCK - at, left)
            pieces.append(self._blocks[number][at : at + n])
            number, at, left = number + 1, 0, left - n
        return memoryview(b"".join(pieces))


def view(buffer: bytearray | SendBuffer, start: int, stop: int) -> memoryview:
    """Bytes `start` to `stop - 1`, to be read and released before the next change."""
    if isinstance(buffer, SendBuffer):
        return buffer.view(start, stop)
    with memoryview(buffer) as whole:
        return whole[start:stop]


def _give_back(block: mmap) -> None:
    """Whoever may still look at it keeps the block from being unmapped, not from being reused."""
    if len(_spare) < MAX_SPARE_IN_USE:
        _spare.append(block)
