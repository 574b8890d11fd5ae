"""What both sides of Nostr signalling agree on beside the messages."""

from enum import StrEnum


class Encryption(StrEnum):
    """Whether the content of events is encrypted (NIP-44 v2, spec `ice.md` section 1.9)."""

    OFF = "off"
    """Never; as the original."""

    AUTO = "auto"
    """A client begins encrypted and goes on in plain text when nobody answers; a server
    understands both."""

    REQUIRED = "required"
    """Nothing is sent or understood in plain text."""
