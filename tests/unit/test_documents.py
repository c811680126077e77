from pathlib import Path

import pytest

from shardgate.shells.documents import Document, NoSuchFile, Unreadable, read_documents


def read(tmp_path: Path, text: str | bytes) -> list[Document | Unreadable]:
    file = tmp_path / "x.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(read_documents([str(file)]))


def test_documents_and_lists_are_taken_apart(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        "apiVersion: v1\nkind: A\n---\n---\napiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: B}\n- {apiVersion: v1, kind: C}\n",
    )
    assert [each.body["kind"] for each in found if isinstance(each, Document)] == ["A", "B", "C"]
    assert found[2].where.endswith("x.yaml, document 3, item 2")


def test_a_folder_is_read_by_name(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("apiVersion: v1\nkind: B\n")
    (tmp_path / "a.json").write_text('{"apiVersion": "v1", "kind": "A"}')
    (tmp_path / "notes.txt").write_text("not: [yaml")
    assert [each.body["kind"] for each in read_documents([str(tmp_path)]) if isinstance(each, Document)] == ["A", "B"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [1", "line"),
        ("just words", "needs an object"),
        ("- 1", "needs an object"),
        ("kind: A", "apiVersion missing"),
        ("apiVersion: v1\nkind: A\nkind: B\n", "stands twice"),
        ("apiVersion: v1\nkind: A\nmetadata: x\n", "metadata: needs an object"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        (b"\xff\xfe\x00", ""),
        ("[" * 5000, ""),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, text: str | bytes, says: str) -> None:
    (found,) = read(tmp_path, text)
    assert isinstance(found, Unreadable)
    assert "x.yaml" in found.where
    assert says in found.problem


def test_the_rest_goes_on_after_a_bad_document(tmp_path: Path) -> None:
    found = read(tmp_path, "apiVersion: v1\nkind: A\nkind: B\n---\napiVersion: v1\nkind: C\n")
    assert [type(each) for each in found] == [Unreadable, Document]


def test_a_missing_file_is_an_error_of_its_own() -> None:
    with pytest.raises(NoSuchFile, match="nowhere.yaml"):
        list(read_documents(["nowhere.yaml"]))


def test_dates_stay_as_they_are_written(tmp_path: Path) -> None:
    (found,) = read(tmp_path, "apiVersion: v1\nkind: A\nspec: {on: 2026-11-25}\n")
    assert isinstance(found, Document)
    assert list(found.body["spec"].values()) == ["2026-11-25"]


def test_json_is_read_as_kubectl_reads_it(tmp_path: Path) -> None:
    found = read(
        tmp_path, '\n{"apiVersion": "v1", "kind": "A", "x": "\\ud83d\\ude00", "n": 1.5}\n\t{"apiVersion": "v1", "kind": "B"}'
    )
    assert [each.body["kind"] for each in found if isinstance(each, Document)] == ["A", "B"]
    assert isinstance(found[0], Document)
    assert (found[0].body["x"], found[0].body["n"]) == ("\U0001f600", 1.5)
    assert found[1].where.endswith("x.yaml, document 2")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"apiVersion": "v1", "kind": "A", "kind": "B"}', "stands twice"),
        ('{"apiVersion": "v1", "kind": "A", "x": "\\ud83d"}', "Unicode"),
        ('{"apiVersion": "v1", "kind": "A"', "line"),
        ("[" * 100_000, "nesting depth"),
        ('["a"]', "needs an object"),
    ],
)
def test_bad_json_is_named_by_its_place(tmp_path: Path, text: str, says: str) -> None:
    (found,) = read(tmp_path, text)
    assert isinstance(found, Unreadable)
    assert says in str(found)


def test_flow_yaml_is_no_json(tmp_path: Path) -> None:
    (found,) = read(tmp_path, "{apiVersion: v1, kind: A}")
    assert isinstance(found, Document)


def test_aliases_that_stand_for_billions_are_refused_and_the_rest_goes_on(tmp_path: Path) -> None:
    levels = "".join(f"  a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 10))
    found = read(tmp_path, f"apiVersion: v1\nkind: A\nspec:\n  a0: &a0 [x]\n{levels}---\napiVersion: v1\nkind: B\n")
    assert [type(each) for each in found] == [Unreadable, Document]
    assert str(found[0]).endswith(
        "x.yaml, document 1: 28 values are written, and with each alias put in they are 926177122: 20280 are read at most"
    )


def test_a_value_that_contains_itself_is_named(tmp_path: Path) -> None:
    found = read(tmp_path, "kind: A\napiVersion: v1\nspec: &s {model: {name: a, config: [1, *s]}}\n---\napiVersion: v1\nkind: B\n")
    assert [type(each) for each in found] == [Unreadable, Document]
    assert str(found[0]).endswith(
        "x.yaml, document 1: line 3, column 7: spec.model.config[1]: contains the whole of which it is a part"
    )


def test_aliases_as_people_use_them_are_read(tmp_path: Path) -> None:
    many = "".join(f"- {{apiVersion: v1, kind: B{number}, spec: *s}}\n" for number in range(300))
    found = read(tmp_path, f"kind: List\napiVersion: v1\nshared: &s {{a: {list(range(90))}}}\nitems:\n{many}")
    assert len([each for each in found if isinstance(each, Document)]) == 300
