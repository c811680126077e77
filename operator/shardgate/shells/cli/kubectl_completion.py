"""The program ``kubectl_complete-shardgate``: kubectl's own completion asks it for ``kubectl shardgate``.

kubectl gives the words after the plugin's name, the last of them unfinished (or empty); answered is a candidate a line,
with a tab before its description, and at last a colon with cobra's directive.
"""

import sys

from click.shell_completion import ShellComplete

from shardgate.shells.cli.entry import cli

DEFAULT, NO_FILES, DIRECTORIES = 0, 4, 16
"""Of cobra's ``ShellCompDirective``: files are offered, none are, directories are."""


def main() -> None:
    """Answer once."""
    words = sys.argv[1:] or [""]
    found = ShellComplete(cli, {}, "shardgate", "").get_completions(words[:-1], words[-1])
    kinds = {each.type for each in found}
    for each in found:
        if each.type == "plain":
            print(f"{each.value}\t{each.help}" if each.help else each.value)  # noqa: T201  # what kubectl reads
    print(f":{DEFAULT if 'file' in kinds else DIRECTORIES if 'dir' in kinds else NO_FILES}")  # noqa: T201
