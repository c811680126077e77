"""Start-up scripts: what surely runs, what may, and what is not known."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardgate.adapters.unknown import Unknown
from shardgate.adapters.workloads.shell import read_script
from shardgate.adapters.workloads.shell_words import MOST_CHARACTERS, ShellSyntaxError

KNOWN = {"TP": "2", "EMPTY": "", "TWO": "--a --b", "GROUP": Unknown("$(GROUP)", "GROUP is known at run time alone")}


def words(script: str, *positional: str) -> list[tuple[str, ...]]:
    return [command.words for command in read_script(script, KNOWN, positional).commands]


def certain(script: str) -> list[str]:
    return [command.words[0] for command in read_script(script, KNOWN).commands if command.is_certain]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("serve --tp $TP", ["serve", "--tp", "2"]),
        ('serve "--tp=${TP}" \'$TP\' \\$TP', ["serve", "--tp=2", "$TP", "$TP"]),
        ("serve \\\n  --a \\\n  --b # a comment\n", ["serve", "--a", "--b"]),
        ("serve a#b '#c'", ["serve", "a#b", "#c"]),
        ('serve $TWO "$TWO" x$TWO', ["serve", "--a", "--b", "--a --b", "x--a", "--b"]),
        ('serve $EMPTY ${EMPTY} "$EMPTY"', ["serve", ""]),
        ("serve ${MISSING:-d} ${EMPTY:-e} ${EMPTY-f} ${TP:+set} ${MISSING-}", ["serve", "d", "e", "set"]),
        ("serve $((TP * 4)) $(( (1 + 2) * 3 - 8 / 2 ))", ["serve", "8", "5"]),
        ("A=1 B=$TP serve", ["serve"]),
        ("X=4\nexport Y=$((X*2))\nserve $X $Y", ["serve", "4", "8"]),
        ("serve 2>&1 >/dev/null", ["serve"]),
        ("serve '{\"a\": 1,\n \"b\": 2}'", ["serve", '{"a": 1,\n "b": 2}']),
        ("set -- a 'b c'; serve \"$@\"", ["serve", "a", "b c"]),
        ("serve $'a'", ["serve", "a"]),
    ],
)  # fmt: skip
def test_words_are_those_of_a_shell(script: str, expected: list[str]) -> None:
    (found,) = [each for each in words(script) if each[0] == "serve"]
    assert list(found) == expected


def test_positional_arguments_are_those_behind_the_script() -> None:
    assert words('serve "$@" $1', "--", "--port=1", "--model=m") == [("serve", "--port=1", "--model=m", "--port=1")]


@pytest.mark.parametrize(
    ("script", "runs"),
    [
        ("a && b; c", ["a", "b", "c"]),
        ("[ $TP = 2 ] && yes || no", ["yes"]),
        ('if [ "$TP" -gt 4 ]; then big; elif [ $TP -eq 2 ]; then two; else other; fi; end', ["two", "end"]),
        ("if [ -f x ]; then maybe; fi; end", ["end"]),
        ("case $TP in 1) one;; 2|3) two;; *) rest;; esac", ["two"]),
        ("for i in 1 2; do body; done; end", ["end"]),
        ("while true; do body; done", []),
        ("f() { inside; }; f", ["f"]),
        ("{ a; b; } | tee log", ["a", "b", "tee"]),
        ("(cd x; a) & b", ["cd", "a", "b"]),
        ("! [ $TP = 2 ] || c", ["c"]),
        ("[[ $TP == 2 ]] && yes", ["yes"]),
        ('if [ -z "${MISSING:-}" ]; then yes; fi', ["yes"]),
    ],
)
def test_what_surely_runs(script: str, runs: list[str]) -> None:
    assert certain(script) == runs


def test_what_is_not_known_is_never_guessed() -> None:
    (found,) = words('serve --dp $((GROUP * 4)) $MORE "$MORE" $(nproc) `id`')
    unknown = [each for each in found if isinstance(each, Unknown)]
    assert [(each.may_be_many, each.why) for each in unknown] == [
        (True, "GROUP is known at run time alone"),
        (True, "MORE is not set here"),
        (False, "MORE is not set here"),
        (True, "the output of nproc"),
        (True, "the output of id"),
    ]


def test_a_variable_that_a_branch_may_set_is_not_known() -> None:
    script = "F=''\nif [ -f x ]; then F=--fast; fi\nserve $F"
    (found,) = [each for each in words(script) if each[0] == "serve"]
    assert isinstance(found[1], Unknown)


def test_files_that_a_script_writes() -> None:
    read = read_script(
        "cat > /tmp/c.yaml <<'EOF'\na: $TP\nu: __U__\nEOF\nsed -i 's/__U__/0.9/' /tmp/c.yaml\ncat <<X >/tmp/d\nb: $TP\nX\n", KNOWN
    )
    assert read.files == {"/tmp/c.yaml": "a: $TP\nu: 0.9\n", "/tmp/d": "b: 2\n"}
    changed = read_script("echo 'a: 1' > f; sed -i 's/[0-9]*/2/' f", {}).files["f"]
    assert isinstance(changed, Unknown)


@pytest.mark.parametrize(
    "script",
    ["serve 'a", 'serve "a', "if true; then a", "serve $(a", "serve ${A", "case x in a) b", "( a", "x" * (MOST_CHARACTERS + 1)],
)
def test_what_a_shell_would_refuse_is_unreadable(script: str) -> None:
    with pytest.raises(ShellSyntaxError):
        read_script(script, {})


PIECES = st.sampled_from(
    [
        "serve",
        " ",
        "\n",
        "'",
        '"',
        "$",
        "{",
        "}",
        "(",
        ")",
        "((",
        "))",
        "$((",
        "<<A",
        "A",
        "if ",
        "then ",
        "fi",
        "; ",
        "&&",
        "|",
        "\\",
        "`",
        "=",
        "1",
        "for ",
        "do ",
        "done",
        "case ",
        "in ",
        "esac",
        ";;",
        "#",
        "$TP",
        "*",
        "[ ",
        "]",
        ">f",
        "é",
    ]
)


@settings(max_examples=400)
@given(st.lists(PIECES, max_size=60).map("".join))
def test_no_script_breaks_the_reader(script: str) -> None:
    try:
        read_script(script, KNOWN, ["sh", "x"])
    except ShellSyntaxError:
        return
