"""TLS certificates of a server, from PEM files that may change while it runs."""

import ssl
from pathlib import Path

from tunnel_rs.errors import ConfigError


class ServerCertificate:
    """A TLS context whose certificate can be read anew; open connections keep theirs."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """PEM files: the chain, own certificate first, and its private key. Raises ConfigError."""
        self._certificate = certificate
        self._key = key
        self.context = self._load()

    def replace(self, certificate: Path, key: Path) -> None:
        """Read other files from now on. Raises ConfigError, and then nothing changes."""
        before = self._certificate, self._key
        self._certificate, self._key = certificate, key
        try:
            self.reload()
        except ConfigError:
            self._certificate, self._key = before
            raise

    def reload(self) -> None:
        """Read the files again. Raises ConfigError, and then the old certificate stays in use."""
        # A context of its own first: a failed load must leave the one in use as it is.
        self._load()
        self.context.load_cert_chain(self._certificate, self._key)

    def _load(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        for path in (self._certificate, self._key):
            try:
                path.open("rb").close()
            except OSError as error:
                raise ConfigError(f"TLS file {path}: {error.strerror}") from None
        try:
            # Without a callback OpenSSL would ask for the passphrase on the terminal.
            context.load_cert_chain(self._certificate, self._key, password=lambda: b"")
        except (ssl.SSLError, ValueError) as error:
            reason = getattr(error, "reason", None) or str(error)
            raise ConfigError(
                f"TLS files {self._certificate} and {self._key} do not make a certificate with its"
                f" key: {reason}"
            ) from None
        return context
