"""Name the known word that a misspelt one was probably meant to be."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` most likely stands for, or None.

    Dotted words match on their last part too: a key in the wrong table finds its own table.
    """
    known = list(known)
    close = get_close_matches(word[:100], known, n=1, cutoff=0.75)
    if close:
        return close[0]
    last = {path.rpartition(".")[2]: path for path in reversed(known)}
    close = get_close_matches(word.rpartition(".")[2][:100], last, n=1, cutoff=0.7)
    return last[close[0]] if close else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` to append to a message, or nothing."""
    found = nearest(word, known)
    return f" (did you mean {found!r}?)" if found else ""
