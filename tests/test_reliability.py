from __future__ import annotations

import base64

from tests import reliability

STATISTICS = (
    "- during generate phase:\n  - 40 passing examples, 0 failing examples\n- reuse: 2 passing examples"
)
REPORT = f"""<testsuites><testsuite>
<properties>
<property name="hypothesis-statistics-a" value="{base64.b64encode(STATISTICS.encode()).decode()}" />
</properties>
<testcase name="a"><properties><property name="kills" value="14" /></properties></testcase>
<testcase name="b"><properties><property name="kills" value="3" /></properties></testcase>
<testcase name="c"><skipped message="" /></testcase>
<testcase name="d"><failure message="" /></testcase>
</testsuite></testsuites>"""


def test_what_tests_have_counted_is_added_up():
    assert reliability.figures(REPORT) == {
        "kills": 17,
        "examples": 42,
        "passed": 2,
        "skipped": 1,
        "failure": 1,
    }


def test_rows_are_replaced_and_keep_their_order():
    text = f"before\n{reliability.BEGIN}{reliability.END}after\n"
    found = reliability.figures(REPORT)
    for name in ("images", "kills", "images"):
        text = reliability.with_lines(text, {name: reliability.line(name, found)})
    rows = text.removeprefix(f"before\n{reliability.BEGIN}").removesuffix(f"{reliability.END}after\n")
    header, _, kills, images = rows.splitlines()
    assert header.startswith("| survived |")
    assert kills.startswith("| 17 | kills")
    assert images.startswith("| 42 | images")


def test_the_document_has_a_place_for_them():
    text = reliability.DOCUMENT.read_text(encoding="utf-8")
    assert reliability.with_lines(text, {}).count(reliability.HEADER) == 1
