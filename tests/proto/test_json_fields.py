import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.errors import ProtocolError
from tunnel_rs.proto.json_fields import JsonFields, is_unicode


def fields(text: str) -> JsonFields:
    return JsonFields("note", text.encode())


def test_fields_of_every_kind_are_read() -> None:
    note = fields('{"a":"x","b":true,"n":18446744073709551615,"l":["1","2"],"more":{}}')
    assert note.required("a", str) == "x"
    assert note.required("b", bool) is True
    assert note.required("n", int) == 2**64 - 1
    assert note.texts("l", limit=2) == ("1", "2")
    assert note.optional("absent", str) is None
    assert note.texts("absent", limit=0) == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a":1}', "not text"),
        ('{"a":null}', "no field"),
        ('{"a":"\\ud800"}', "not Unicode"),
        ('{"a":"x","a":"x"}', "twice"),
    ],
)
def test_a_text_that_is_none_is_refused(text: str, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        fields(text).required("a", str)


def test_true_is_no_number() -> None:
    with pytest.raises(ProtocolError, match="whole number"):
        fields('{"a":true}').required("a", int)


@pytest.mark.parametrize("text", ['{"l":"x"}', '{"l":["a","b","c"]}', '{"l":[1]}'])
def test_a_list_that_is_too_long_or_holds_something_else_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError):
        fields(text).texts("l", limit=2)


@pytest.mark.parametrize("body", [b"", b"[]", b"1", b"\xff", b'{"a":NaN}', b"[" * 100_000])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError, match="the note is not a JSON object"):
        JsonFields("note", body)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    try:
        JsonFields("note", body).single("a")
    except ProtocolError:
        pass


def test_lone_surrogates_are_not_unicode() -> None:
    assert is_unicode("a\u00e4\U0001f600")
    assert not is_unicode("\udc80")
