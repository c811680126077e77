"""``shardgate extract``."""

import json

import rich_click as click

from shardgate.shells.cli.exit_codes import BAD_DATA
from shardgate.shells.cli.forms import print_unreadable
from shardgate.shells.cli.options import files_option, output_option
from shardgate.shells.cli.progress import working
from shardgate.shells.documents import Document, Unreadable, read_documents
from shardgate.shells.extraction import extracted


@click.command()
@files_option(required=True)
@output_option(("json",))
@click.pass_context
def extract(context: click.Context, files: tuple[str, ...], output: str) -> None:  # noqa: ARG001  # one form so far
    """Print what manifests of any supported kind declare, and what in them could not be read.

    Objects that others refer to (ConfigMaps, runtimes, presets, claim templates) are looked for in the same files. Exit
    code: 65 for a document that cannot be read (named; the others are printed), 66 no such file.
    """
    with working("reading manifests"):
        documents = list(read_documents(files))
        found = extracted(each for each in documents if isinstance(each, Document))
    unreadable = [each for each in documents if isinstance(each, Unreadable)] + found.unreadable
    print_unreadable(unreadable)
    if not found.declarations and not unreadable:
        click.echo("no declaration found", err=True)
    click.echo(json.dumps({"declarations": found.declarations, "ignored": found.ignored}, indent=2))
    context.exit(BAD_DATA if unreadable else 0)
