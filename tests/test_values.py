"""Values: every form that is read, every refusal, and that secrets do not show."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.values import (
    EndpointId,
    HostPort,
    Protocol,
    Secret,
    SocketAddr,
    SourceUrl,
    check_host,
    quoted,
)

# discovery.md section 8: hex, base32, z-base-32
IDS = [
    (
        "197f6b23e16c8532c6abc838facd5ea789be0c76b2920334039bfa8b3d368d61",
        "df7wwi7bnsctfrvlza4pvtk6u6e34ddwwkjagnadtp5iwpjwrvqq",
        "df9sse9bp1nuftim3yhxiuk6w6r5hddsskjygpydux7esxjstioo",
    ),
    (
        "ae58ff8833241ac82d6ff7611046ed67b5072d142c588d0063e942d9a75502b6",
        "vzmp7cbteqnmqllp65qrarxnm62qoliufrmi2add5fbntj2vak3a",
        "i3cx9nburopcommx67otytzpc64oqmewftce4ydd7fbpuj4iyk5y",
    ),
    (
        "1992d53c02cdc04566e5c0edb1ce83305cd550297953a047a445ea3264b54b18",
        "dgjnkpaczxaekzxfydw3dtudgbonkubjpfj2ar5eixvdezfvjmma",
        "dgjpkxyn3zyrk3zfads5duwdgbqpkwbjxfj4yt7rezidr3fijccy",
    ),
]
HEX, BASE32, _ = IDS[0]
README_ID = "2xnbkpbc7izsilvewd7c62w7wnwziacmpfwvhcrya5nt76dqkpga"
NOT_A_POINT = (2).to_bytes(32, "little").hex()


class TestSecret:
    def test_it_shows_in_no_text(self) -> None:
        secret = Secret("hunter2")
        assert "hunter2" not in f"{secret} {secret!r} {secret!s} {[secret]} {({1: secret},)}"
        assert repr(secret) == "Secret(***)"

    def test_it_shows_in_no_dataclass(self) -> None:
        @dataclasses.dataclass
        class Login:
            password: Secret[str]

        assert "hunter2" not in repr(Login(Secret("hunter2")))

    def test_it_is_revealed_on_purpose_only(self) -> None:
        assert Secret(b"key").reveal() == b"key"
        assert not hasattr(Secret("x"), "__dict__")

    def test_equal_secrets_are_equal_and_hash_alike(self) -> None:
        assert Secret("a") == Secret("a")
        assert hash(Secret("a")) == hash(Secret("a"))
        assert Secret("a") != Secret("b")
        assert Secret("a") != "a"
        assert {Secret("a"), Secret("a")} == {Secret("a")}


class TestQuoted:
    def test_short_text_is_quoted_whole(self) -> None:
        assert quoted("a b") == "'a b'"
        assert quoted("x" * 64) == f"'{'x' * 64}'"

    def test_long_text_is_cut(self) -> None:
        assert quoted("x" * 65) == f"'{'x' * 64}...'"

    @given(st.text(st.characters(codec=None)))
    def test_the_result_is_one_short_line_that_can_be_printed(self, text: str) -> None:
        assert quoted(text).isprintable()
        assert len(quoted(text)) < 700
        quoted(text).encode()


class TestEndpointId:
    @pytest.mark.parametrize(("hexadecimal", "base32", "z32"), IDS)
    def test_the_ids_of_the_spec_have_their_three_forms(
        self, hexadecimal: str, base32: str, z32: str
    ) -> None:
        identity = EndpointId.parse(hexadecimal)
        assert identity.key == bytes.fromhex(hexadecimal)
        assert str(identity) == hexadecimal
        assert identity.base32 == base32
        assert identity.z32 == z32
        assert identity.short == hexadecimal[:10]
        assert EndpointId.parse(base32) == identity

    def test_base32_is_read_in_any_case(self) -> None:
        assert EndpointId.parse(BASE32.upper()) == EndpointId.parse(HEX)
        assert EndpointId.parse(BASE32.title()) == EndpointId.parse(HEX)

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("", "64 hex digits or 52 base32 characters, this has 0$"),
            (HEX[:-1], "this has 63$"),
            (HEX + "0", "this has 65$"),
            (" " + HEX, "this has 65$"),
            (HEX + "\n", "this has 65$"),
            (BASE32[:-1], "this has 51$"),
            (BASE32 + "====", "this has 56$"),
            (HEX.upper(), "not lower-case hex digits; write it in lower case$"),
            ("0x" + HEX[:62], "64 characters that are not lower-case hex digits$"),
            ("g" + HEX[1:], "64 characters that are not lower-case hex digits$"),
            ("\u0661" + HEX[1:], "64 characters that are not lower-case hex digits$"),
            ("1" + BASE32[1:], "not base32"),
            (BASE32[:50] + "==", "not base32"),
            (BASE32[:51] + "=", "not base32"),
            (BASE32[:51] + " ", "not base32"),
            ("\u0131" + BASE32[1:], "not base32"),
            ("\u017f" + BASE32[1:], "not base32"),
            ("\u00df" + BASE32[1:], "not base32"),
            (BASE32[:51] + "r", "stray bits at the end; copy it again$"),
            (IDS[0][2][:1] + "8" + IDS[0][2][2:], "not base32"),
            (NOT_A_POINT, r"not a public key \(no point of the curve\); copy it again$"),
            # An example of the Rust tool's README that real iroh refuses as well.
            (README_ID, "no point of the curve"),
            ("d5da153c22fa33242ea4b0fe2f6adfb36d94004c796d538a38075b3ff87053cc", "no point"),
            ("f" * 64, "no point of the curve"),
        ],
    )
    def test_a_bad_id_is_refused_saying_why(self, text: str, says: str) -> None:
        with pytest.raises(ValueError, match=says):
            EndpointId.parse(text)

    def test_z32_is_not_taken_for_base32(self) -> None:
        for _, _, z32 in IDS:
            with pytest.raises(ValueError, match="base32|curve"):
                EndpointId.parse(z32)

    @pytest.mark.parametrize(
        ("key", "is_point"),
        [
            ("01" + "00" * 31, True),  # the neutral element: x = 0
            ("01" + "00" * 30 + "80", False),  # x = 0 with a sign
            ("00" * 32, True),  # y = 0
            ("ec" + "ff" * 30 + "7f", True),  # y = p - 1: x = 0
            ("ec" + "ff" * 31, False),  # the same with a sign
            ("ed" + "ff" * 30 + "7f", False),  # y = p, not reduced
            ("ee" + "ff" * 30 + "7f", False),  # y = p + 1, not reduced
            ("58" + "66" * 31, True),  # the base point
            ("58" + "66" * 30 + "e6", True),  # its negative
        ],
    )
    def test_the_edges_of_the_curve_are_judged_as_in_rfc_8032(
        self, key: str, is_point: bool
    ) -> None:
        if is_point:
            assert str(EndpointId.parse(key)) == key
        else:
            with pytest.raises(ValueError, match="no point of the curve"):
                EndpointId.parse(key)

    def test_ids_sort_by_their_bytes(self) -> None:
        ids = [EndpointId.parse(text) for text, _, _ in IDS]
        assert [i.key for i in sorted(ids)] == sorted(i.key for i in ids)

    @given(st.binary(min_size=32, max_size=32).map(EndpointId))
    def test_the_forms_agree_and_are_read_or_are_no_point_in_both(
        self, identity: EndpointId
    ) -> None:
        assert len(identity.base32) == len(identity.z32) == 52
        results = []
        for text in (str(identity), identity.base32):
            try:
                results.append(EndpointId.parse(text))
            except ValueError as error:
                assert "curve" in str(error)
        assert results in ([], [identity, identity])

    @given(
        st.text(max_size=70)
        | st.text("abcdefgh234567", min_size=51, max_size=53)
        | st.text("0123456789abcdef", min_size=63, max_size=65)
    )
    def test_no_text_raises_anything_but_a_one_line_value_error(self, text: str) -> None:
        try:
            parsed = EndpointId.parse(text)
        except ValueError as error:
            assert "\n" not in str(error)
        else:
            assert text in (str(parsed), parsed.base32, parsed.base32.upper())


HOST_PORTS = [
    ("localhost:22", "localhost", 22),
    ("127.0.0.1:1", "127.0.0.1", 1),
    ("[::1]:65535", "::1", 65535),
    ("[::ffff:10.0.0.1]:80", "::ffff:10.0.0.1", 80),
    ("[FE80::A]:80", "FE80::A", 80),
    ("my_host-1.example.com.:080", "my_host-1.example.com.", 80),
    ("1and1.example:80", "1and1.example", 80),
    (f"{'a' * 63}.b:80", f"{'a' * 63}.b", 80),
]

BAD_HOST_PORTS = [
    ("", "'' has no port; write host:port"),
    ("localhost", "'localhost' has no port; write host:port"),
    ("::1", "put an IPv6 address in brackets"),
    ("::1:22", "put an IPv6 address in brackets"),
    ("a:b:22", "put an IPv6 address in brackets"),
    ("[::1]", r"not of the form \[IPv6 address\]:port"),
    ("[::1]22", r"not of the form \[IPv6 address\]:port"),
    ("[::1:22", r"not of the form \[IPv6 address\]:port"),
    ("[127.0.0.1]:22", r"not of the form \[IPv6 address\]:port"),
    ("[localhost]:22", r"not of the form \[IPv6 address\]:port"),
    ("[]:22", r"not of the form \[IPv6 address\]:port"),
    ("[::1]:22]:22", r"port '22\]:22' is not a number"),
    (":22", "':22' has no host; write host:port"),
    ("localhost:", "port '' is not a number"),
    ("localhost:ssh", "port 'ssh' is not a number"),
    ("localhost:-1", "port '-1' is not a number"),
    ("localhost:+22", "port '\\+22' is not a number"),
    ("localhost: 22", "port ' 22' is not a number"),
    ("localhost:22\n", r"port '22\\n' is not a number"),
    ("localhost:\u0662", "is not a number"),
    ("localhost:\u00b2", "is not a number"),
    ("localhost:000022", "is not a number"),
    ("localhost:" + "9" * 5000, "is not a number"),
    ("localhost:0", "port 0 is outside 1-65535"),
    ("localhost:65536", "port 65536 is outside 1-65535"),
    ("[fe80::1%eth0]:22", "a scope id"),
    ("fe80%1:22", "a scope id"),
    ("[::12345]:22", "neither a host name nor an IP address"),
    ("[1:2]:22", "neither a host name nor an IP address"),
    ("256.0.0.1:22", "neither a host name nor an IP address"),
    ("127.1:22", "neither a host name nor an IP address"),
    ("2130706433:22", "neither a host name nor an IP address"),
    ("127.0.0.1.:22", "neither a host name nor an IP address"),
    ("0x7f.0.0.1:22", "neither a host name nor an IP address"),
    ("0x7f000001:22", "neither a host name nor an IP address"),
    ("host.0x1:22", "neither a host name nor an IP address"),
    ("host.1:22", "neither a host name nor an IP address"),
    ("127.0.0.01:22", "neither a host name nor an IP address"),
    (".:22", "neither a host name nor an IP address"),
    ("..:22", "neither a host name nor an IP address"),
    ("a..b:22", "neither a host name nor an IP address"),
    (".a:22", "neither a host name nor an IP address"),
    ("-a:22", "neither a host name nor an IP address"),
    ("a b:22", "neither a host name nor an IP address"),
    ("a\n:22", "neither a host name nor an IP address"),
    ("m\u00fcller:22", "neither a host name nor an IP address"),
    (f"{'a' * 64}:22", "neither a host name nor an IP address"),
    (".".join(["a" * 49] * 6) + ":22", "neither a host name nor an IP address"),
]


class TestHostPort:
    @pytest.mark.parametrize(("text", "host", "port"), HOST_PORTS)
    def test_names_and_addresses_are_read(self, text: str, host: str, port: int) -> None:
        assert HostPort.parse(text) == HostPort(host, port)

    @pytest.mark.parametrize(("text", "says"), BAD_HOST_PORTS)
    def test_a_bad_address_is_refused_saying_why(self, text: str, says: str) -> None:
        with pytest.raises(ValueError, match=says) as caught:
            HostPort.parse(text)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 200

    def test_port_zero_is_read_where_it_means_any(self) -> None:
        assert HostPort.parse("[::1]:0", allow_port_zero=True) == HostPort("::1", 0)
        with pytest.raises(ValueError, match="port 65536 is outside 0-65535"):
            HostPort.parse("localhost:65536", allow_port_zero=True)

    def test_the_text_has_brackets_around_ipv6(self) -> None:
        assert str(HostPort("::1", 22)) == "[::1]:22"
        assert str(HostPort("localhost", 22)) == "localhost:22"

    @given(
        st.ip_addresses().map(str) | st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True),
        st.integers(1, 65535),
    )
    def test_what_is_written_is_read_again(self, host: str, port: int) -> None:
        assert HostPort.parse(str(HostPort(host, port))) == HostPort(host, port)

    @given(st.text(max_size=40) | st.text("[]:.%a10fx-", max_size=20))
    def test_no_text_raises_anything_but_a_one_line_value_error(self, text: str) -> None:
        try:
            parsed = HostPort.parse(text)
        except ValueError as error:
            assert "\n" not in str(error)
        else:
            assert HostPort.parse(str(parsed)) == parsed


class TestCheckHost:
    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", "a.b-c_d.", "xn--mller-kva"])
    def test_names_and_addresses_pass(self, host: str) -> None:
        check_host(host)

    @pytest.mark.parametrize("host", ["", "[::1]", "a b", "::1%1", "1.2.3", "a/b"])
    def test_anything_else_does_not(self, host: str) -> None:
        with pytest.raises(ValueError, match="scope id|neither a host name"):
            check_host(host)


class TestSourceUrl:
    @pytest.mark.parametrize(
        ("text", "protocol", "host", "port"),
        [
            ("tcp://localhost:22", Protocol.TCP, "localhost", 22),
            ("udp://127.0.0.1:53", Protocol.UDP, "127.0.0.1", 53),
            ("tcp://[::1]:8080", Protocol.TCP, "::1", 8080),
        ],
    )
    def test_the_two_protocols_are_read(
        self, text: str, protocol: Protocol, host: str, port: int
    ) -> None:
        url = SourceUrl.parse(text)
        assert url == SourceUrl(protocol, HostPort(host, port))
        assert str(url) == text

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("", "must start with tcp:// or udp://"),
            ("localhost:22", "must start with tcp:// or udp://"),
            ("tcp:localhost:22", "must start with tcp:// or udp://"),
            ("http://localhost:22", "must start with tcp:// or udp://"),
            ("TCP://localhost:22", "must start with tcp:// or udp://"),
            (" tcp://localhost:22", "must start with tcp:// or udp://"),
            ("://localhost:22", "must start with tcp:// or udp://"),
            ("tcp://", "has no port"),
            ("tcp://localhost", "has no port"),
            ("tcp://:22", "has no host"),
            ("tcp://localhost:0", "outside 1-65535"),
            ("tcp://localhost:22/", "more than a host and a port"),
            ("tcp://localhost:22?x", "more than a host and a port"),
            ("tcp://localhost:22#x", "more than a host and a port"),
            ("tcp://user@localhost:22", "more than a host and a port"),
            ("tcp://[fe80::1%1]:22", "a scope id"),
            ("tcp://" + "x" * 16_000, r"x\.\.\.' has no port"),
        ],
    )
    def test_a_bad_source_is_refused_saying_why(self, text: str, says: str) -> None:
        with pytest.raises(ValueError, match=says) as caught:
            SourceUrl.parse(text)
        assert len(str(caught.value)) < 200

    @given(st.text(max_size=40).map(lambda rest: "tcp://" + rest) | st.text(max_size=20))
    def test_no_text_raises_anything_but_a_one_line_value_error(self, text: str) -> None:
        try:
            parsed = SourceUrl.parse(text)
        except ValueError as error:
            assert "\n" not in str(error)
        else:
            assert SourceUrl.parse(str(parsed)) == parsed


class TestSocketAddr:
    @pytest.mark.parametrize(
        ("text", "ip", "port"),
        [
            ("127.0.0.1:22", "127.0.0.1", 22),
            ("[::1]:22", "::1", 22),
            ("[2001:DB8:0::0001]:22", "2001:db8::1", 22),
            ("[::ffff:10.0.0.1]:22", "10.0.0.1", 22),
        ],
    )
    def test_addresses_are_read_in_canonical_form(self, text: str, ip: str, port: int) -> None:
        assert SocketAddr.parse(text) == SocketAddr(ip, port)

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("localhost:22", "'localhost' is a name; an IP address is needed"),
            ("127.0.0.1", "has no port"),
            ("127.0.0.1:0", "outside 1-65535"),
            ("[fe80::1%eth0]:22", "a scope id"),
            ("127.0.0.256:22", "neither a host name nor an IP address"),
        ],
    )
    def test_a_bad_address_is_refused_saying_why(self, text: str, says: str) -> None:
        with pytest.raises(ValueError, match=says):
            SocketAddr.parse(text)

    def test_port_zero_is_read_where_it_means_any(self) -> None:
        assert SocketAddr.parse("0.0.0.0:0", allow_port_zero=True) == SocketAddr("0.0.0.0", 0)

    def test_the_family_shows_in_the_text(self) -> None:
        assert SocketAddr("::1", 22).is_ipv6
        assert not SocketAddr("127.0.0.1", 22).is_ipv6
        assert str(SocketAddr("::1", 22)) == "[::1]:22"
        assert str(SocketAddr("127.0.0.1", 22)) == "127.0.0.1:22"

    @given(st.ip_addresses(), st.integers(1, 65535))
    def test_what_is_written_is_read_again(self, address: object, port: int) -> None:
        where = SocketAddr.parse(str(HostPort(str(address), port)))
        assert SocketAddr.parse(str(where)) == where
