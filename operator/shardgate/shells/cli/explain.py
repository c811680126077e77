"""``shardgate explain``."""

import difflib

import rich_click as click
from click.shell_completion import CompletionItem

from shardgate.adapters.code_explanations import explanation_of
from shardgate.domain.codes import CLASS_OF_CODE
from shardgate.shells.cli.consoles import console
from shardgate.shells.cli.forms import print_json
from shardgate.shells.cli.options import output_option
from shardgate.shells.terminal import print_code_explanation


class _Code(click.ParamType[str]):
    """A finding's code, in any case."""

    name = "code"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        known = {code.lower(): code for code in CLASS_OF_CODE}
        if value.lower() not in known:
            near = difflib.get_close_matches(value.lower(), known, n=3)
            hint = f"; near it: {', '.join(known[each] for each in near)}" if near else ""
            self.fail(f"{value} is no finding's code{hint}; all of them: docs/findings.md", param, ctx)
        return known[value.lower()]

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002  # click's own
        return [CompletionItem(code) for code in CLASS_OF_CODE if code.lower().startswith(incomplete.lower())]


@click.command()
@click.argument("code", type=_Code(), metavar="CODE")
@output_option()
def explain(code: str, output: str) -> None:
    """Explain a finding by its code: what it means, which engines refuse it from which versions, and what helps.

    Exit code: 64 for a code that does not exist.
    """
    document = explanation_of(code)
    if not print_json([document], output):
        print_code_explanation(console(), document)
