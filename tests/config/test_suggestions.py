from tunnel_rs.config.suggestions import did_you_mean, nearest

KNOWN = ("role", "iroh.max_sessions", "iroh.allowed_sources.tcp", "iroh.transport.send_window")


def test_a_misspelt_word_finds_the_nearest_known_one() -> None:
    assert nearest("iroh.max_session", KNOWN) == "iroh.max_sessions"
    assert nearest("rolle", KNOWN) == "role"


def test_a_key_in_the_wrong_table_finds_its_own() -> None:
    assert nearest("send_window", KNOWN) == "iroh.transport.send_window"
    assert nearest("iroh.tcp", KNOWN) == "iroh.allowed_sources.tcp"


def test_a_word_like_no_other_finds_nothing() -> None:
    assert nearest("iroh.colour", KNOWN) is None
    assert did_you_mean("colour", KNOWN) == ""


def test_a_very_long_word_costs_no_time() -> None:
    assert nearest("x" * 1_000_000, KNOWN) is None


def test_the_suggestion_is_a_phrase_to_append() -> None:
    assert did_you_mean("rolle", KNOWN) == " (did you mean 'role'?)"
