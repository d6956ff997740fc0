"""The table of licences, expressions of them, and what may be merged."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from teleopen.schemas import LICENCES, RightsError
from teleopen.schemas.licences import (
    alternatives,
    both,
    canonical_expression,
    duties,
    hub_id,
    names_no_licence,
    outbound,
    spdx_of_hub_id,
)

IDS = st.sampled_from(["MIT", "CC-BY-4.0", "CC0-1.0", "CC-BY-NC-4.0", "LicenseRef-x", "Unknown-1"])
TREES = st.recursive(IDS, lambda inner: st.tuples(st.sampled_from(["AND", "OR"]), inner, inner), max_leaves=6)


def text(tree: str | tuple[str, object, object]) -> str:
    return tree if isinstance(tree, str) else f"({text(tree[1])} {tree[0]} {text(tree[2])})"  # type: ignore[arg-type]


def holds(tree: str | tuple[str, object, object], granted: set[str]) -> bool:
    if isinstance(tree, str):
        return tree in granted
    sides = holds(tree[1], granted), holds(tree[2], granted)  # type: ignore[arg-type]
    return all(sides) if tree[0] == "AND" else any(sides)


@given(TREES, st.sets(IDS))
def test_an_expression_and_its_alternatives_and_its_canonical_form_say_the_same(
    tree: str, granted: set[str]
) -> None:
    for form in (text(tree), canonical_expression(text(tree))):
        assert any(one <= granted for one in alternatives(form)) == holds(tree, granted)


@given(TREES)
def test_the_canonical_form_is_its_own(tree: str) -> None:
    once = canonical_expression(text(tree))
    assert canonical_expression(once) == once


@given(TREES, TREES, TREES)
def test_asking_for_both_is_the_same_in_any_order_and_grouping(a: str, b: str, c: str) -> None:
    x, y, z = (canonical_expression(text(tree)) for tree in (a, b, c))
    assert both(x, x) == x
    assert both(x, y) == both(y, x)
    assert both(both(x, y), z) == both(x, both(y, z))


WIDE = " AND ".join(f"(A{i} OR B{i})" for i in range(6))  # 64 alternatives, the most there may be


@pytest.mark.parametrize("other", ["NOASSERTION", "", "not an expression", WIDE.replace("A", "C"), "x" * 480])
def test_what_cannot_be_told_together_is_no_licence(other: str) -> None:
    wide = canonical_expression(WIDE)
    assert both(wide, canonical_expression(other)) == "NOASSERTION"
    assert both(wide, wide) == wide


@given(
    st.lists(
        st.sampled_from([WIDE, "MIT", "D OR E", "x" * 480, "", "bad bad", "A0 OR B0"]), min_size=3, max_size=3
    )
)
def test_asking_for_too_much_is_the_same_in_any_grouping(three: list[str]) -> None:
    x, y, z = map(canonical_expression, three)
    assert both(both(x, y), z) == both(x, both(y, z))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("mit", [{"MIT"}]),
        ("MIT AND cc0-1.0 OR odbl-1.0", [{"MIT", "CC0-1.0"}, {"ODbL-1.0"}]),
        ("MIT AND (CC0-1.0 OR ODbL-1.0)", [{"MIT", "CC0-1.0"}, {"MIT", "ODbL-1.0"}]),
        ("((MIT))", [{"MIT"}]),
        ("MIT AND MIT", [{"MIT"}]),
        ("LicenseRef-own", [{"LicenseRef-own"}]),
    ],
)
def test_expressions_are_read_as_alternatives(expression: str, expected: list[set[str]]) -> None:
    assert sorted(map(sorted, alternatives(expression))) == sorted(map(sorted, expected))


@pytest.mark.parametrize(
    "expression",
    [
        "",
        " ",
        "CC BY 4.0",
        "MIT AND",
        "AND MIT",
        "OR",
        "MIT MIT",
        "(MIT",
        "MIT)",
        "()",
        "MIT or CC0-1.0",
        "MIT+",
        "MIT WITH Classpath-exception-2.0",
        "MIT/CC0-1.0",
        "MIT, CC0-1.0",
        "NOASSERTION",
        "NONE OR MIT",
        "other OR MIT",
        "DocumentRef-a:LicenseRef-b",
        "MIT\nOR CC0-1.0",
        "MIT\u00a0OR CC0-1.0",
        "\u041c\u0406\u0422",
        "with",
        "(" * 17 + "MIT" + ")" * 17,
        "x" * 501,
        " AND ".join(f"(A{i} OR B{i})" for i in range(30)),
    ],
)
def test_what_is_no_expression_has_no_alternatives(expression: str) -> None:
    assert alternatives(expression) == ()


@given(st.text(max_size=600) | st.text("()ANDOR MIT+-.", max_size=600))
def test_any_text_can_be_asked_about(expression: str) -> None:
    alternatives(expression)
    names_no_licence(expression)
    assert canonical_expression(canonical_expression(expression)) == canonical_expression(expression)


# --- the table -------------------------------------------------------------------------------------------


def test_no_licence_that_limits_use_grants_anything() -> None:
    for row in LICENCES.values():
        limits = {"NC", "ND", "USE-LIMITED"} & row.duties
        assert not (limits and row.grant != "closed"), row.id
        assert not (row.open_definition == "non-conformant" and row.grant != "closed"), row.id


def test_software_licences_open_data_only_by_their_holder() -> None:
    granted = {row.id for row in LICENCES.values() if row.grant == "open-if-stated-by-holder"}
    assert granted == {"MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause"}


def test_what_is_granted_is_written_down_here_once_more() -> None:
    assert {row.id for row in LICENCES.values() if row.grant == "open"} == {
        "CC0-1.0",
        "PDDL-1.0",
        "CC-BY-4.0",
        "ODC-By-1.0",
        "CC-BY-SA-4.0",
        "ODbL-1.0",
        "CC-BY-3.0",
        "CC-BY-2.5",
        "CC-BY-2.0",
        "CC-BY-SA-3.0",
        "CC-BY-SA-2.5",
        "CC-BY-SA-2.0",
        "CDLA-Permissive-2.0",
        "CDLA-Permissive-1.0",
        "O-UDA-1.0",
    }


def test_every_row_is_whole_and_found_by_any_spelling() -> None:
    assert len(LICENCES) >= 30
    for id, row in LICENCES.items():
        assert row.id == id == canonical_expression(id.upper()) == canonical_expression(id.lower())
        assert row.url.startswith("https://")
        assert not names_no_licence(id)
        assert {duty for duty in row.duties if duty.startswith("SA:")} <= {f"SA:{id}"}


def test_words_of_the_hub_map_to_the_licence_they_name_and_to_nothing_else() -> None:
    for row in LICENCES.values():
        if row.hub_id != "other":
            assert spdx_of_hub_id(row.hub_id) == row.id
            assert hub_id(row.id) == row.hub_id
    for word in ("other", "unknown", "cc", "bsd", "openrail", "nonsense", ""):
        assert spdx_of_hub_id(word) == "NOASSERTION"
    assert hub_id("CC-BY-4.0 AND CC0-1.0") == "other"


# --- merging ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (["CC-BY-4.0"], "CC-BY-4.0"),
        (["CC0-1.0", "CC-BY-4.0", "MIT"], "CC-BY-4.0 AND CC0-1.0 AND MIT"),
        (["CC-BY-SA-4.0", "CC-BY-4.0", "CC0-1.0"], "CC-BY-SA-4.0"),
        (["CC-BY-NC-4.0", "CC-BY-4.0"], "CC-BY-4.0 AND CC-BY-NC-4.0"),
        (["CC-BY-NC-SA-4.0", "CC-BY-NC-4.0"], "CC-BY-NC-SA-4.0"),
    ],
)
def test_a_merge_goes_out_under_what_all_parts_ask_for(parts: list[str], expected: str) -> None:
    merged = outbound(parts)
    assert merged.expression == expected
    assert merged.duties == duties(parts)


@pytest.mark.parametrize(
    "parts",
    [
        [],
        ["CC-BY-ND-4.0"],
        ["CC-BY-SA-4.0", "ODbL-1.0"],
        ["CC-BY-SA-4.0", "CC-BY-NC-SA-4.0"],
        ["CC-BY-SA-4.0", "CC-BY-NC-4.0"],
        ["LicenseRef-own"],
        ["NOASSERTION", "CC0-1.0"],
        ["C-UDA-1.0"],
    ],
)
def test_what_must_not_be_merged_is_refused(parts: list[str]) -> None:
    with pytest.raises(RightsError):
        outbound(parts)


@given(st.sets(st.sampled_from(sorted(LICENCES)), min_size=1, max_size=4))
def test_merging_never_sheds_a_duty(parts: set[str]) -> None:
    try:
        merged = outbound(parts)
    except RightsError:
        return
    assert merged.duties >= frozenset().union(*(LICENCES[id].duties for id in parts))
