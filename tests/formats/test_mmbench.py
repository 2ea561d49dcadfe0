from __future__ import annotations

import base64

import pytest
from openpyxl import load_workbook

from backend.errors import InputError
from backend.formats.mmbench import (
    COLUMNS,
    Answer,
    Row,
    read_answers,
    read_rows,
    write_rows,
    write_upload,
)

IMAGE = base64.b64encode(b"\xff\xd8 picture").decode()


def row(index: int, **changes) -> Row:
    values = {
        "question": 'Which "one"?\tTwo\nlines',
        "options": {"A": "red", "B": "blue", "C": "2"},
        "answer": "B",
        "image": IMAGE,
        "hint": "Look.",
        "category": "color",
        "l2_category": "attribute_reasoning",
        "source": "made",
        "split": "dev",
    }
    return Row(index=index, **(values | changes))


def test_rows_survive_a_round_trip_with_tabs_quotes_and_line_breaks(tmp_path):
    rows = [row(7), row(1_000_007, hint=None, options={"A": "x", "B": "y", "C": "z", "D": "w"})]
    write_rows(tmp_path / "q.tsv", rows)
    assert list(read_rows(tmp_path / "q.tsv")) == rows
    assert rows[1].base == 7
    assert rows[0].image_bytes() == b"\xff\xd8 picture"


def test_pandas_reads_what_is_written_as_the_kit_does(tmp_path):
    import pandas

    write_rows(tmp_path / "q.tsv", [row(7)])
    table = pandas.read_table(tmp_path / "q.tsv")
    assert tuple(table.columns) == COLUMNS
    assert table.iloc[0]["question"] == 'Which "one"?\tTwo\nlines'
    assert pandas.isna(table.iloc[0]["D"])


def test_a_picture_larger_than_the_usual_field_limit_is_read(tmp_path):
    large = base64.b64encode(b"\xff" * 400_000).decode()
    write_rows(tmp_path / "q.tsv", [row(1, image=large)])
    assert [entry.image for entry in read_rows(tmp_path / "q.tsv")] == [large]
    assert [entry.image for entry in read_rows(tmp_path / "q.tsv", images=False)] == [""]


def write(path, *lines: str):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


HEADER = "index\tquestion\tA\tB\tC\tanswer\timage"


def test_options_end_at_the_first_one_that_is_nothing(tmp_path):
    path = write(
        tmp_path / "q.tsv", HEADER, "1\tq\tred\tnone\tblue\tA\tx", "2\tq\tN/A is\tb\t\tA\tx"
    )
    assert [entry.options for entry in read_rows(path)] == [{"A": "red"}, {"A": "N/A is", "B": "b"}]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["index\tquestion\tA"], "line 1: the columns B, image are missing"),
        ([HEADER, "one\tq\ta\tb\t\tA\tx"], "line 2, field index: .*whole number"),
        ([HEADER, "1\tq\ta\tb\t\tA\tx", "2\tq\ta\tb\t\tE\tx"], "line 3, field answer"),
        ([HEADER, "1\tq\ta\tb\t\tA"], "line 2: the row has more or fewer cells"),
        ([HEADER, "1\tq\t\tb\t\tA\tx"], "line 2, field A: the question has no options"),
        ([HEADER, '1\t"q" x\ta\tb\t\tA\tx'], "line 2: this is not a TSV row"),
    ],
)
def test_a_malformed_row_is_named(tmp_path, lines, message):
    with pytest.raises(InputError, match=message):
        list(read_rows(write(tmp_path / "q.tsv", *lines)))


def test_an_image_that_is_not_base64_is_named():
    with pytest.raises(InputError, match="question 5, field image: the image is not base64"):
        row(5, image="§§").image_bytes()
    with pytest.raises(InputError, match="empty"):
        row(5, image="").image_bytes()


def test_the_upload_sheet_has_the_columns_of_the_kit_and_no_formulas(tmp_path):
    path = tmp_path / "up.xlsx"
    write_upload(path, [row(7), row(8), row(9)], {7: "=1+1", 9: "bad\x00\x0bcell"})
    sheet = load_workbook(path).worksheets[0]
    cells = [[cell.value for cell in line] for line in sheet.iter_rows()]
    assert cells[0] == ["index", "question", *"ABCD", "prediction", "answer", "split"]
    assert cells[1] == [7, row(7).question, "red", "blue", "2", None, "=1+1", "B", "dev"]
    assert sheet.cell(2, 7).data_type == "s"
    assert [line[0] for line in cells[1:]] == [7, 9]
    assert cells[2][6] == "badcell"


def test_answers_survive_a_round_trip(tmp_path):
    import json

    answer = Answer(1_000_007, "A", "p", ("red", "blue"), ("A", "B"), 0, "m", "id")
    path = write(tmp_path / "a.jsonl", json.dumps(answer.line()))
    [found] = read_answers(path)
    assert found.line() == answer.line()
