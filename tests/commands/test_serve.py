"""What `iei serve` says of itself."""

from __future__ import annotations

from dataclasses import replace

from iei.commands.master import summary
from iei.models.catalog import DEMO_NOTE
from iei.settings import read_settings
from tests.engine.runtimes_for_tests import SPEC


def test_the_summary_says_what_a_demo_is_for() -> None:
    settings = read_settings(model="org/vit")
    assert DEMO_NOTE in summary(replace(SPEC, name="mine", id="demo"), settings, [])
    assert DEMO_NOTE not in summary(replace(SPEC, name="demo", id="org/vit"), settings, [])


def test_the_summary_says_who_may_send_requests() -> None:
    assert "access    open to all: there are no API keys" in summary(SPEC, read_settings(), [])
    assert "access    with an API key" in summary(SPEC, read_settings(api_keys="secret"), [])
    assert "access    with an API key" in summary(SPEC, read_settings(api_keys_file="keys"), [])


def test_the_summary_tells_the_models_pooling_where_it_has_not_the_servers() -> None:
    assert "3 dimensions, pooling mean (offered: mean)" in summary(SPEC, read_settings(pooling="last"), [])
