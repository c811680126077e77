"""Terminals, pipes and shells: colours, widths, wide text, broken pipes, completion."""

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from rich.cells import cell_len
from rich.console import Console

from builders import T4, a_body, a_node
from command_line import run
from shardgate.adapters.change_words import VERBS
from shardgate.shells.cli.entry import COMMANDS, cli
from shardgate.shells.cli.progress import tracked, working
from shardgate.shells.tables import Column, print_table
from terminal import on_terminal

BIN = Path(sys.executable).parent
WIDE = "推理服务"
"""A name of four characters that take two columns each."""


@pytest.fixture
def cluster(tmp_path: Path) -> str:
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump_all([a_node().body, a_node("node-b", gpus=4, labels=T4).body], allow_unicode=True))
    return str(path)


@pytest.fixture
def refused(tmp_path: Path) -> str:
    path = tmp_path / "refused.yaml"
    path.write_text(yaml.safe_dump(a_body(strategy={"tensor": 64})))
    return str(path)


# ---- colours


def test_colours_are_for_terminals_and_for_whoever_wants_them(cluster: str, refused: str) -> None:
    arguments = ["verify", "-f", refused, "--cluster", cluster]
    shown = on_terminal(*arguments)
    assert (shown.has_colours, shown.returncode) == (True, 1)
    assert not on_terminal(*arguments, NO_COLOR="1").has_colours
    assert "\x1b[" not in run(*arguments).stdout
    assert "\x1b[" in run(*arguments, FORCE_COLOR="1").stdout


@pytest.mark.parametrize("arguments", [["verify"], ["nonsense"], ["explain", "Nonsense"], ["--help"]])
def test_help_and_errors_have_colours_on_terminals_alone(arguments: list[str]) -> None:
    piped = run(*arguments)
    assert "\x1b[" not in piped.stdout + piped.stderr


# ---- widths


@pytest.mark.parametrize("columns", ["40", "80", "200"])
@pytest.mark.parametrize("command", [["capacity"], ["nodes"], ["whatif", "remove", "node-a"]])
def test_nothing_is_cut_at_any_width(cluster: str, command: list[str], columns: str) -> None:
    whole = run(*command, "--cluster", cluster, COLUMNS="400").stdout
    shown = run(*command, "--cluster", cluster, COLUMNS=columns).stdout
    assert "…" not in shown
    assert sorted(set(whole.split()) - set(shown.split())) == []


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS if name != "agent"), ["model", "add"]])
def test_no_help_is_cut_or_taken_for_markup(command: list[str]) -> None:
    shown = run(*command, "--help", COLUMNS="46")
    assert shown.returncode == 0
    assert "…" not in shown.stdout
    assert max(len(line) for line in shown.stdout.splitlines()) <= 46
    assert "[@79.19Gi][,...]" in run("verify", "--help").stdout


def test_a_terminals_own_width_is_kept_to(cluster: str) -> None:
    shown = on_terminal("capacity", "--cluster", cluster, columns=40)
    assert shown.text.splitlines()[0].split() == ["Product", "H100-80GB-HBM3"]
    assert max(len(line) for line in shown.text.splitlines()) <= 40


def test_what_is_piped_is_not_wrapped(cluster: str) -> None:
    arguments = [sys.executable, "-m", "shardgate", "capacity", "--cluster", cluster]
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    lines = subprocess.run(arguments, capture_output=True, text=True, check=True, env=environment).stdout.splitlines()
    assert len(lines) == 3
    assert lines[0].split()[:2] == ["Product", "Nodes"]


def drawn(width: int, rows: list[list[str]], *columns: str) -> list[str]:
    console = Console(width=width, emoji=False, file=io.StringIO())
    print_table(console, [Column(name) for name in columns], rows)
    return [line.rstrip() for line in cast("io.StringIO", console.file).getvalue().splitlines()]


def test_wide_text_is_aligned() -> None:
    lines = drawn(60, [[WIDE, "first"], ["narrow", "second"]], "Name", "Which")
    at = [cell_len(line[: line.index(word)]) for line, word in zip(lines, ["Which", "first", "second"], strict=True)]
    assert len(set(at)) == 1


def test_a_table_wraps_between_words_before_it_becomes_lists() -> None:
    rows = [["a", "one two three"], ["b", "four"]]
    assert drawn(40, rows, "Key", "Words") == ["Key  Words", "a    one two three", "b    four"]
    assert drawn(12, rows, "Key", "Words") == ["Key  Words", "a    one two", "     three", "b    four"]
    assert drawn(9, rows, "Key", "Words") == ["Key    a", "Words  one two", "       three", "", "Key    b", "Words  four"]


@pytest.mark.parametrize("width", range(8, 90, 3))
def test_every_character_is_drawn_at_every_width(width: int) -> None:
    rows = [["x" * 30, "many small words that wrap well " * 2, WIDE * 5], ["short", "y" * 25, "z"]]
    lines = drawn(width, rows, "Name", "What it is", "Where")
    text = "".join("".join(lines).split())
    for cell in (cell for row in rows for cell in row):
        for character in set("".join(cell.split())):
            assert text.count(character) >= sum("".join(row).count(character) for row in rows), (character, lines)


def test_a_table_takes_no_cell_for_markup_or_emoji() -> None:
    assert drawn(60, [["[red]x[/red]", ":warning:"]], "A", "B")[1] == "[red]x[/red]  :warning:"
    assert drawn(60, [], "A", "B") == []


# ---- progress


def test_progress_is_told_on_a_terminal_after_a_while() -> None:
    script = (
        "import time; from shardgate.shells.cli import progress; progress.QUIET_SECONDS = 0.05\n"
        "for _ in progress.tracked(range(4), 'judging'): time.sleep(0.05)\n"
        "with progress.working('reading'): time.sleep(0.3)\n"
    )
    shown = on_terminal("-c", script, program=[sys.executable])
    assert "judging" in shown.text
    assert "reading" in shown.text
    silent = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (silent.stdout, silent.stderr) == ("", "")


def test_quick_work_tells_nothing() -> None:
    script = "from shardgate.shells.cli import progress\nlist(progress.tracked(range(4), 'x'))\nwith progress.working('y'): pass\n"
    assert on_terminal("-c", script, program=[sys.executable]).raw == ""


def test_progress_passes_on_what_it_follows() -> None:
    with working("x"):
        assert list(tracked([1, 2], "y")) == [1, 2]


# ---- pipes


@pytest.mark.parametrize("form", ["table", "json"])
def test_a_reader_that_goes_changes_no_exit_code(cluster: str, refused: str, form: str) -> None:
    command = f"{sys.executable} -m shardgate verify -f {refused} --cluster {cluster} -o {form} | true; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", "")


def test_a_reader_of_errors_that_goes_changes_none_either() -> None:
    command = f"{sys.executable} -m shardgate verify -f /nowhere --gpus 1xTesla-T4 2>&1 | true; exit ${{PIPESTATUS[0]}}"
    assert subprocess.run(["bash", "-c", command], check=False).returncode == 66


def test_a_full_disk_is_no_success(cluster: str) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "shardgate", "capacity", "--cluster", cluster, "-o", "json"], stdout=full, stderr=subprocess.PIPE,
            text=True, check=False,
        )  # fmt: skip
    assert ended.returncode == 70
    assert "No space left" in ended.stderr
    assert "Traceback" not in ended.stderr


# ---- completion, and kubectl


def completed(*words: str) -> list[str]:
    environment = {
        "PATH": os.environ["PATH"], "_SHARDGATE_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(("shardgate", *words)),
        "COMP_CWORD": str(len(words)),
    }  # fmt: skip
    ended = subprocess.run([BIN / "shardgate"], capture_output=True, text=True, check=True, env=environment)
    return [line.partition(",")[2] for line in ended.stdout.splitlines()]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["wha"], ["whatif"]), (["verify", "-o", "js"], ["json", "jsonl"]), (["explain", "kvh"], ["KvHeadsUneven"]),
        (["whatif", "unc"], ["uncordon"]), (["completion", "z"], ["zsh"]),
    ],
)  # fmt: skip
def test_what_a_shell_completes(words: list[str], found: list[str]) -> None:
    assert completed(*words) == found


def test_a_shell_takes_the_script(tmp_path: Path) -> None:
    for shell in ("bash", "zsh", "fish"):
        script = run("completion", shell, PATH=os.environ["PATH"]).stdout
        assert "_SHARDGATE_COMPLETE" in script
        if shutil.which(shell):
            file = tmp_path / shell
            file.write_text(script)
            subprocess.run([shell, "-n", str(file)], check=True)


def test_bash_really_completes() -> None:
    lines = [
        "source <(shardgate completion bash)", "COMP_WORDS=(shardgate what)", "COMP_CWORD=1", "_shardgate_completion shardgate",
        'echo "${COMPREPLY[@]}"',
    ]  # fmt: skip
    environment = {"PATH": f"{BIN}:{os.environ['PATH']}"}
    ended = subprocess.run(["bash", "-c", "\n".join(lines)], capture_output=True, text=True, check=True, env=environment)
    assert ended.stdout.strip() == "whatif"


def test_a_command_is_told_by_its_own_first_sentence() -> None:
    context = cli.make_context("shardgate", ["verify"], resilient_parsing=True)
    for name, text in COMMANDS.items():
        command = cli.get_command(context, name)
        assert command is not None
        assert (command.help or "").startswith(text.removesuffix(".")), name


@pytest.mark.parametrize(
    ("words", "candidates", "directive"),
    [
        (["wha"], ["whatif"], 4), (["verify", "-f", ""], [], 0), (["model", "add", ""], [], 16), (["verify", "-o", "t"], ["table"], 4),
        (["whatif", ""], list(VERBS), 4), ([], sorted(COMMANDS), 4),
    ],
)  # fmt: skip
def test_kubectls_own_completion(words: list[str], candidates: list[str], directive: int) -> None:
    ended = subprocess.run([BIN / "kubectl_complete-shardgate", *words], capture_output=True, text=True, check=True)
    *lines, last = ended.stdout.splitlines()
    assert ([line.partition("\t")[0] for line in lines], last) == (candidates, f":{directive}")


def test_as_a_plugin_it_is_called_as_one() -> None:
    ended = subprocess.run([BIN / "kubectl-shardgate", "verify"], capture_output=True, text=True, check=False)
    assert ended.returncode == 64
    assert "Usage: kubectl shardgate verify" in ended.stderr


# ---- explain


def rules_in_checks() -> Iterator[tuple[str, Any]]:
    """(code, rule) as the checks name them."""
    import ast

    from shardgate.domain.checks import shape

    for node in ast.walk(ast.parse(Path(shape.__file__).read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_by_rule":
            _, rule, code = node.args[:3]
            if isinstance(rule, ast.Constant) and isinstance(code, ast.Constant):
                yield str(code.value), rule.value


def test_every_rule_of_an_engine_is_explained_by_the_code_that_it_raises() -> None:
    from shardgate.adapters.code_explanations import CODE_OF_RULE
    from shardgate.adapters.tables import table
    from shardgate.domain.codes import CLASS_OF_CODE

    assert {row["rule"] for row in table("engine_rules")["rules"]} == set(CODE_OF_RULE)
    assert set(CODE_OF_RULE.values()) <= set(CLASS_OF_CODE)
    found = list(rules_in_checks())
    assert len(found) > 20
    assert {rule: CODE_OF_RULE[rule] for _, rule in found} == {rule: code for code, rule in found}


def test_every_code_has_a_meaning_and_a_remedy() -> None:
    from shardgate.adapters.finding_catalogue import MEANINGS, REMEDIES
    from shardgate.domain.codes import CLASS_OF_CODE

    assert set(MEANINGS) == set(REMEDIES) == set(CLASS_OF_CODE)


def test_explain_says_which_engines_refuse_it_and_what_helps() -> None:
    shown = run("explain", "kvheadsuneven")
    assert shown.returncode == 0
    for text in ("KvHeadsUneven  class shape, at worst Unsound", "-> Choose a divisor or a multiple", "vllm, all versions: "):
        assert text in shown.stdout
    ended = run("explain", "KvHeads")
    assert ended.returncode == 64
    assert "KvHeadsUneven" in ended.stderr
