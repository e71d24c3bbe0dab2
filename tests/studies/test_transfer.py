"""The study of transfer: which users it keeps, in which order it works, and that it goes on."""

import json
import sys

import pyarrow as pa

from tests.studies import transfer
from tests.studies.transfer import Study
from tests.studies.transfer_cells import (
    DOMAINS,
    FRACTIONS,
    Cell,
    cells,
    in_lower_case,
    kept_users,
    without,
)


def test_a_share_of_users_holds_the_smaller_ones():
    users = [f"u{n}" for n in range(250)]
    few, more, all_of_them = (kept_users(users, fraction, seed=0) for fraction in FRACTIONS)
    assert (len(few), len(more)) == (2, 25) and {*few} < {*more} < {*all_of_them} == {*users}
    assert kept_users(users[::-1], 0.1, seed=0) == more != kept_users(users, 0.1, seed=1)


def test_users_are_left_out_by_either_type_of_id():
    for ids in ([1.0, 2.0, 3.0, None], ["1", "2", "3", None]):
        table = pa.table({"user": ids, "row": [0, 1, 2, 3]})
        assert without(table, "user", ["2", "4"])["row"].to_pylist() == [0, 2, 3]


def test_texts_in_lower_case_stay_in_their_column():
    table = pa.table({"text": ["RED Pen", None, "Ünï"], "row": [0, 1, 2]})
    found = in_lower_case(table, "text")
    assert found.to_pydict() == {"text": ["red pen", None, "ünï"], "row": [0, 1, 2]}


def test_a_cell_comes_after_what_it_needs():
    order = cells(seed=3)
    place = {cell: n for n, cell in enumerate(order)}
    assert len(place) == len(order) == 2 * (1 + 3 + 3 + 2)
    study = Study("raw", "work", lower=False)
    names = {f"{cell.key}-x1": place[cell] for cell in order}
    for cell in order:
        if cell.model != "scratch":
            assert names[study.source_run(cell).name] < place[cell]
        if cell.model == "continued":
            assert place[Cell(cell.target, "scratch", cell.fraction, 3)] < place[cell]


def test_cells_that_are_in_the_file_are_not_made_again(tmp_path, monkeypatch):
    made, (first, *others) = [], cells(0)
    results = tmp_path / "results.jsonl"
    done = vars(first) | {"texts": "as published"}
    results.write_text(json.dumps(done) + "\n")
    monkeypatch.setattr(
        Study, "made", lambda self, cell: made.append(cell) or vars(cell) | {"texts": self.texts}
    )
    for arguments in ("--device=none", "--date=2026-01-02"):
        monkeypatch.setattr(sys, "argv", ["transfer.py", f"--results={results}", arguments])
        transfer.main()
    assert made == others and len(DOMAINS) == 2
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert len(lines) == len(others) + 1 and lines[-1]["device"] == "none"
