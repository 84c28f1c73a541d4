import codecs
import csv
import gzip
import io
import json
import sys

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mop.data import read_examples
from mop.errors import BadRows, DataError, SettingsError
from mop.examples import Example


def read(text, **options):
    content = text.encode() if isinstance(text, str) else text
    return read_examples(io.BytesIO(content), **options)


def problems(text, **options):
    with pytest.raises(BadRows) as caught:
        read(text, **options)
    return {problem.position: problem.reason for problem in caught.value.problems}


def error(source, kind=DataError, **options):
    with pytest.raises(kind) as caught:
        read_examples(source, **options)
    return str(caught.value)


def parquet(**columns):
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), buffer)
    return buffer.getvalue()


def test_a_json_line_gives_an_example():
    assert read('{"input": "hot", "output": "cold", "extra": 1}\n') == [Example("hot", ("cold",))]


def test_a_list_of_answers_is_kept_in_order_without_repeats():
    assert read('{"input": "hot", "output": ["cold", "chilly", "cold"]}')[0].outputs == ("cold", "chilly")


@pytest.mark.parametrize("spelling", ["7", "0.10", "1e5", "9" * 5000, "true", "false"])
def test_numbers_and_booleans_become_text_as_spelled(spelling):
    assert read(f'{{"input": "q", "output": {spelling}}}')[0].outputs == (spelling,)


def test_line_separators_of_unicode_do_not_end_a_json_line():
    assert read('{"input": "a\u2028b\x85c", "output": "d"}\n')[0].input == "a\u2028b\x85c"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.jsonl", b'{"input": "hot", "output": ["cold", "chilly"], "split": "dev"}\r\n\r\n'),
        ("x.NDJSON", b'\xef\xbb\xbf{"input": "hot", "output": ["cold", "chilly"], "split": "valid"}'),
        ("x.json", b'{"input": "hot", "output": ["cold", "chilly"], "split": " Validation "}'),
        ("x.csv", b'\xef\xbb\xbfsplit,input,output\r\n\r\nval,hot,"[""cold"", ""chilly""]"\r\n'),
        ("x.tsv", b'input\toutput\tsplit\nhot\t"[""cold"", ""chilly""]"\tvalidation\n'),
        ("x.csv.gz", gzip.compress(b'input,output,split\nhot,"[""cold"", ""chilly""]",val\n', mtime=0)),
        ("x.jsonl.GZ", gzip.compress(b'{"input": "hot", "output": ["cold", "chilly"], "split": "val"}', mtime=0)),
        ("x.parquet", parquet(input=["hot"], output=[["cold", "chilly"]], split=["val"])),
    ],
)
def test_every_format_is_told_by_its_suffix_and_says_the_same(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    assert read_examples(path) == [Example("hot", ("cold", "chilly"), "validation")]
    assert read_examples(str(path)) == read_examples(path)


def test_standard_input_is_json_lines_unless_told_otherwise(monkeypatch):
    for content, options in [
        (b'{"input": "a", "output": "b"}', {}),
        (b"input,output\na,b", {"format": "csv"}),
    ]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        assert read_examples("-", **options) == [Example("a", ("b",))]


def test_an_open_file_is_read_in_the_format_of_its_name(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("input,output\na,b\n")
    with path.open("rb") as file:
        assert read_examples(file) == [Example("a", ("b",))]
    with path.open() as file:
        assert 'mode "rb"' in error(file, SettingsError)


def test_columns_can_be_named():
    text = "Question,Label,fold\nq,a,train\n"
    options = {"input_column": "Question", "output_column": "Label", "split_column": "fold"}
    assert read(text, format="csv", **options) == [Example("q", ("a",), "train")]


def test_a_blank_split_leaves_the_example_unassigned():
    assert [e.split for e in read("input,output,split\na,b,\nc,d,test\n", format="csv")] == [None, "test"]


@pytest.mark.parametrize("cell", ["[1, 2]", "[see note", "[]x", '{"a": 1}', "007", " padded "])
def test_a_csv_cell_that_is_no_list_of_strings_is_one_answer_as_it_stands(cell):
    out = io.StringIO()
    csv.writer(out).writerows([["input", "output"], ["q", cell]])
    assert read(out.getvalue(), format="csv")[0].outputs == (cell,)


def test_a_csv_cell_longer_than_the_usual_limit_of_the_csv_module_is_read():
    limit = csv.field_size_limit()
    assert len(read(f"input,output\n{'x' * 200_000},b\n", format="csv")[0].input) == 200_000
    assert csv.field_size_limit() == limit


def test_every_bad_json_row_is_reported_with_its_line_and_reason():
    lines = [
        b'{"input": "fine", "output": "fine"}',
        b'{"input": " ", "output": []}',
        b"",
        b'{"input": 5, "output": {"a": 1}}',
        b'{"input": "caf\xe9", "output": "x"}',
        b'{"input": "x", "output": ',
        b'["input", "output"]',
        b'{"input": "x"}',
        b'{"input": "x", "output": "y", "split": "holdout"}',
        b'{"input": "x", "output": ["y", "", null, [1]]}',
        b'{"input": "\\ud83d", "output": "nul \\u0000"}',
        b'{"input": "x", "output": NaN}',
        b"[" * 100_000,
        b'{"input": "x", "output": null}',
    ]
    found = problems(b"\n".join(lines))
    assert list(found) == [2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]
    assert found[2] == "the input is empty; no answer"
    assert "input has the wrong type: expected text, got the number '5'" in found[4]
    assert "answer has the wrong type: expected text or a number, got an object" in found[4]
    assert found[5] == "not UTF-8 (byte 0xe9, number 15 of the line)"
    assert found[6].startswith("malformed JSON")
    assert found[7].startswith("expected a JSON object")
    assert found[8] == "no column 'output'"
    assert found[9].startswith("unknown split 'holdout'; expected train, validation")
    assert "answer 2 is empty; answer 3 is empty; answer 4 has the wrong type" in found[10]
    assert "half of a surrogate pair" in found[11]
    assert "NUL" in found[11]
    assert found[12] == "malformed JSON: NaN is not a JSON value"
    assert found[13].startswith("malformed JSON")
    assert found[14] == "no answer"


def test_every_bad_csv_row_is_reported_with_the_line_on_which_it_starts():
    text = b'input,output\n"two\nlines",ok\na,b,c\nd\n,\ncaf\xe9,x\ne,[]\n"q"uote,x\nfine,fine\n'
    text += b'bad,"never closed\nx,y\n'
    found = problems(text, format="csv")
    assert list(found) == [4, 5, 6, 7, 8, 9, 11]
    assert found[4] == "too many cells: 3, but the header has 2"
    assert found[5] == "too few cells: 1, but the header has 2"
    assert found[6] == "the input is empty; no answer"
    assert found[7] == "not UTF-8"
    assert found[8] == "no answer"
    assert found[9].startswith("the quotes do not match")
    assert found[11].startswith("the quotes do not match")


def test_bad_parquet_rows_are_reported_by_row():
    found = problems(parquet(input=["a", "", None], output=[1.5, 2.0, None]), format="parquet")
    assert found == {2: "the input is empty", 3: "the input is empty; no answer"}


def test_the_message_counts_all_bad_rows_lists_twenty_and_says_what_to_do():
    text = "\n".join(['{"input": "", "output": "x"}'] * 30 + ['{"input": "a", "output": "x"}'])
    with pytest.raises(BadRows) as caught:
        read(text)
    message = str(caught.value)
    assert message.startswith("30 of the 31 rows of the given file cannot be used:")
    assert "line 20: the input is empty" in message
    assert "line 21:" not in message
    assert "… and 10 more" in message
    assert "Correct or remove them" in message
    assert len(caught.value.problems) == 30


def test_a_missing_column_is_one_error_with_the_columns_there_are_and_the_option():
    message = error(io.BytesIO(b"Question,lable\nq,a\n"), format="csv", output_column="label")
    assert "has no column 'input', 'label'; its columns are 'Question', 'lable'." in message
    assert "--input-column (input_column= in Python); closest: 'Question'" in message
    assert "--output-column (output_column= in Python); closest: 'lable'" in message
    assert "--split-column" in error(io.BytesIO(b'{"input":"a","output":"b"}'), split_column="fold")


def test_a_file_with_another_separator_is_recognized():
    assert "is ';' the separator?" in error(io.BytesIO(b"input;output\na;b\n"), format="csv")


def test_a_column_that_stands_twice_is_an_error():
    assert "more than one column called 'input'" in error(io.BytesIO(b"input,input,output\na,b,c\n"), format="csv")


def test_parquet_columns_whose_names_share_a_stem_are_told_apart():
    content = parquet(**{"output.raw": ["no"], "output": ["yes"], "input": ["q"]})
    assert read(content, format="parquet") == [Example("q", ("yes",))]


@pytest.mark.parametrize("format", ["jsonl", "csv", "tsv", "parquet"])
@pytest.mark.parametrize("content", [b"", b" \n\n", b"\xef\xbb\xbf\n", gzip.compress(b"", mtime=0)])
def test_an_empty_file_is_a_data_error(content, format):
    assert error(io.BytesIO(content), format=format)


@pytest.mark.parametrize("format", ["csv", "tsv"])
def test_a_header_without_rows_is_a_data_error(format):
    assert "no examples" in error(io.BytesIO(b"input,output\n"), format=format)


def test_a_missing_file_a_folder_and_an_unreadable_path_are_data_errors(tmp_path):
    (tmp_path / "animals.csv").write_text("x")
    assert "did you mean 'animals.csv'?" in error(tmp_path / "animal.csv")
    assert "is a folder" in error(tmp_path)
    assert "cannot be read" in error("a\0b.csv")
    assert "cannot be read" in error(tmp_path / "animals.csv" / "x.csv")


def test_an_unknown_suffix_or_format_is_a_settings_error(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text('{"input": "a", "output": "b"}')
    assert "--format" in error(path, SettingsError)
    assert "expected jsonl, csv, tsv or parquet" in error(path, SettingsError, format="xml")
    assert read_examples(path, format="jsonl") == [Example("a", ("b",))]


def test_parquet_without_pyarrow_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert 'pip install "mop[parquet]"' in error(io.BytesIO(b"PAR1"), SettingsError, format="parquet")


def test_utf16_a_json_array_and_damaged_gzip_say_what_they_are():
    assert "UTF-16" in error(io.BytesIO(codecs.BOM_UTF16_LE + "input,output".encode("utf-16-le")), format="csv")
    assert "one JSON array" in error(io.BytesIO(b'[\n  {"input": "a", "output": "b"}\n]'))
    assert "gzip" in error(io.BytesIO(gzip.compress(b"input,output\na,b")[:-9]), format="csv")


@given(st.binary(max_size=300), st.sampled_from(["jsonl", "csv", "tsv", "parquet"]))
def test_arbitrary_bytes_give_examples_or_a_data_error(content, format):
    for start in (
        b"",
        b"input,output\n",
        b"input\toutput\n",
        b'{"input": "a", "output": "b"}\n{',
        b"\x1f\x8b",
    ):
        try:
            examples = read(start + content, format=format)
        except DataError as caught:
            str(caught).encode()
        else:
            assert all(example.input.strip() and all(example.outputs) for example in examples)


usable = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip)


@given(st.lists(st.builds(Example, usable, st.lists(usable, min_size=1, unique=True).map(tuple)), min_size=1))
def test_what_is_written_is_what_is_read(examples):
    lines = [json.dumps({"input": e.input, "output": e.outputs}, ensure_ascii=False) for e in examples]
    assert read("\n".join(lines)) == examples
    for format, delimiter in (("csv", ","), ("tsv", "\t")):
        out = io.StringIO()
        writer = csv.writer(out, delimiter=delimiter)
        writer.writerow(["input", "output"])
        writer.writerows([e.input, json.dumps(e.outputs)] for e in examples)
        assert read(out.getvalue(), format=format) == examples
