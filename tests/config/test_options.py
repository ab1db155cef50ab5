"""Kinds of values as text, and the check of every value when options are made."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccp_dml.kinds import (
    LARGEST_INTEGER,
    LARGEST_NUMBER,
    Choice,
    Integer,
    Integers,
    Kind,
    Number,
    Patterns,
    Size,
    StepRange,
    Switch,
    Text,
)
from ccp_dml.options import Change, OptionError, Options, option, options_of


@dataclasses.dataclass(frozen=True)
class SmallOptions(Options):
    """Two options."""

    rate: float = option(0.5, Number(above=0), "A rate.")
    size: int | None = option(None, Integer(1), "A size.", Change.LARGER, {"rate": Number(low=1)})


def test_options_are_the_declared_fields_in_order():
    rate, size = options_of(SmallOptions)
    assert (rate.name, rate.default, rate.optional, rate.change) == ("rate", 0.5, False, Change.NEVER)
    assert (size.name, size.default, size.optional, size.change) == ("size", None, True, Change.LARGER)
    assert size.only_with == {"rate": Number(low=1)}
    assert options_of(SmallOptions(rate=2.0)) == (rate, size)


@pytest.mark.parametrize(
    "values, problem",
    [
        ({"rate": 0}, "rate=0: expected a number, above 0"),
        ({"rate": None}, "rate=: expected a number, above 0"),
        ({"size": 0}, "size=0: expected an integer, at least 1"),
        ({"size": "1"}, "size=1: expected an integer, at least 1"),
    ],
)
def test_a_value_out_of_range_is_an_error_when_the_options_are_made(values, problem):
    with pytest.raises(OptionError, match=f"^{problem}"):
        SmallOptions(**values)
    with pytest.raises(OptionError, match=f"^{problem}"):
        dataclasses.replace(SmallOptions(), **values)


def test_options_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SmallOptions().rate = 0.1  # type: ignore[misc]


def test_an_unset_option_is_empty_text():
    _, size = options_of(SmallOptions)
    assert (size.parse(" "), size.format(None), size.written(3)) == (None, "", "size=3")


@pytest.mark.parametrize(
    "change, before, now, allowed",
    [
        (Change.NEVER, 1, 1, True),
        (Change.NEVER, 1, 2, False),
        (Change.FREE, 2, 1, True),
        (Change.LARGER, 1, 2, True),
        (Change.LARGER, 2, 1, False),
    ],
)
def test_a_run_may_continue_with_some_changes(change, before, now, allowed):
    assert change.allows(before, now) is allowed


def is_valid(kind: Kind, value) -> bool:
    try:
        kind.check(value)
    except ValueError:
        return False
    return True


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.one_of(
        st.tuples(st.just(Number()), st.floats(-LARGEST_NUMBER, LARGEST_NUMBER)),
        st.tuples(st.just(Integer(-5)), st.integers(-5, LARGEST_INTEGER)),
        st.tuples(st.just(Integers()), st.sets(st.integers(1, 99), max_size=5).map(sorted).map(tuple)),
        st.tuples(st.just(Text()), st.text(min_size=1).filter(lambda text: is_valid(Text(), text))),
        st.tuples(
            st.just(StepRange()), st.sets(st.integers(0), min_size=2, max_size=2).map(sorted).map(tuple)
        ),
        st.tuples(st.just(Size(8, 99)), st.integers(8, 99)),
        st.tuples(st.just(Size(8, 99)), st.permutations(range(8, 99)).map(lambda sides: tuple(sides[:2]))),
        st.tuples(st.just(Switch()), st.booleans()),
        st.tuples(
            st.just(Patterns()), st.lists(st.from_regex(r"[a-z_.][a-z0-9_.]{0,4}", fullmatch=True)).map(tuple)
        ),
    )
)
def test_text_gives_back_the_exact_value(kind_and_value):
    kind, value = kind_and_value
    assert kind.parse(kind.format(value)) == value


@pytest.mark.parametrize(
    "kind, text",
    [
        (Integer(0), "1.0"),
        (Integer(0), ""),
        (Integer(0, 5), "6"),
        (Integer(0), "2147483648"),
        (Number(), "3.5e38"),
        (Integers(), "1,2147483648"),
        (Number(), "nan"),
        (Number(), "inf"),
        (Number(), "1,5"),
        (Number(above=0), "0"),
        (Number(low=0, below=1), "1"),
        (Switch(), "maybe"),
        (Choice(("a", "b")), "c"),
        (Integers(), "1,1"),
        (Integers(), "1,,2"),
        (Integers(), "0,1"),
        (Text(), " "),
        (StepRange(), "5:5"),
        (StepRange(), "5"),
        (StepRange(), "-1:5"),
        (StepRange(), "1:2:3"),
        (Patterns(), "stem ("),
        (Size(8, 99), "7"),
        (Size(8, 99), "8x100"),
        (Size(8, 99), "8x"),
        (Size(8, 99), "8x9x10"),
        (Size(8, 99), "8,9"),
        (Size(8, 99), "8.0x9"),
    ],
)
def test_invalid_text_is_refused(kind, text):
    with pytest.raises(ValueError, match="^expected "):
        kind.parse(text)


def test_a_size_of_equal_sides_is_one_number():
    assert [Size(8, 999).parse(text) for text in ("64x64", "64", "256X128")] == [64, 64, (256, 128)]


def test_a_choice_may_be_a_switch():
    kind = Choice(("none", "some", "all"), on="all", off="none")
    assert [kind.parse(text) for text in ("true", "false", "some")] == ["all", "none", "some"]
    assert (kind.is_switch, Choice(("a",)).is_switch, Switch().is_switch) == (True, False, True)
