"""A forwarding server on a REAL iroh endpoint: `python bench/iroh_peer.py TOKEN`.

Prints `at ENDPOINT_ID ADDRESS`. The tests' driver serves; only what its binding does byte by byte
when bytes go out (0.1 us each) is replaced by one copy, or the binding would be what is measured.
"""

import asyncio
import ctypes
import struct
import sys
from pathlib import Path
from typing import Any

import iroh

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support import iroh_driver


def use_one_copy(ffi: Any) -> None:
    """Replace the converter of bytes. Raises AttributeError or ValueError when the binding has
    another shape than that of iroh 1.x."""

    def lower(value: bytes) -> Any:
        data = struct.pack("!i", len(value)) + value
        pointer = ctypes.cast(ctypes.c_char_p(data), ctypes.POINTER(ctypes.c_char))
        return ffi._uniffi_rust_call(
            ffi._UniffiLib.ffi_iroh_ffi_rustbuffer_from_bytes,
            ffi._UniffiForeignBytes(len(data), pointer),
        )

    converter = ffi._UniffiFfiConverterBytes
    sample = bytes(range(256))
    slow, quick = converter.lower(sample), lower(sample)
    try:
        if slow.data[: slow.len] != quick.data[: quick.len]:
            raise ValueError("the binding passes bytes in another form")
    finally:
        slow.free()
        quick.free()
    converter.lower = staticmethod(lower)


async def main(token: str) -> None:
    use_one_copy(iroh.iroh_ffi)
    async with iroh_driver.serving(token) as server:
        print("at", server.endpoint_id, server.address, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
