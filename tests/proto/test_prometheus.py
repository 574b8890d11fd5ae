import re

from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.proto.prometheus import Family, Kind, render, single


def test_a_metric_has_its_help_its_type_and_its_values() -> None:
    family = Family(
        "x_total", Kind.COUNTER, [({"kind": "a"}, 7), ({"kind": "b", "by": "c"}, 0.5)], "All x."
    )
    assert render([family, single("y", Kind.GAUGE, 3)]) == (
        "# HELP x_total All x.\n"
        "# TYPE x_total counter\n"
        'x_total{kind="a"} 7\n'
        'x_total{kind="b",by="c"} 0.5\n'
        "# TYPE y gauge\n"
        "y 3\n"
    )


def test_labels_and_help_are_escaped() -> None:
    text = render([Family("x", Kind.GAUGE, [({"a": 'q"b\\c\nd'}, 1)], 'h\\i\n"j"')])
    assert text == '# HELP x h\\\\i\\n"j"\n# TYPE x gauge\nx{a="q\\"b\\\\c\\nd"} 1\n'


@given(st.text())
def test_no_label_breaks_out_of_its_line(text: str) -> None:
    lines = render([Family("x", Kind.GAUGE, [({"a": text}, 1)])]).split("\n")
    assert len(lines) == 3
    found = re.fullmatch(r'x\{a="((?:[^"\\\n]|\\["\\n])*)"\} 1', lines[1])
    assert found
    unescaped = re.sub(r"\\(.)", lambda m: {"n": "\n"}.get(m[1], m[1]), found[1])
    assert unescaped == text


def test_large_numbers_are_exact() -> None:
    assert render([single("x", Kind.GAUGE, 2**60)]).endswith(f"x {2**60}\n")
