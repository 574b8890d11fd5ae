"""Text for others to see: without secrets, and without what tells who and where somebody is.

What is replaced by a number is replaced by the same one everywhere, so that it can be followed.
"""

import re
from collections.abc import Callable
from ipaddress import ip_address

from tunnel_rs.proto.tokens import check_token

MASK = "***"

_TOKEN = re.compile(r"(?<![A-Za-z0-9._-])i[A-Za-z0-9._-]{17}(?![A-Za-z0-9._-])")
_KEY = re.compile(r"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{43}=")
_NOSTR_KEY = re.compile(r"\bnsec1[a-z0-9]{20,}\b")
_USER_INFO = re.compile(r"(\b[a-z][a-z0-9+.-]*://|\bturns?:)[^\s/@\"'<>]+@", re.IGNORECASE)
_QUERY = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s\"'?<>]*)\?[^\s\"'<>]*", re.IGNORECASE)
_BEARER = re.compile(r"(\bbearer\s+)[^\s\"']+", re.IGNORECASE)
_ID = re.compile(r"(?<![0-9A-Za-z])(?:[0-9a-f]{64}|[a-z2-7]{52}|npub1[a-z0-9]{20,})(?![0-9A-Za-z])")
_SHORT_ID = re.compile(r"(?<![0-9A-Za-z])(?=[0-9]*[a-f])[0-9a-f]{10}(?![0-9A-Za-z])")
"""What is shown of an id in texts for people. One in a hundred is all digits, and stays."""
_IPV4 = re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.]*\d)")
_IPV6 = re.compile(r"(?<![0-9A-Za-z:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![0-9A-Za-z:])")


def without_secrets(text: str) -> str:
    """`text` with everything masked that looks like a token or a key of ours."""
    return _NOSTR_KEY.sub(MASK, _KEY.sub(MASK, _TOKEN.sub(_mask_token, text)))


def _mask_token(found: re.Match[str]) -> str:
    try:
        check_token(found[0])
    except ValueError:
        return found[0]
    return MASK


class Redactor:
    """One for all texts that belong together. `private` are words to replace, such as the name of
    the user's home directory, and what to put there."""

    def __init__(self, private: dict[str, str]) -> None:
        words = sorted((word for word in private if len(word) > 1), key=len, reverse=True)
        self._private = [
            (re.compile(rf"(?<![\w-]){re.escape(word)}(?![\w-])"), private[word]) for word in words
        ]
        self._numbers: dict[str, str] = {}

    def __call__(self, text: str) -> str:
        """The text without secrets, EndpointIds, and addresses that are unique in the world."""
        text = _BEARER.sub(
            rf"\1{MASK}", _QUERY.sub(rf"\1?{MASK}", _USER_INFO.sub(rf"\1{MASK}@", text))
        )
        text = without_secrets(text)
        text = _ID.sub(self._numbered("id"), text)
        text = _SHORT_ID.sub(self._numbered("id"), text)
        text = _IPV4.sub(self._address("ipv4"), text)
        text = _IPV6.sub(self._address("ipv6"), text)
        for word, replacement in self._private:
            text = word.sub(lambda _, to=replacement: to, text)  # type: ignore[misc]
        return text

    def _numbered(self, kind: str) -> Callable[[re.Match[str]], str]:
        def replace(found: re.Match[str]) -> str:
            known = [name for name in self._numbers.values() if name.startswith(f"{kind}-")]
            # An id and what is shown of it are one.
            key = found[0][:10] if kind == "id" else found[0]
            return self._numbers.setdefault(key, f"{kind}-{len(set(known)) + 1}")

        return replace

    def _address(self, kind: str) -> Callable[[re.Match[str]], str]:
        number = self._numbered(kind)

        def replace(found: re.Match[str]) -> str:
            try:
                address = ip_address(found[0])
            except ValueError:
                return found[0]
            return number(found) if address.is_global and not address.is_multicast else found[0]

        return replace
