"""Tables: which column is embedded, what its values are, and what becomes of damaged files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from iei.errors import StartupError
from tests.bulk.sources.reading import contents, ids, opened, until_stopped
from tests.pictures import base64_of, png

PICTURE = png()


def parquet(file: Path, /, **columns: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), file, row_group_size=1000)
    return file


@pytest.mark.parametrize("type_", [pa.binary(), pa.large_binary(), pa.binary_view()])
def test_bytes(tmp_path: Path, type_: Any) -> None:
    file = parquet(tmp_path / "x.parquet", picture=pa.array([PICTURE, None, b""], type_), label=["a", "b", "c"])
    source = opened(file, keep=["label"])
    assert contents(source) == [PICTURE, "error:is null", "error:is empty"]
    assert ids(source) == ["x.parquet/0", "x.parquet/1", "x.parquet/2"]
    assert [item.kept for item in source] == [{"label": "a"}, {"label": "b"}, {"label": "c"}]
    assert source.total == 3


def test_the_structs_of_hugging_face(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PICTURE)
    values = [
        {"bytes": PICTURE, "path": "x.png"},
        {"bytes": None, "path": "a.png"},
        {"bytes": None, "path": None},
        None,
    ]
    file = parquet(tmp_path / "train.parquet", caption=["a", "b", "c", "d"], image=values)
    assert contents(opened(file)) == [PICTURE, PICTURE, "error:is null", "error:is null"]
    assert contents(opened(file, modality="text")) == ["a", "b", "c", "d"]


def test_strings_are_what_they_look_like_or_what_the_modality_says(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PICTURE)
    uri = f"data:image/png;base64,{base64_of(PICTURE)}"
    addresses = ["a.png", str(tmp_path / "a.png"), "https://example.com/a?b", uri, "data:image/png;base64,!", None]
    file = parquet(tmp_path / "x.parquet", where=addresses)
    for modality in (None, "image"):
        *pictures, damaged, missing = contents(opened(file, modality=modality))
        assert pictures == [PICTURE, PICTURE, "url:https://example.com/a?b", PICTURE]
        assert damaged.startswith("error:is not base64")
        assert missing == "error:is null"
    texts = parquet(tmp_path / "texts.parquet", caption=["a cat", "", None])
    assert contents(opened(texts)) == ["a cat", "error:is empty", "error:is null"]
    mixed = parquet(tmp_path / "mixed.parquet", value=["a.png", "a cat on a mat"])
    with pytest.raises(
        StartupError, match=r"addresses of pictures \('a.png'\) and others \('a cat on a mat'\): say what"
    ):
        opened(mixed)
    assert contents(opened(mixed, modality="text")) == ["a.png", "a cat on a mat"]


def test_relative_paths_begin_at_the_table_or_where_the_command_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.png").write_bytes(PICTURE)
    monkeypatch.chdir(tmp_path)
    assert contents(opened(parquet(tmp_path / "photos/x.parquet", path=["a.png"]))) == [PICTURE]
    assert contents(opened(parquet(tmp_path / "lists/x.parquet", path=["photos/a.png"]))) == [PICTURE]


def test_the_column_is_named_or_the_only_one_or_told_by_its_name(tmp_path: Path) -> None:
    file = parquet(tmp_path / "x.parquet", title=["t"], text=["a"], note=["n"])
    assert contents(opened(file)) == ["a"]
    assert contents(opened(f"{file}:note")) == ["n"]
    with pytest.raises(StartupError, match=r"x\.parquet has no column 'none', but the columns title, text, note\.$"):
        opened(f"{file}:none")
    with pytest.raises(StartupError, match=r"has no column 'z'"):
        opened(file, keep=["z"])
    unclear = parquet(tmp_path / "unclear.parquet", p=["a"], q=["b"])
    with pytest.raises(StartupError, match=r"has the columns p, q: name the one that is embedded .*parquet:COLUMN"):
        opened(unclear)
    numbers = parquet(tmp_path / "numbers.parquet", n=[1.5])
    with pytest.raises(StartupError, match="column 'n' has neither bytes"):
        opened(f"{numbers}:n")
    with pytest.raises(StartupError, match="the modality is text"):
        opened(f"{parquet(tmp_path / 'b.parquet', b=[PICTURE])}:b", modality="text")


def test_ids_are_a_column_or_numbers_of_rows(tmp_path: Path) -> None:
    file = parquet(tmp_path / "x.parquet", id=[7, None, 9], key=["a", "b", "c"], score=[0.1, 0.2, 0.3], text=["x"] * 3)
    assert ids(opened(file)) == ["7", "x.parquet/1", "9"]
    assert ids(opened(file, id_column="key")) == ["a", "b", "c"]
    assert ids(opened(f"{file}:key", id_column="key", keep=["key"])) == ["a", "b", "c"]
    with pytest.raises(StartupError, match="ids are strings or whole numbers; column 'score' has neither"):
        opened(file, id_column="score")


def test_patterns_and_folders_of_tables(tmp_path: Path) -> None:
    for number in range(3):
        parquet(tmp_path / f"data/part-{number}.parquet", text=[f"{number}"])
    expected = [f"part-{number}.parquet/0" for number in range(3)]
    for written in ("data/*.parquet", "data/part-{0..2}.parquet", "data", "data/:text", "data/*.parquet:text", ":text"):
        assert ids(opened(f"{tmp_path}/{written}")) == expected, written
    parquet(tmp_path / "more/part-0.parquet", text=["a"])
    same_names = ids(opened(tmp_path / "data/part-0.parquet", tmp_path / "more/part-0.parquet"))
    assert same_names == [f"{tmp_path}/data/part-0.parquet/0", f"{tmp_path}/more/part-0.parquet/0"]
    with pytest.raises(StartupError, match=r"no pictures below .* \(4 other files: 4 \.parquet\)"):
        opened(tmp_path)
    with pytest.raises(StartupError, match="no file matches"):
        opened(tmp_path / "data/*.csv")


def test_a_damaged_table_is_named_and_what_is_before_it_counts(tmp_path: Path) -> None:
    file = parquet(tmp_path / "x.parquet", text=[f"{number}" for number in range(20_000)])
    data = bytearray(file.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 500] = b"\xff" * 500
    file.write_bytes(data)
    seen, sentence = until_stopped(opened(file))
    assert 1_000 < len(seen) < 19_999
    assert sentence.startswith(f"{file} is damaged, or not a Parquet file: ")
    file.write_bytes(b"no Parquet")
    with pytest.raises(StartupError, match="is damaged, or not a Parquet file"):
        opened(file)


def test_a_row_group_is_not_read_whole(tmp_path: Path) -> None:
    """Row groups of datasets have 1,000 pictures or more."""
    noise = [bytes([number % 251]) * 500_000 + number.to_bytes(4, "big") for number in range(80)]
    file = tmp_path / "x.parquet"
    pq.write_table(pa.table({"image": noise}), file, write_batch_size=10, compression="none", use_dictionary=False)
    del noise
    before, peak = pa.total_allocated_bytes(), 0
    for _ in opened(file):
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert file.stat().st_size > 40_000_000
    assert peak < 20_000_000


@pytest.mark.parametrize("name", ["x.arrow", "x.feather", "stream.arrow"])
def test_files_of_arrow(tmp_path: Path, name: str) -> None:
    table = pa.table({"image": [{"bytes": PICTURE, "path": None}] * 2, "n": pa.array(["a", "b"]).dictionary_encode()})
    path = tmp_path / name
    if name == "x.feather":
        pyarrow.feather.write_feather(table, path)
    else:
        new = pa.ipc.new_stream if name == "stream.arrow" else pa.ipc.new_file
        with new(path, table.schema) as writer:
            writer.write_table(table)
    source = opened(path, keep=["n"])
    assert contents(source) == [PICTURE, PICTURE]
    assert [item.kept["n"] for item in source] == ["a", "b"]
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(StartupError, match="is damaged, or not an Arrow file"):
        opened(path)


def test_csv_and_tsv(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PICTURE)
    file = tmp_path / "urls.csv"
    file.write_bytes('\ufeffname,where\n"a, b",a.png\n\nc,https://example.com/ü.png\nd\n'.encode())
    source = opened(f"{file}:where", keep=["name"])
    assert contents(source) == [PICTURE, "url:https://example.com/ü.png", "error:is null"]
    assert [item.kept["name"] for item in source] == ["a, b", "c", "d"]
    assert ids(source) == ["urls.csv/0", "urls.csv/1", "urls.csv/2"]
    tabs = tmp_path / "texts.tsv"
    tabs.write_text(f'id\ttext\n5\ta, "cat" {"x" * 200_000}\n')
    assert ids(opened(tabs)) == ["5"]
    with pytest.raises(StartupError, match="has no column 'url', but the columns name, where"):
        opened(f"{file}:url")
    file.write_bytes(b"name\na cat\n" * 9 + b"\xff\xfe\n")
    with pytest.raises(StartupError, match=r"urls\.csv is damaged, or not a CSV file: 'utf-8' codec"):
        list(opened(file))
