import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.samples import BAD_TOKEN, ENDPOINT_ID, OTHER_TOKEN, TOKEN

from tunnel_rs.errors import ConfigError
from tunnel_rs.proto.access import (
    NOT_ACCEPTED,
    AccessList,
    Entry,
    Pass,
    of_tokens,
    parse_client_file,
    parse_token_file,
)
from tunnel_rs.proto.grants import Grant
from tunnel_rs.values import EndpointId, Secret

PEER = EndpointId.parse(ENDPOINT_ID)
STRANGER = EndpointId(bytes([7]) * 32)
ALICE = Grant(name="alice", expires=100.0)


def judge(access: AccessList, token: str, *, peer: EndpointId = STRANGER, wall: float = 0) -> str:
    """The name of who is let in, or why not."""
    verdict = access.judge(peer, Secret(token), wall)
    return verdict if isinstance(verdict, str) else f"in: {verdict.name}"


def test_nobody_is_let_in_by_an_empty_list() -> None:
    assert judge(AccessList(), "") == NOT_ACCEPTED
    assert judge(AccessList(), TOKEN) == NOT_ACCEPTED


def test_a_token_lets_its_holder_in_until_it_expires() -> None:
    access = AccessList((Entry(Secret(TOKEN), ALICE), Entry(Secret(OTHER_TOKEN))))
    assert judge(access, TOKEN, wall=99.9) == "in: alice"
    assert judge(access, TOKEN, wall=100) == "the token of alice has expired"
    assert judge(access, OTHER_TOKEN, wall=100).startswith("in: token-")
    assert judge(access, TOKEN[:-1]) == NOT_ACCEPTED


def test_a_client_key_lets_in_without_a_token_and_goes_before_one() -> None:
    access = AccessList((Entry(Secret(TOKEN)),), (Entry(PEER, ALICE),))
    assert judge(access, "", peer=PEER) == "in: alice"
    assert judge(access, TOKEN, peer=PEER) == "in: alice"
    assert judge(access, "", peer=STRANGER) == NOT_ACCEPTED
    assert judge(access, "", peer=PEER, wall=100) == "the key of alice has expired"
    assert judge(access, TOKEN, peer=PEER, wall=100).startswith("in: token-")


def test_a_pass_is_renewed_with_what_its_line_says_now() -> None:
    held = of_tokens(Secret(TOKEN)).judge(STRANGER, Secret(TOKEN), 0)
    assert isinstance(held, Pass)
    now = AccessList((Entry(Secret(TOKEN), ALICE),))
    assert now.renew(held, 99) == Pass(Secret(TOKEN), ALICE)
    assert now.renew(held, 100) is None
    assert of_tokens(Secret(OTHER_TOKEN)).renew(held, 0) is None
    key = Pass(PEER, Grant())
    assert now.renew(key, 0) is None
    assert AccessList(clients=(Entry(PEER, ALICE),)).renew(key, 0) == Pass(PEER, ALICE)


def test_a_token_without_a_name_has_one_that_does_not_tell_it() -> None:
    one, other = Pass(Secret(TOKEN), Grant()), Pass(Secret(OTHER_TOKEN), Grant())
    assert one.name != other.name and len(one.name) == len("token-12345678")
    assert one.by == "token" and Pass(PEER, Grant()).by == "key"
    assert Pass(PEER, Grant()).name == ""


def tokens(text: str) -> list[str]:
    return [entry.credential.reveal() for entry in parse_token_file(text, "tokens")]


def test_a_file_has_one_token_a_line_with_comments_and_blank_lines() -> None:
    text = f"# ours\n\n{TOKEN}\r\n  {OTHER_TOKEN}\t# laptop\n   \n#{TOKEN}\n"
    assert tokens(text) == [TOKEN, OTHER_TOKEN]


def test_options_follow_the_token() -> None:
    (entry,) = parse_token_file(f"{TOKEN}  name=bob\tmax-sessions=3 # his\n", "f")
    assert entry == Entry(Secret(TOKEN), Grant(name="bob", max_sessions=3))
    assert entry.where == "f, line 1"


def test_a_line_given_twice_counts_once() -> None:
    assert tokens(f"{TOKEN}\n{TOKEN}\n") == [TOKEN]


def test_a_token_with_two_meanings_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_token_file(f"{TOKEN} name=a\n\n{TOKEN} name=b\n", "f")
    assert str(caught.value) == (
        "f, line 3: the same token as in line 1, with other options; keep one of the two"
    )


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n\n", "\ufeff"])
def test_a_file_without_tokens_has_none(text: str) -> None:
    assert tokens(text) == []


def test_a_byte_order_mark_is_ignored() -> None:
    assert tokens("\ufeff" + TOKEN) == [TOKEN]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("short", "a token has 18 characters, this has 5"),
        (BAD_TOKEN, "the token's check character does not fit"),
        (f"{TOKEN} {OTHER_TOKEN}", "something where an option is expected; write one token a line"),
        (f"{TOKEN} {OTHER_TOKEN}=1", "an unknown option; there are name,"),
        (f"{TOKEN}\u2028{OTHER_TOKEN}", "a token has 18 characters, this has 37"),
        (f"{TOKEN} expires=tomorrow", "expires: 'tomorrow' is not a date like 2027-01-31"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number_without_its_token(bad: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_token_file(f"# one\n{TOKEN}\n\n{bad}\n", "/etc/tokens")
    assert str(caught.value).startswith(f"/etc/tokens, line 4: {says}")
    shown = "".join(traceback.format_exception(caught.value))
    assert not any(token in shown for token in (TOKEN, OTHER_TOKEN, BAD_TOKEN))


def test_a_file_of_client_keys_is_read_the_same_way() -> None:
    base32 = PEER.base32
    text = f"{ENDPOINT_ID} name=build # the build machine\n{base32} name=build\n"
    assert parse_client_file(text, "f") == (Entry(PEER, Grant(name="build")),)
    with pytest.raises(ConfigError, match=r"^f, line 1: an EndpointId has 64 hex digits"):
        parse_client_file(f"{TOKEN}\n", "f")


@given(st.text(max_size=80))
def test_no_file_raises_anything_but_config_errors(text: str) -> None:
    for parse in (parse_token_file, parse_client_file):
        try:
            parse(text, "f")
        except ConfigError as error:
            assert str(error).startswith("f, line ") and "\n" not in str(error)


@given(st.lists(st.text(st.characters(exclude_characters="\n"), max_size=20), max_size=4))
def test_no_options_raise_anything_but_config_errors(words: list[str]) -> None:
    try:
        parse_token_file(" ".join([TOKEN, *words]), "f")
    except ConfigError as error:
        assert str(error).startswith("f, line 1: ") and TOKEN not in str(error)
