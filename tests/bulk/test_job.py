"""Jobs into folders of parts: all rows once, in order, whatever happens between."""

from __future__ import annotations

import asyncio
import json
from io import StringIO
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iei.bulk.locks import locked
from iei.bulk.manifest import OtherJob, Shard
from iei.bulk.options import BulkOptions
from iei.bulk.parts import temporary_of
from iei.errors import StartupError
from tests.bulk.jobs import DIMENSION, Known, Listed, job, names_in, numbers, rows_in, run, vector_of


def ids(folder: Path) -> list[str]:
    return [row["id"] for row in rows_in(folder)]


def places(count: int) -> list[str]:
    return [str(place) for place in range(count)]


def test_parts_have_all_rows_once_and_in_order(tmp_path: Path) -> None:
    run(tmp_path / "out", Listed(numbers(25)))
    assert names_in(tmp_path / "out") == [".iei", "part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    rows = rows_in(tmp_path / "out")
    assert [row["id"] for row in rows] == places(25)
    assert all(row["embedding"] == vector_of(data).tolist() for row, data in zip(rows, numbers(25), strict=True))
    assert (rows[0]["width"], rows[0]["height"], rows[0]["error"]) == (3, 2, None)


def test_the_schema_carries_the_fingerprint(tmp_path: Path) -> None:
    run(tmp_path, Listed(numbers(3)))
    schema = pq.read_schema(tmp_path / "part-00000.parquet")
    assert schema.field("embedding").type == pa.list_(pa.float32(), DIMENSION)
    assert orjson.loads(schema.metadata[b"iei"]) == {
        "model": "known",
        "versions": {"torch": "2"},
        "encoding": "float32",
    }


def test_a_second_run_computes_nothing(tmp_path: Path) -> None:
    run(tmp_path, Listed(numbers(25)))
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in names_in(tmp_path) if name != ".iei"}
    again = run(tmp_path, Listed(numbers(25)), computer := Known())
    assert (computer.computed, again.tally.rows, again.tally.passed) == ([], 0, 25)
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in before} == before


@pytest.mark.parametrize("lost", ["file", "line", "half a line", "half a file"])
def test_a_part_that_is_not_whole_is_made_again(tmp_path: Path, lost: str) -> None:
    run(tmp_path, Listed(numbers(25)))
    part, manifest = tmp_path / "part-00002.parquet", tmp_path / ".iei/manifest-0-of-1.jsonl"
    lines = manifest.read_bytes().splitlines(keepends=True)
    match lost:
        case "file":
            part.unlink()
        case "line":
            manifest.write_bytes(b"".join(lines[:-1]))
        case "half a line":
            manifest.write_bytes(b"".join(lines)[:-20])
        case "half a file":
            part.write_bytes(part.read_bytes()[:-50])
    again = run(tmp_path, Listed(numbers(25)), computer := Known())
    assert computer.computed == numbers(25)[20:]
    assert again.tally.passed == 20
    assert ids(tmp_path) == places(25)
    assert len(manifest.read_bytes().splitlines()) >= 4
    assert all(json.loads(line) for line in manifest.read_bytes().splitlines())


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    left = temporary_of(tmp_path / "part-00001.parquet")
    left.write_bytes(b"PAR1")
    run(tmp_path, Listed(numbers(5)))
    assert not left.exists()


def test_another_way_to_compute_is_refused_with_what_differs(tmp_path: Path) -> None:
    run(tmp_path, Listed(numbers(5)))
    other = Known(model="other", versions={"torch": "3"})
    with pytest.raises(OtherJob, match=r"model \('known' there, 'other' now\); versions.torch \('2' there, '3' now\)"):
        run(tmp_path, Listed(numbers(5)), other)
    with pytest.raises(OtherJob, match=r"encoding \('float32' there, 'int8' now\); part_size \(10 there, 7 now\)"):
        run(tmp_path, Listed(numbers(5)), options=BulkOptions(encoding="int8"), part_size=7)


def test_another_input_is_refused(tmp_path: Path) -> None:
    run(tmp_path, Listed(numbers(25)))
    changed = [*places(12), "new", *places(25)[13:]]
    with pytest.raises(OtherJob, match=r"part-00001.parquet was made of other items .* '10' to '19'"):
        run(tmp_path, Listed(numbers(25), changed))
    with pytest.raises(OtherJob, match=r"part-00002.parquet was made of items that the input does not have any more"):
        run(tmp_path, Listed(numbers(20)))


def test_shards_together_make_what_one_run_makes(tmp_path: Path) -> None:
    run(tmp_path / "one", Listed(numbers(45)))
    for index in (2, 0, 1):
        made = run(tmp_path / "three", Listed(numbers(45)), shard=Shard(index, 3))
        assert made.tally.rows == Shard(index, 3).items(45, 10)
    files = [name for name in names_in(tmp_path / "one") if name != ".iei"]
    assert [name for name in names_in(tmp_path / "three") if name != ".iei"] == files
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "three" / name).read_bytes()


def test_what_one_division_began_another_goes_on_with(tmp_path: Path) -> None:
    run(tmp_path, Listed(numbers(45)), shard=Shard(0, 2))
    run(tmp_path, Listed(numbers(45)), computer := Known())
    assert len(computer.computed) == 20
    assert ids(tmp_path) == places(45)


def test_two_runs_at_once_are_refused_unless_they_are_different_shards(tmp_path: Path) -> None:
    with locked(tmp_path, Shard(0, 2)):
        with locked(tmp_path, Shard(1, 2)):
            pass
        for shard in (Shard(0, 2), Shard(0, 1), Shard(1, 3)):
            with pytest.raises(StartupError, match="another run works in"), locked(tmp_path, shard):
                pass
    with locked(tmp_path, Shard(0, 1)):
        pass


def test_a_bad_item_has_an_error_and_its_place(tmp_path: Path) -> None:
    contents = numbers(12)
    contents[3] = b"bad"
    made = run(tmp_path, Listed(contents), max_error_rate=1)
    row = rows_in(tmp_path)[3]
    assert (row["id"], row["embedding"], row["error"]) == ("3", None, "is bad: very much so")
    assert made.tally.causes == {"is bad": 1}


def test_errors_go_to_a_file_of_all_errors_of_the_job(tmp_path: Path) -> None:
    contents = [b"bad0", *numbers(20), b"bad1"]
    file = tmp_path / "errors.jsonl"
    run(tmp_path / "out", Listed(contents), errors_file=file)
    assert [json.loads(line)["id"] for line in file.read_text().splitlines()] == ["0", "21"]
    (tmp_path / "out/part-00002.parquet").unlink()
    run(tmp_path / "out", Listed(contents), errors_file=file)
    assert [json.loads(line)["id"] for line in file.read_text().splitlines()] == ["0", "21"]


def test_errors_are_tried_again_alone(tmp_path: Path) -> None:
    contents = numbers(25)
    contents[3], contents[9], contents[21] = b"bad3", b"bad9", b"bad21"
    run(tmp_path, Listed(contents))
    made = run(tmp_path, Listed(contents), computer := Known(bad=b"bad9"), retry_errors=True)
    assert computer.computed == [b"bad3", b"bad9", b"bad21"]
    rows = rows_in(tmp_path)
    assert [row["id"] for row in rows] == places(25)
    assert [row["id"] for row in rows if row["error"]] == ["9"]
    assert rows[3]["embedding"] == vector_of(b"bad3").tolist()
    assert (made.tally.errors, made.tally.passed_errors, made.tally.items) == (1, 0, 25)
    assert sum(part.errors for part in made.finished) == 1


def test_copies_have_no_row_also_after_a_kill(tmp_path: Path) -> None:
    contents = [*numbers(8), *numbers(8), b"bad", b"bad", b"last"]
    made = run(tmp_path, Listed(contents), dedup=True)
    assert ids(tmp_path) == [*places(8), "16", "18"]
    assert (made.tally.duplicates, made.tally.items) == (9, 19)
    (tmp_path / "part-00001.parquet").unlink()
    run(tmp_path, Listed(contents), computer := Known(), dedup=True)
    assert computer.computed == [b"bad", b"last"]
    assert ids(tmp_path) == [*places(8), "16", "18"]
    run(tmp_path, Listed(contents), Known(bad=None), dedup=True, retry_errors=True)
    assert [row["error"] for row in rows_in(tmp_path)] == [None] * 10


def test_the_first_error_may_end_the_job(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"^13: is bad"):
        run(tmp_path, Listed([*numbers(13), b"bad"]), on_error="stop")
    assert names_in(tmp_path) == [".iei", "part-00000.parquet"]


def test_too_many_errors_end_the_job(tmp_path: Path) -> None:
    contents = [*numbers(120), *([b"bad"] * 50)]
    with pytest.raises(StartupError, match=r"7 of 127 rows are errors, over the limit of 0.05"):
        run(tmp_path, Listed(contents))
    assert ids(tmp_path) == places(120)
    with pytest.raises(StartupError, match=r"the last 100 rows are all errors"):
        run(tmp_path / "gone", Listed([*numbers(120), *([b"bad"] * 150)]), max_error_rate=0.9)
    run(tmp_path, Listed(contents), max_error_rate=1)
    assert len(rows_in(tmp_path)) == 170


def test_columns_are_kept_with_the_types_of_the_first_rows(tmp_path: Path) -> None:
    options = BulkOptions(keep=("label",))
    run(tmp_path / "out", Listed(numbers(15), kept=[None, 7] * 7 + [8]), options=options)
    assert [row["label"] for row in rows_in(tmp_path / "out")] == [None, 7] * 7 + [8]
    late = ["a"] * 120 + [3]
    with pytest.raises(StartupError, match="'label', which is kept, is string at first and not later"):
        run(tmp_path / "late", Listed(numbers(121), kept=late), options=options)
    assert len(names_in(tmp_path / "late")) == 13
    with pytest.raises(StartupError, match="'label' can't be kept"):
        run(tmp_path / "mixed", Listed(numbers(2), kept=["a", 3]), options=options)


def test_lines_have_the_vectors_and_no_copies() -> None:
    out = StringIO()
    made = job(Listed([*numbers(3), *numbers(3), b"bad"]), dedup=True)
    asyncio.run(made.into_lines(out, lambda row: {"id": row.id, "embedding": row.embedding}))
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert lines == [{"id": str(place), "embedding": vector_of(data).tolist()} for place, data in enumerate(numbers(3))]
    assert (made.tally.duplicates, made.tally.errors) == (3, 1)
