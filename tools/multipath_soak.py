"""Run random connections over several paths: `make multipath-soak ARGS="100000"`.

Each seed is one connection on a virtual clock (`tests/support/multipath_runs.py`). All processors
work. It stops at the first seed that fails, and says which: the same seed fails again.
"""

import multiprocessing
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support.multipath_runs import run_seed

DEFAULT = 100_000
TOLD_EVERY = 1000


def attempt(seed: int) -> tuple[int, int, bool, str]:
    """Seed, paths abandoned, whether there was a direct path, and what went wrong."""
    try:
        outcome = run_seed(seed)
    except Exception as exc:
        return seed, 0, False, f"{type(exc).__name__}: {exc}"
    return seed, outcome.abandoned, outcome.has_direct, ""


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    started = time.monotonic()
    abandoned = direct = done = 0
    with multiprocessing.Pool() as pool:
        for seed, gone, has_direct, wrong in pool.imap_unordered(
            attempt, range(first, first + count), chunksize=20
        ):
            if wrong:
                print(f"seed {seed} fails: {wrong}", file=sys.stderr)
                pool.terminate()
                return 1
            done += 1
            abandoned += gone
            direct += has_direct
            if done % TOLD_EVERY == 0 or done == count:
                took = time.monotonic() - started
                print(
                    f"{done} of {count} connections, {abandoned} paths abandoned, "
                    f"{direct} with a direct path, {took:.0f} s",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
