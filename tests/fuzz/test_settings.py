"""The environment as operators may have it: settings, or a sentence that names the variable."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from iei.access.keys import read_keyring
from iei.errors import StartupError
from iei.inputs.addresses import UrlPolicy
from iei.middleware.cors import cors
from iei.models.catalog import read_catalog
from iei.settings import SETTINGS, read_settings
from tests.fuzz.effort import examples
from tests.fuzz.refusals import or_refused

SECRET = "sEcReT0123"
refused = partial(or_refused, StartupError, longest=50_000, without=SECRET)
SECRETS = st.sampled_from((f"a={SECRET}", f"{SECRET}=", f"{SECRET}\udcff", f"{SECRET} a", f"a={SECRET}," * 2))
VARIABLES = [variable for setting in SETTINGS.values() if not setting.is_secret for variable in setting.variables]
VALUES = st.one_of(
    st.sampled_from(
        (
            "0",
            "-1",
            "1",
            "1e9",
            "nan",
            "inf",
            "9" * 5000,
            "true",
            "auto",
            "off",
            "public",
            "cpu",
            "127.0.0.1:0",
            "[::1]:1",
            "[::1",
            "http://a:b",
            "http://[::1",
            "http://a:99999",
            "http://[v1.a]/",
            "https://example.com",
            "a=b",
            "a=b,a=c",
            "a@b",
            "a" * 300,
            "/" + "b/" * 3000,
            "~nobody/a",
            "\udcff",
        )
    ),
    # What an environment can hold: no NUL, and bytes that are not UTF-8 as surrogates.
    st.binary(max_size=20).map(lambda value: os.fsdecode(value.replace(b"\0", b""))),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20),
)


@examples(200)
@given(st.dictionaries(st.sampled_from(VARIABLES), VALUES, max_size=4), st.none() | SECRETS)
def test_any_environment_is_settings_or_a_sentence(environment: Mapping[str, str], keys: str | None) -> None:
    given = {**environment, "IEI_API_KEYS": keys} if keys else environment
    with patch.dict(os.environ, given), refused():
        settings = read_settings()
        for read in (
            lambda: settings.server.address,
            lambda: read_catalog(settings.models),
            lambda: read_keyring(settings.access),
            lambda: UrlPolicy.parse(settings.inputs.url_inputs),
            lambda: cors(settings.access.cors_origins),
        ):
            with refused():
                read()
