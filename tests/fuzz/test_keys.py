"""Files of API keys: keys, or a message that has no part of any key in it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from hypothesis import example, given
from hypothesis import strategies as st

from iei.access.keys import Keyring, parse_keys
from iei.errors import StartupError
from tests.fuzz.effort import examples
from tests.fuzz.refusals import or_refused

SECRET = "sEcReT0123"
WORDS = st.one_of(
    st.sampled_from(
        (
            SECRET,
            f"alice={SECRET}",
            f"{SECRET}=",
            f"={SECRET}",
            f"bob=x={SECRET}",
            f"sha256:{SECRET}",
            f"carol=sha256:{hashlib.sha256(SECRET.encode()).hexdigest()}",
            f"{SECRET}é",
            "inputs_per_s=5",
            "inputs_per_s=0",
            "inputs_per_s=1e9",
            "inputs_at_once=7",
            "inputs_at_once=٣",
            f"inputs_at_once={SECRET}",
            f"priority={SECRET}",
            f"#{SECRET}",
            "=",
            "sha256:",
        )
    ),
    st.text(max_size=10),
)
LINES = st.lists(
    st.tuples(st.lists(WORDS, max_size=4), st.sampled_from((" ", "\t", " \u00a0", "\x1c"))).map(
        lambda line: line[1].join(line[0])
    ),
    max_size=5,
)


@examples(300)
@given(LINES)
@example([f"a={SECRET}", f"b={SECRET}"])
def test_any_file_is_keys_or_a_message_without_them(lines: Sequence[str]) -> None:
    with or_refused(StartupError, without=SECRET):
        keys = parse_keys(lines, "IEI_API_KEYS_FILE: keys")
        assert len({key.name for key in keys}) == len({key.digest for key in keys}) == len(keys) > 0
        for key in keys:
            assert re.fullmatch(r"key \d+|[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", key.name)
            assert key.limits.inputs_per_s is None or 0 < key.limits.inputs_per_s < 1e9
            assert key.limits.inputs_at_once is None or 0 < key.limits.inputs_at_once < 1e9
            assert SECRET not in repr(key)
        assert not Keyring(keys).find([b"", b"alice", hashlib.sha256(SECRET.encode()).hexdigest().encode()])
