"""Tables as the world writes them: what is plain to see is recognised and told, what is not is asked."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from reader_files import fields, read_bytes, troubles

from pipeline.errors import InputError
from pipeline.readers import ReadProgress, TextDialect, peek, resolve_sources

ROWS = [{"id": "a1", "price": "3,50", "text": "großartig"}, {"id": "a2", "price": "4,20", "text": "übel; nie wieder"}]


def told(data: bytes, name: str = "in.csv", **choices: Any) -> tuple[list[Any], list[str]]:
    progress = ReadProgress()
    return fields(read_bytes(data, name, progress=progress, **choices)), progress.format_notes()


def table(delimiter: str) -> str:
    return f"id{delimiter}price{delimiter}text\n" + "".join(
        delimiter.join(f'"{cell}"' if delimiter in cell else cell for cell in row.values()) + "\n" for row in ROWS
    )


@pytest.mark.parametrize(
    ("delimiter", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "pipes"), (",", ""), ("~", "'~'")]
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_delimiters_and_marks_are_recognised_and_told(delimiter: str, name: str, encoding: str) -> None:
    said = {"delimiter": delimiter} if delimiter == "~" else {}
    found, notes = told(table(delimiter).encode(encoding), **said)

    assert found == ROWS
    wanted = [f"in.csv: written in {encoding}, by its byte order mark"] if encoding in ("utf-16", "utf-32") else []
    assert notes == wanted + ([f"in.csv: cells are separated by {name}"] if name and not said else [])


def test_the_line_that_names_the_separator_is_no_record() -> None:
    found, notes = told(b"sep=;\r\nid;text\r\na;x, y\r\n")
    assert (found, notes) == ([{"id": "a", "text": "x, y"}], ["in.csv: cells are separated by semicolons"])
    assert told(b'"sep=~"\nid~text\na~b\n')[0] == [{"id": "a", "text": "b"}]


@pytest.mark.parametrize(
    ("data", "delimiter"),
    [
        (b"id,text\na,x; y\nb,z; w\n", ","),  # every row has a semicolon, but the header has none
        (b"id;text\na;one, two\nb;three\nc;x;y\nd;x\ne;x\nf;x\n", ";"),  # one row is broken: the rest tells
        (b"text\nhello; you there\nbye\n", ","),
        (b"id;text\n", ";"),
        (b'id,text\na,"1;2\n3;4"\nb,x\n', ","),
    ],
)
def test_the_header_decides_with_the_rows(data: bytes, delimiter: str) -> None:
    progress = ReadProgress()
    read_bytes(data, "in.csv", progress=progress)
    assert progress.detected_options.get("delimiter", ",") == delimiter


def test_a_rare_delimiter_is_asked_about_and_never_a_whole_row_for_a_text() -> None:
    data = b"id~text~gold\n1~good shoes~pos\n2~bad lamp~neg\n"
    with pytest.raises(InputError, match=r"look as if '~' separated them; set input\.delimiter = '~' if so, or = ','"):
        read_bytes(data, "in.csv")
    assert told(data, delimiter="~")[0][0] == {"id": "1", "text": "good shoes", "gold": "pos"}
    assert told(data, delimiter=",")[0][0] == {"id~text~gold": "1~good shoes~pos"}
    assert told(b"note: text\nhello\n")[0] == [{"note: text": "hello"}]


def test_what_two_delimiters_would_do_is_asked() -> None:
    data = b"name;first,last\na;b,c\nd;e,f\n"
    with pytest.raises(
        InputError, match=r"in\.csv: its cells may be separated by commas or semicolons: .*input.delimiter"
    ):
        read_bytes(data, "in.csv")
    assert told(data, delimiter=";")[0][0] == {"name": "a", "first,last": "b,c"}


@pytest.mark.parametrize("end", [b"", b"4\tneg\tbye\n", b'5\tpos\t"quoted"\n', b'6\tpos\t"quo"ted\n'])
def test_a_tsv_whose_quotes_do_not_pair_up_has_none(end: bytes) -> None:
    data = b'id\tgold\ttext\n1\tpos\t"I loved it\n2\tneg\tfine\n3\tneg\tawful"\n' + end
    found, notes = told(data, "in.tsv")

    assert [row["text"] for row in found][:3] == ['"I loved it', "fine", 'awful"']
    assert len(found) == data.count(b"\n") - 1
    assert notes == ["in.tsv: quotes are part of the text, for they do not pair up"]


def test_a_tsv_with_quotes_is_read_as_such() -> None:
    data = b'id\ttext\na\t"two\nlines"\nb\t"a ""word"""\nc\t"x\ty"\n'
    assert [row["text"] for row in told(data, "in.tsv")[0]] == ["two\nlines", 'a "word"', "x\ty"]
    assert told(b'id\ttext\na\t"b"\n', "in.tsv", quote="")[0] == [{"id": "a", "text": '"b"'}]
    assert told(b"id,text\na,'b, c'\n", quote="'")[0] == [{"id": "a", "text": "b, c"}]


@pytest.mark.parametrize(
    "line",
    [b"%d\tpos\tfine", b"%d,pos,fine", b"%d,fine", b"fine %d x,pos", b"pos,fine"],
)
def test_lone_quotes_beyond_the_look_merge_no_rows(line: bytes) -> None:
    """Far down in the file a quote is opened, and another one closed two lines later: each line stands for itself."""
    tab = b"\t" in line
    sign = b"\t" if tab else b","
    width = line.count(sign) + 1
    header = sign.join(b"c%d" % number for number in range(width))
    good = [line % number if b"%d" in line else line for number in range(16_000)]
    cells = good[15_000].split(sign)
    at = cells.index(next(cell for cell in cells if cell.startswith(b"fine")))
    for number, quoted in ((15_000, b'"' + cells[at]), (15_002, None)):
        row = good[number].split(sign)
        row[at] = quoted if quoted is not None else row[at] + b'"'
        good[number] = sign.join(row)
    records = read_bytes(b"\n".join([header, *good]), "in.tsv" if tab else "in.csv")

    assert len(records) == 16_000
    assert [number for number, _ in troubles(records)] == [15_002, 15_003, 15_004]
    assert all("a quote is opened and closed again lines later" in message for _, message in troubles(records))


@pytest.mark.parametrize(
    "data",
    [
        b'id,gold,text\n1,pos,"I loved it\n2,neg,fine\n3,neg,awful"\n4,neg,bye\n',
        b'id;text\n1;"I loved it\n2;awful"\n',
        b'text|gold\nfine|pos\nbye|neg\n"I loved it|pos\nso so|neg\nawful"|neg\n',
    ],
)
def test_lone_quotes_near_the_top_are_asked_about(data: bytes) -> None:
    with pytest.raises(InputError, match=r"would make one record of lines \d to \d, .*; set input\.quote"):
        read_bytes(data, "in.csv")
    assert len(fields(read_bytes(data, "in.csv", quote=""))) == data.count(b"\n") - 1


def test_long_texts_over_lines_are_no_lone_quotes() -> None:
    data = b'id,text\nx,"Hello, you\nbye, then"\n1,"First, this\nthen, that 2"\n'
    assert [row["text"] for row in told(data)[0]] == ["Hello, you\nbye, then", "First, this\nthen, that 2"]
    said = b'id,text\n1,"a\n2,b"\n'
    with pytest.raises(InputError):
        read_bytes(said, "in.csv")
    assert fields(read_bytes(said, "in.csv", quote='"')) == [{"id": "1", "text": "a\n2,b"}]


MYSQL = b'id,text,n\n1,"say \\"hi\\", now",5\n2,"a \\\\ b\nand c",\\N\n3,C:\\new,\\\\N\n'
UNQUOTED = b"id\ttext\n1\ta\\\tb\n2\tone\\\ntwo \\n\n3\t\\N\n"


def test_escapes_are_recognised_where_rows_are_even_only_so() -> None:
    found, notes = told(MYSQL)
    assert found == [
        {"id": "1", "text": 'say "hi", now', "n": "5"},
        {"id": "2", "text": "a \\ b\nand c", "n": ""},
        {"id": "3", "text": "C:\\new", "n": "\\N"},
    ]
    assert notes == ["in.csv: a backslash takes the meaning from what follows"]
    assert [row["text"] for row in told(UNQUOTED, "in.tsv")[0]] == ["a\tb", "one\ntwo \\n", ""]
    assert told(MYSQL, escape="\\")[0] == found == told(MYSQL.replace(b"id,", b"id,"))[0]
    with pytest.raises(InputError, match=r"first row \('1', 'a \"b\", c', ''\) looks like a record"):
        told(b'"1","a \\"b\\", c",\\N\n"2","b",\\N\n')
    assert told(MYSQL[: MYSQL.index(b"2,")].replace(b"\\", b"^"), escape="^")[0] == found[:1]
    assert [record.line for record in read_bytes(MYSQL + b'4,"x\\""\n', "in.csv", escape="\\")] == [2, 3, 5, 6]


def test_what_is_no_text_is_refused_whatever_its_name() -> None:
    with pytest.raises(
        InputError, match=r"in\.csv: is not text: [\d,]+ of its first 4,000 bytes are control characters"
    ):
        read_bytes(bytes(range(200)) * 20, "in.csv")
    assert fields(read_bytes(b"id,text\n1,a\0b\n2,\0\n", "in.csv"))[0]["text"] == "a\0b", "some are in many a text"
    assert len(fields(read_bytes(b"id\x01text\n1\x01a\n" * 30, "in.csv", delimiter="\x01"))) == 30


@pytest.mark.parametrize(
    "data",
    [
        b'id,text\n1,"C:\\dir\\"\n2,"a, b"\n',
        b'id,text\n1,"in \\""LaTeX\\"" and \\, so"\n2,x\n',
        b'id,text\n1,say \\"hi\\"\n2,x\\y\n',
        b'id\ttext\n1\t{"a": "x \\"y\\" z"}\n',
    ],
)
def test_a_backslash_that_is_text_stays(data: bytes) -> None:
    found, notes = told(data, "in.tsv" if b"\t" in data else "in.csv")
    assert "\\" in found[0]["text"]
    assert not [note for note in notes if "backslash" in note]


def test_a_backslash_that_may_be_text_is_asked_about() -> None:
    data = b'id\ttext\n1\t"say \\"hi\\" now"\n2\tx\n'
    with pytest.raises(InputError, match=r"set input\.escape to '.' if it does"):
        told(data, "in.tsv")
    assert told(data, "in.tsv", escape="\\", quote='"')[0][0]["text"] == 'say "hi" now'
    assert told(data, "in.tsv", escape="")[0][0]["text"] == '"say \\"hi\\" now"'


SPACED = b'id, text, n\n1, "a, b", 5\n2,  "say ""hi"", now", 6\n3, plain, 7\n'


def test_spaces_before_quotes_are_recognised_where_rows_are_even_only_so() -> None:
    found, notes = told(SPACED)
    assert [row["text"] for row in found] == ["a, b", 'say "hi", now', "plain"]
    assert notes == ["in.csv: spaces around quotes are not part of the cells, nor are spaces after other delimiters"]
    assert told(SPACED, skip_initial_space=True) == (found, [])
    assert told(SPACED.replace(b"a, b", b"ab").replace(b", now", b""))[0][0]["text"] == "ab"
    assert told(SPACED.replace(b", ", b"; "))[0][0]["text"] == "a; b"


@pytest.mark.parametrize(
    "data",
    [
        b'id,text\n1," ""Hello"", she said"\n2," ""Yes"" "\n',
        b'id,text\n1, "Hello" she said\n2, x\n',
        b'id,text\n1, a\n2,"He said: ""no"", and left"\n',
    ],
)
def test_spaces_that_are_text_stay(data: bytes) -> None:
    found, notes = told(data)
    assert found[0]["text"][0] == " "
    assert notes == []


def test_spaces_that_may_be_text_are_asked_about() -> None:
    data = b'id,text\n1, "Hello"\n2, "Hello" she said\n'
    with pytest.raises(InputError, match=r"set input\.skip_initial_space = true if they are around cells, or false"):
        told(data)
    assert told(data, skip_initial_space=False)[0][0]["text"] == ' "Hello"'
    late = b"id,text\n" + b"1,x\n" * 20_000 + b'2, "Hello"\n3," ""Hello"""\n'
    [(line, problem)] = troubles(read_bytes(late, "in.csv"))
    assert (line, "line 20002: a space stands before a quote; set input.skip_initial_space" in problem) == (
        20_002,
        True,
    )


@pytest.mark.parametrize("data", [b'"id" ,"text"\n', b"id,text\n", b'"id" , "text" \r\n'])
def test_spaces_behind_closing_quotes_are_left_out(data: bytes) -> None:
    """Such rows were unreadable, without a hint."""
    data += b'"1" ,"a, b" \n2, "say ""hi"" , now"  \n"3", "two \nlines , x" \n4,plain \n'
    found, notes = told(data)
    assert [row["text"] for row in found] == ["a, b", 'say "hi" , now', "two \nlines , x", "plain "]
    assert [row["id"] for row in found] == ["1", "2", "3", "4"]
    assert notes == ["in.csv: spaces around quotes are not part of the cells, nor are spaces after other delimiters"]
    late = b"id,text\n" + b"1,x\n" * 20_000 + b'"2" ,"a"\n'
    [(_line, problem)] = troubles(read_bytes(late, "in.csv"))
    assert "a space stands after a closing quote: set input.skip_initial_space = true" in problem
    assert told(late, skip_initial_space=True)[0][-1] == {"id": "2", "text": "a"}


def test_a_header_that_may_be_a_comment_is_told() -> None:
    found, notes = told(b"# by me, on Monday\nid,text\n1,a\n")
    assert len(found) == 2
    assert notes == [
        (
            "in.csv: line 1, which names the columns, begins with #: '# by me', ' on Monday'; if that is a comment, "
            "set input.skip_lines = 1; if not, input.header = true"
        )
    ]
    assert told(b"#id,text\n1,a\n", header=True) == ([{"#id": "1", "text": "a"}], [])


TITLES = [
    (b"Report 2024\n\nid,text,n\n1,a,5\n2,b,6\n", 2),
    (b"# by me, of the shop, on Monday, late\nid,text,n\n1,a,5\n2,b,6\n", 1),
    (b"Report 2024,,\n,,\nid,text,n\n1,a,5\n2,b,6\n", 2),
    (b"Umsatz, Mai\n\nid;text;n\n1;a, b;5\n2;b;6\n", 2),
    (b"sep=;\nUmsatz\nid;text;n\n1;a;5\n2;b;6\n", 2),
    (b'"A title\nover lines"\nid,text,n\n1,a,5\n2,b,6\n', 2),
]


@pytest.mark.parametrize(("data", "lines"), TITLES)
def test_lines_before_the_header_are_asked_about_and_can_be_skipped(data: bytes, lines: int) -> None:
    with pytest.raises(
        InputError, match=rf"if these are in line {lines + 1} \('id', 'text', 'n'\), set input\.skip_lines = {lines}"
    ):
        read_bytes(data, "in.csv")
    records = read_bytes(data, "in.csv", skip_lines=lines)
    assert [row["n"] for row in fields(records)] == ["5", "6"]
    assert [record.line for record in records] == [lines + 2, lines + 3]


def test_lines_before_the_header_may_be_in_many_blocks_and_in_another_encoding() -> None:
    data = b"\xff title\n" * 300 + b"id,text\n1,a\n2,\xff\n"
    records = read_bytes(data, "in.csv", skip_lines=300, encoding="utf-8")
    assert [record.line for record in records] == [302, 303]
    assert "line 303: not valid utf-8" in troubles(records)[0][1]


@pytest.mark.parametrize(
    "data", [b",text\n0,a\n1,b\n", b"#id,text\n1,a\n2,b\n", b"text\na; b\nc; d\n", b"id,,\n1,a,b\n"]
)
def test_an_odd_header_is_no_title(data: bytes) -> None:
    if data.startswith(b"id,,"):
        with pytest.raises(InputError):
            read_bytes(data + b"x,y,z\n2,c,d\n", "in.csv")
        assert len(read_bytes(data, "in.csv", header=True)) == len(read_bytes(data, "in.csv", skip_lines=0)) == 1
    else:
        assert fields(read_bytes(data, "in.csv"))


def test_one_column_with_commas_is_told_how_it_is_read() -> None:
    data = b"text\nHello, you\nfine\nyes, no, maybe\n"
    with pytest.raises(
        InputError, match=r"line 2 has 2 \('Hello', 'you'\); if it has one column, set input\.delimiter = 'tab'"
    ):
        read_bytes(data, "in.csv")
    assert fields(read_bytes(data, "in.csv", delimiter="\t"))[2] == {"text": "yes, no, maybe"}
    with pytest.raises(
        InputError, match=r"set input\.skip_lines = 1; if it has one column, set input\.delimiter = '\|'"
    ):
        read_bytes(b"text\nHello, you\tall\nHi, there\n", "in.csv")
    late = b"text\n" + b"x\n" * 40_000 + b"a, b\n"
    assert "input.delimiter" in troubles(read_bytes(late, "in.csv"))[0][1]


def test_columns_without_a_name_and_with_one_twice_get_one() -> None:
    found, notes = told(b",text,text,\n0,a,b,c\n")
    assert found == [{"column_1": "0", "text": "a", "text_2": "b", "column_4": "c"}]
    assert notes == [
        "in.csv: column 1 has no name and is called 'column_1'",
        "in.csv: two columns are named 'text': column 3 is called 'text_2'",
        "in.csv: column 4 has no name and is called 'column_4'",
    ]
    assert list(told(b"a,a_2,a,\nx,y,z,w\n")[0][0]) == ["a", "a_2", "a_3", "column_4"]


def test_repeated_headers_of_joined_files_are_left_out_and_told() -> None:
    progress = ReadProgress()
    records = read_bytes(b"id,text\na,b\nid,text\nc,d\nid,text\n", "in.csv", progress=progress)
    assert [record.line for record in records] == [2, 4]
    assert progress.format_notes() == ["in.csv: rows that repeat the header are left out"]
    for header in ("\ufeffid,text\n", '\ufeff"id","text"\n', "\ufeff\ufeffid,text\n"):
        found = read_bytes(f"{header}a,b\n{header}c,d\n".encode(), "in.csv")
        assert fields(found) == [{"id": "a", "text": "b"}, {"id": "c", "text": "d"}], "Excel's begin with a mark"
    # A table of one column may well hold its name.
    assert len(read_bytes(b"text\nhello\ntext\n", "in.csv")) == 2


def test_a_first_row_that_looks_like_a_record_is_asked_about() -> None:
    data = b"1,great shoes,pos\n2,awful lamp,neg\n"
    with pytest.raises(InputError, match=r"first row \('1', 'great shoes', 'pos'\) looks like a record.*input.header"):
        read_bytes(data, "in.csv")
    assert told(data, header=False)[0][0] == {"column_1": "1", "column_2": "great shoes", "column_3": "pos"}
    assert told(data, header=("id", "text", "gold"))[0][1] == {"id": "2", "text": "awful lamp", "gold": "neg"}
    assert told(data, header=True)[0] == [{"1": "2", "great shoes": "awful lamp", "pos": "neg"}]
    assert told(b"0,1\n5,x\n")[0] == [{"0": "5", "1": "x"}]  # as pandas names columns
    assert told(b"id,text\n1,x\n", header=("id", "text"))[0] == [{"id": "1", "text": "x"}]


@pytest.mark.parametrize(
    ("encoding", "text", "shown"),
    [
        ("cp1252", "Das ist großartig, für Öl – “gut”", "großartig"),
        ("cp1252", "schön", "schön"),
        ("cp1252", "déjà vu, ça alors", "déjà"),
        ("cp949", "돈이 아깝다. 최고", "돈이"),
        ("shift_jis", "これはいいです。最高", "これは"),
        ("gb18030", "这个很好，非常满意", "这个"),
        ("cp1251", "Очень хорошо, спасибо", "Очень"),
    ],
)
@pytest.mark.parametrize("name", ["in.csv", "in.jsonl", "in.txt"])
def test_another_encoding_is_asked_about_by_its_name(encoding: str, text: str, shown: str, name: str) -> None:
    line = f'{{"text": "{text}"}}\n' if "json" in name else f"{text.replace(',', '')}\n"
    data = ("" if "json" in name else "text\n") + 3 * line
    with pytest.raises(InputError) as caught:
        read_bytes(data.encode(encoding), name)
    assert f'set input.encoding = "{encoding}" if that is right' in str(caught.value)
    assert shown in str(caught.value)
    assert len(fields(read_bytes(data.encode(encoding), name, encoding=encoding))) in (3, 4)


def test_one_bad_line_or_a_good_one_beside_is_no_other_encoding() -> None:
    assert len(troubles(read_bytes(b"text\ncaf\xe9\nok\n", "in.csv"))) == 1
    assert len(troubles(read_bytes("text\né\n".encode() + b"caf\xe9\nol\xe9\n", "in.csv"))) == 2
    assert len(troubles(read_bytes(b"text\ncaf\xe9\nol\xe9\n", "in.csv", encoding="utf-8"))) == 2


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("text", ["id,text\n1,grün\n", "id,text\n1,制品很好很好\n2,不好\n"])
def test_utf16_without_a_mark_is_asked_about(encoding: str, text: str) -> None:
    with pytest.raises(
        InputError, match=f'looks like UTF-16 without a byte order mark; set input.encoding = "{encoding}"'
    ):
        read_bytes(text.encode(encoding), "in.csv")
    assert fields(read_bytes(b"id,text\na,x\0y\n", "in.csv")) == [{"id": "a", "text": "x\0y"}]


def test_a_look_says_the_same_as_a_reading(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(table(";") * 50)
    [source] = resolve_sources("a.csv", base=tmp_path, dialect=TextDialect())
    progress = ReadProgress()
    found = asyncio.run(peek(source, n=1, progress=progress))
    assert found[0].fields == ROWS[0]
    assert progress.detected_options == {"delimiter": ";"}
