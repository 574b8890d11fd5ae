"""Who may use a relay."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.relay_peers import identity

from tunnel_rs.errors import ConfigError
from tunnel_rs.proto import relay_access as a
from tunnel_rs.values import Secret

ALICE, BOB = identity(1).endpoint_id, identity(2).endpoint_id
TOKENS = a.SharedToken((Secret("one"), Secret("zwei")))


@pytest.mark.parametrize(
    ("policy", "token", "decision"),
    [
        (a.Everyone(), None, a.Decision.ALLOW),
        (a.AllowList(frozenset({ALICE})), None, a.Decision.ALLOW),
        (a.AllowList(frozenset({BOB})), None, a.Decision.DENY),
        (a.AllowList(frozenset()), "one", a.Decision.DENY),
        (a.DenyList(frozenset({ALICE})), None, a.Decision.DENY),
        (a.DenyList(frozenset({BOB})), None, a.Decision.ALLOW),
        (TOKENS, "zwei", a.Decision.ALLOW),
        (TOKENS, "zwe", a.Decision.DENY),
        (TOKENS, "", a.Decision.DENY),
        (TOKENS, "\ud800", a.Decision.DENY),
        (TOKENS, None, a.Decision.DENY),
        (a.SharedToken(()), "one", a.Decision.DENY),
        (a.AccessService("https://x/"), None, a.Decision.ASK),
    ],
)
def test_each_policy_decides(
    policy: a.AccessPolicy, token: str | None, decision: a.Decision
) -> None:
    assert a.decide(policy, ALICE, Secret(token) if token is not None else None) is decision


@pytest.mark.parametrize(
    ("status", "body", "allowed"),
    [(200, b"true", True), (200, b"true\n", False), (200, b"", False), (201, b"true", False)],
)
def test_only_200_with_exactly_true_is_a_yes(status: int, body: bytes, allowed: bool) -> None:
    assert a.AccessService.allows(status, body) is allowed


def test_the_service_is_told_the_id_under_both_names() -> None:
    service = a.AccessService("https://x/", Secret("hush"))
    assert service.headers(ALICE) == {
        "X-Iroh-NodeId": str(ALICE),
        "X-Iroh-Endpoint-Id": str(ALICE),
        "Authorization": "Bearer hush",
    }
    assert "hush" not in repr(service)


def test_an_id_list_has_comments_and_both_spellings() -> None:
    text = f"# friends\n{ALICE}  # Alice\n\n  {BOB.base32}\n"
    assert a.parse_id_list(text, "f") == {ALICE, BOB}


def test_a_bad_line_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^friends, line 2: .*lower case"):
        a.parse_id_list(f"\n{str(ALICE).upper()}\n", "friends")


@given(st.text(max_size=200))
def test_no_list_makes_reading_it_fail_otherwise(text: str) -> None:
    try:
        a.parse_id_list(text, "f")
    except ConfigError as error:
        assert "\n" not in str(error)
