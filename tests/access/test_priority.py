"""Which priority a request has."""

from __future__ import annotations

import pytest

from iei.access.priority import PriorityRule
from iei.errors import InvalidField
from iei.priority import Priority

INTERACTIVE, BULK = Priority
RULE = PriorityRule("/v1, /embed/")


@pytest.mark.parametrize(
    ("path", "priority"),
    [
        ("/v1/embeddings", BULK),
        ("/v1", BULK),
        ("/embed", BULK),
        ("/embed/", BULK),
        ("/embed_all", INTERACTIVE),
        ("/v2/models/clip/infer", INTERACTIVE),
        ("/", INTERACTIVE),
    ],
)
def test_routes_have_a_priority_that_the_header_changes_both_ways(path: str, priority: Priority) -> None:
    assert RULE.of({}, path, INTERACTIVE) is priority
    assert RULE.of({"x-iei-priority": "bulk"}, path, INTERACTIVE) is BULK
    assert RULE.of({"x-iei-priority": " Interactive "}, path, INTERACTIVE) is INTERACTIVE


def test_by_default_everything_is_interactive_and_a_slash_means_all_routes() -> None:
    assert PriorityRule("").of({}, "/embed", INTERACTIVE) is INTERACTIVE
    assert PriorityRule("/").of({}, "/embed", INTERACTIVE) is BULK
    assert PriorityRule("/").of({}, "/", INTERACTIVE) is BULK


def test_the_priority_of_a_key_is_a_limit() -> None:
    for headers in ({}, {"x-iei-priority": "interactive"}, {"x-iei-priority": "bulk"}):
        assert RULE.of(headers, "/embed_all", at_most=BULK) is BULK


def test_another_value_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(InvalidField, match=r"X-IEI-Priority must be interactive or bulk, not 'urgent'") as refused:
        RULE.of({"x-iei-priority": "urgent"}, "/embed", INTERACTIVE)
    assert refused.value.field == "X-IEI-Priority"
    assert refused.value.status == 422
