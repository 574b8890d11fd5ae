"""Byte strings in arbitrary pieces, as a network delivers them."""

from hypothesis import strategies as st


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """`data` cut at the positions `cuts` (taken modulo its length plus one), nothing lost."""
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in zip(edges, edges[1:], strict=False)]


cut_positions = st.lists(st.integers(0, 100_000), max_size=8)


def mutations(vector: bytes) -> st.SearchStrategy[bytes]:
    """`vector` cut off, and with up to four bytes replaced."""
    size = len(vector)
    change = st.tuples(st.integers(0, max(size - 1, 0)), st.integers(0, 255))

    def mutate(length: int, changes: list[tuple[int, int]]) -> bytes:
        changed = bytearray(vector)
        for position, value in changes:
            changed[position] = value
        return bytes(changed[:length])

    return st.builds(mutate, st.integers(0, size), st.lists(change, max_size=4 if size else 0))
