"""The matrix of methods in the documentation has each registered method."""

from __future__ import annotations

from captum_interactions.attr import attributions
from docs.method_facts import FACTS


def test_every_method_has_a_row_with_all_its_facts():
    assert list(FACTS) == [info.name for info in attributions()]
    for info in attributions():
        facts = FACTS[info.name]
        assert all([facts.answers, info.needs, info.cost, facts.caveats, facts.paper]), info.name
