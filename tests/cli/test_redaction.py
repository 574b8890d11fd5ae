import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.samples import BAD_TOKEN, ENDPOINT_ID, SECRET_KEY, TOKEN

from tunnel_rs.cli.redaction import Redactor, without_secrets
from tunnel_rs.proto.tokens import generate_token
from tunnel_rs.values import EndpointId

BASE32 = EndpointId.parse(ENDPOINT_ID).base32
NSEC = "nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"token {TOKEN}, key {SECRET_KEY}.", "token ***, key ***."),
        (f"{BAD_TOKEN} is none", f"{BAD_TOKEN} is none"),
        (f"key={NSEC}", "key=***"),
    ],
)
def test_secrets_of_ours_are_masked(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
    assert Redactor({})(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://relay.example/?token=abc", "https://relay.example/?***"),
        ("wss://user:pass@r.example/x", "wss://***@r.example/x"),
        ("turn:bob:hunter2@turn.example?transport=tcp", "turn:***@turn.example?transport=tcp"),
        ("Authorization: Bearer s3cret", "Authorization: Bearer ***"),
        (f"{ENDPOINT_ID} {BASE32} {ENDPOINT_ID}", "id-1 id-2 id-1"),
        (f"client {ENDPOINT_ID[:10]} of {ENDPOINT_ID}, 93558c4e32", "client id-1 of id-1, id-2"),
        ("in 1234567890 s, deadbeef, abcdef01234", "in 1234567890 s, deadbeef, abcdef01234"),
        ("8.8.8.8:53, [2606:4700::1]:443, 8.8.8.8", "ipv4-1:53, [ipv6-1]:443, ipv4-1"),
        (
            "127.0.0.1 10.1.2.3 192.168.0.1 fe80::1 ::1",
            "127.0.0.1 10.1.2.3 192.168.0.1 fe80::1 ::1",
        ),
        ("up 10:29:07, 1.2.3, 999.1.1.1, a::b::c", "up 10:29:07, 1.2.3, 999.1.1.1, a::b::c"),
        ("/home/alice/x on alices-laptop", "~/x on HOST"),
    ],
)
def test_who_and_where_somebody_is_is_replaced(text: str, shown: str) -> None:
    assert Redactor({"/home/alice": "~", "alices-laptop": "HOST"})(text) == shown


def test_short_words_are_not_replaced_everywhere() -> None:
    assert Redactor({"/": "~", "a": "b"})("/etc/a") == "/etc/a"


@given(st.binary(min_size=64, max_size=64), st.text(max_size=20), st.text(max_size=20))
def test_no_token_gets_through_wherever_it_stands(seed: bytes, before: str, after: str) -> None:
    bits = iter(seed * 4)
    token = generate_token(lambda n: bytes(next(bits) for _ in range(n))).reveal()
    assert token not in Redactor({})(f"{before} {token} {after}")


@given(st.text(max_size=200))
def test_no_text_raises_and_twice_is_as_once(text: str) -> None:
    redact = Redactor({})
    once = redact(text)
    assert redact(once) == once
