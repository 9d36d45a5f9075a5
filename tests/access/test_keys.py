"""How keys are written and read, and which of them a request has."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
from pathlib import Path

import pytest
from pydantic import SecretStr

from iei.access import keys
from iei.access.keys import CHECK_S, Keyring, Limits, parse_keys, read_keyring
from iei.errors import StartupError
from iei.priority import Priority
from iei.settings import AccessSettings


def sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def name_of(keyring: Keyring | None, *candidates: str) -> str | None:
    assert keyring
    found = keyring.find(candidate.encode() for candidate in candidates)
    return found.name if found else None


def variable(text: str) -> Keyring | None:
    return read_keyring(AccessSettings(api_keys=SecretStr(text)))


def test_without_keys_nobody_is_asked_for_one() -> None:
    assert read_keyring(AccessSettings()) is None


def test_keys_have_names_or_are_numbered_and_may_be_hashed() -> None:
    keyring = variable(f"one, alice=two , bob=sha256:{sha256('three')},sha256:{sha256('four').upper()},")
    found = [name_of(keyring, key) for key in ("one", "two", "three", "four", sha256("three"), "alice", "")]
    assert found == ["key 1", "alice", "bob", "key 4", None, None, None]


def test_limits_come_after_the_key() -> None:
    text = "a=1 inputs_per_s=50 inputs_at_once=200,b=2 inputs_per_s=0.5,c=3  inputs_at_once=1"
    limits = [key.limits for key in parse_keys(text.split(","), "X")]
    assert limits == [Limits(50, 200), Limits(0.5), Limits(None, 1)]


def test_a_key_may_be_for_bulk_only_which_is_no_limit_that_is_counted() -> None:
    keys = parse_keys(["a=1 priority=bulk", "b=2 priority=interactive inputs_at_once=1", "c=3"], "X")
    assert [key.priority for key in keys] == [Priority.BULK, Priority.INTERACTIVE, Priority.INTERACTIVE]
    assert keys[0].limits == Limits()


def test_a_file_has_a_key_in_each_line_and_comments(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# ours, all of them\n\nalice=ab#c  # from sales\n  \n\tbob=d==\tinputs_per_s=2\n")
    keyring = read_keyring(AccessSettings(api_keys_file=file))
    assert [name_of(keyring, key) for key in ("ab#c", "d==", "ab", "d")] == ["alice", "bob", None, None]


SECRET = "sEcReT-0123"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (" , ,", "IEI_API_KEYS has no key"),
        ("# nothing", "IEI_API_KEYS has no key"),
        (f"{SECRET}==", "key 1: a key that has a = in it needs a name"),
        (f"x,={SECRET}", "key 2: a name has"),
        (f"a b={SECRET}", "key 1: after a key there may be inputs_per_s, inputs_at_once and priority"),
        (f"a= {SECRET}", "key 1: a key that has a = in it needs a name"),
        (f"{'n' * 65}={SECRET}", "key 1: a name has up to 64"),
        (f"inputs_per_s={SECRET}", "key 1: a name has .* is not that of a limit"),
        (f"a=é{SECRET}", "'a': a key may have printable ASCII"),
        (f"a=sha256:{SECRET}", "'a': after sha256: there must be 64 hex"),
        (f"a={SECRET} {SECRET}", "'a': after a key there may be inputs_per_s, inputs_at_once and priority"),
        (f"{SECRET} inputs_per_s=0", "key 1: inputs_per_s must be a number above 0"),
        (f"{SECRET} inputs_per_s=", "inputs_per_s must be a number above 0"),
        (f"{SECRET} inputs_per_s=-1", "inputs_per_s must be a number above 0"),
        (f"{SECRET} inputs_per_s=inf", "inputs_per_s must be a number above 0"),
        (f"{SECRET} inputs_per_s=1e3", "inputs_per_s must be a number above 0"),
        (f"{SECRET} inputs_at_once=0", "inputs_at_once must be a whole number, at least 1"),
        (f"{SECRET} inputs_at_once=1.5", "inputs_at_once must be a whole number, at least 1"),
        (f"{SECRET} priority=", "key 1: priority must be interactive or bulk"),
        (f"{SECRET} priority=Bulk", "key 1: priority must be interactive or bulk"),
        (f"{SECRET} inputs_at_once=1 inputs_at_once=2", "inputs_at_once is given twice"),
        (f"a={SECRET},a=other", "two keys are called 'a'"),
        (f"a={SECRET},b={SECRET}", "'a' and 'b' are the same key"),
        (f"a={SECRET},sha256:{sha256(SECRET)}", "'a' and 'key 2' are the same key"),
    ],
)
def test_nonsense_is_refused_in_one_sentence_that_has_no_key(text: str, sentence: str) -> None:
    with pytest.raises(StartupError, match=sentence) as refused:
        variable(text)
    message = str(refused.value)
    assert message.startswith("IEI_API_KEYS")
    assert SECRET not in message
    assert sha256(SECRET) not in message


def test_a_variable_and_a_file_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="IEI_API_KEYS and IEI_API_KEYS_FILE exclude each other"):
        read_keyring(AccessSettings(api_keys=SecretStr("a"), api_keys_file=tmp_path / "keys"))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "can't be read: No such file"),
        (b"", "has no key"),
        (b"\xff\xfea=b", "is not a text in UTF-8"),
        (b"a=b c", "'a': after a key"),
    ],
)
def test_a_file_that_can_not_be_used_is_refused_by_its_path(
    tmp_path: Path, content: bytes | None, sentence: str
) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(StartupError, match=sentence) as refused:
        read_keyring(AccessSettings(api_keys_file=file))
    assert str(file) in str(refused.value)


def test_nothing_that_is_printed_has_a_key_in_it() -> None:
    settings = AccessSettings(api_keys=SecretStr(SECRET))
    (key,) = parse_keys([SECRET], "X")
    for shown in (repr(settings), str(settings), repr(key), settings.model_dump_json()):
        assert SECRET not in shown
        assert sha256(SECRET) not in shown
        assert str(key.digest) not in shown


# comparing


def test_every_candidate_is_compared_with_every_key_whichever_match(monkeypatch: pytest.MonkeyPatch) -> None:
    """So how long it takes tells how many keys there are, and nothing about them."""
    compared: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest

    def counted(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return real(a, b)

    monkeypatch.setattr(hmac, "compare_digest", counted)
    keyring = variable("a=one,b=two,c=three")
    for candidates in (["one"], ["three"], ["none"], ["one", "none"], ["none", "wrong"]):
        compared.clear()
        name_of(keyring, *candidates)
        assert len(compared) == 3 * len(candidates)
        assert {len(side) for pair in compared for side in pair} == {32}


def test_any_of_several_candidates_will_do() -> None:
    """A database may pass on a key of its own in one header, and ours in another."""
    assert name_of(variable("a=one"), "theirs", "one") == "a"
    assert name_of(variable("a=one"), "theirs", "wrong") is None
    assert name_of(variable("a=one")) is None


# a file that changes


class File:
    """A file of keys, the keyring of it, and its clock."""

    def __init__(self, path: Path, text: str) -> None:
        self.path, self.now = path, 0.0
        path.write_text(text)
        read, version = keys._read(path)
        self.keyring = Keyring(read, path, version, clock=lambda: self.now)

    def replaced_by(self, text: str) -> None:
        """As editors and Kubernetes do it."""
        new = self.path.with_suffix(".new")
        new.write_text(text)
        new.replace(self.path)

    def found(self, *given: str) -> list[str | None]:
        return [name_of(self.keyring, key) for key in given]


@pytest.fixture
def file(tmp_path: Path) -> File:
    return File(tmp_path / "keys", "alice=one\nbob=two\n")


def test_a_file_that_changes_is_read_again(file: File, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    file.replaced_by("alice=one\ncarol=three\n")
    file.now = CHECK_S / 2
    assert file.found("one", "two", "three") == ["alice", "bob", None], "it was looked at a moment ago"
    file.now = CHECK_S
    assert file.found("one", "two", "three") == ["alice", None, "carol"]
    assert [record.getMessage() for record in caplog.records] == [
        f"{file.path} has changed: 2 keys (alice, carol)",
    ]


def test_a_file_that_is_written_in_place_is_read_again(file: File) -> None:
    size = file.path.stat().st_size
    file.path.write_text("alice=one\nbob=now\n")
    assert file.path.stat().st_size == size
    os.utime(file.path, ns=(0, file.keyring._version[0] + 1))  # type: ignore[index]
    file.now = CHECK_S
    assert file.found("two", "now") == [None, "bob"]


@pytest.mark.parametrize("broken", ["", f"alice=one {SECRET}\n", None], ids=["empty", "nonsense", "gone"])
def test_a_broken_file_leaves_the_old_keys_in_force_and_is_logged_once(
    file: File, broken: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    if broken is None:
        file.path.unlink()
    else:
        file.replaced_by(broken)
    for second in range(1, 4):
        file.now = second * CHECK_S
        assert file.found("one", "two") == ["alice", "bob"]
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert str(file.path) in record.getMessage()
    assert record.getMessage().endswith("The 2 keys from before stay in force.")
    assert SECRET not in record.getMessage()
    file.replaced_by("alice=new\n")
    file.now = 9 * CHECK_S
    assert file.found("one", "new") == [None, "alice"]


def test_a_file_is_not_looked_at_more_often_than_needed(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[Path] = []
    real = keys._version

    def look(path: Path) -> object:
        looks.append(path)
        return real(path)

    monkeypatch.setattr(keys, "_version", look)
    for tick in range(40):
        file.now = tick * CHECK_S / 10
        file.found("one", "none")
    assert len(looks) == 3
