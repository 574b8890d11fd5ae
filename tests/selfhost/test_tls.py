"""Certificates from PEM files."""

import os
import shutil
import ssl
from pathlib import Path

import pytest
from tests.support.relay_peers import write_certificate

from tunnel_rs.errors import ConfigError
from tunnel_rs.selfhost.tls import ServerCertificate


def served_name(certificate: ServerCertificate, directory: Path, name: str) -> str:
    """The name in the certificate a new connection gets, by a handshake in memory."""
    trust = ssl.create_default_context(cafile=directory / f"{name}.crt")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trust.wrap_bio(to_client, to_server, server_hostname=name)
    server = certificate.context.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, server, client, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            pass
    shown = client.getpeercert()
    assert shown is not None
    return str(shown["subject"][0][0][1])


def test_a_reload_serves_the_new_certificate(tmp_path: Path) -> None:
    chain, key = write_certificate(tmp_path, "one")
    certificate = ServerCertificate(chain, key)
    assert served_name(certificate, tmp_path, "one") == "one"
    other_chain, other_key = write_certificate(tmp_path, "two")
    live_chain, live_key = tmp_path / "one.crt", tmp_path / "one.key"
    shutil.copy(other_chain, live_chain)
    shutil.copy(other_key, live_key)
    certificate.reload()
    assert served_name(certificate, tmp_path, "two") == "two"


def test_a_failed_reload_leaves_the_old_certificate_in_use(tmp_path: Path) -> None:
    chain, key = write_certificate(tmp_path, "one")
    certificate = ServerCertificate(chain, key)
    good = chain.read_bytes()
    chain.write_text("garbage")
    with pytest.raises(ConfigError, match="do not make a certificate"):
        certificate.reload()
    chain.write_bytes(good)
    assert served_name(certificate, tmp_path, "one") == "one"


def test_a_key_that_belongs_to_another_certificate_is_refused(tmp_path: Path) -> None:
    chain, _ = write_certificate(tmp_path, "one")
    _, key = write_certificate(tmp_path, "two")
    with pytest.raises(ConfigError, match=r"one\.crt and .*two\.key .*KEY_VALUES_MISMATCH"):
        ServerCertificate(chain, key)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    chain, _ = write_certificate(tmp_path, "one")
    with pytest.raises(ConfigError, match=r"absent\.key: No such file"):
        ServerCertificate(chain, tmp_path / "absent.key")
    assert os.listdir(tmp_path)
