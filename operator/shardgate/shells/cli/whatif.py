"""``shardgate whatif``."""

import json
import time

import rich_click as click

from shardgate.adapters.change_words import VERBS, ChangeError, changes_in
from shardgate.adapters.cluster_additions import AdditionError
from shardgate.adapters.verdict_changes import what_if_report
from shardgate.shells.cli.consoles import console
from shardgate.shells.cli.exit_codes import BAD_DATA, WORSE
from shardgate.shells.cli.forms import print_json, print_unreadable
from shardgate.shells.cli.options import cluster_option, files_option, output_option
from shardgate.shells.cli.progress import tracked, working
from shardgate.shells.terminal import print_what_if
from shardgate.shells.whatif import objects_of, what_if


def _verbs(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    return [verb for verb in VERBS if verb.startswith(incomplete)]


@click.command()
@click.argument("words", metavar="CHANGE...", nargs=-1, required=True, shell_complete=_verbs)
@cluster_option("All objects as YAML or JSON: of shardgate snapshot, or of kubectl get -o yaml. Default: the live cluster.")
@files_option(required=False, text="Manifest, folder, or - for standard input, taken to stand as well; may be repeated.")
@output_option(("table", "json", "jsonl"))
@click.pass_context
def whatif(context: click.Context, words: tuple[str, ...], clusters: tuple[str, ...], files: tuple[str, ...], output: str) -> None:
    """Show which standing verdicts would change, if the cluster did.

    CHANGE, one or several: drain NODE.., cordon NODE.., uncordon NODE.., remove NODE.., add 2xPRODUCT[:GPUS].., label NODE..
    KEY=VALUE.. KEY-.., taint NODE.. KEY[=VALUE]:EFFECT.. KEY-.. A NODE may be a shell pattern; 2xPRODUCT are two nodes like
    one of the product that is here, or with GPUS GPUs each. What stands: InferenceDeployments, and workloads of the kinds
    that the operator follows. Pods that lose their node and have a controller are made anew, those of DaemonSets stay while
    a node is drained; a taint of effect NoExecute takes the pods that do not tolerate it for ever. -o jsonl: a changed
    verdict a line. Exit code: 1 if any outcome becomes worse, else 0; 64 usage, 65 unreadable document (named; the others
    are judged), 66 no such file or node, 69 cluster unreachable.
    """
    try:
        changes = changes_in(words)
        with working("reading the cluster"):
            here = objects_of(clusters, files)
        found = what_if(changes, here, tracked, moment=0.0 if clusters else time.time())
    except (ChangeError, AdditionError) as error:
        raise click.UsageError(str(error)) from error
    print_unreadable(found.unreadable)
    document = what_if_report(words, found.cluster, found.judged, found.changes)
    if output == "jsonl":
        for each in document["changed"]:
            click.echo(json.dumps(each))
    elif not print_json([document], output):
        print_what_if(console(), document)
    context.exit(BAD_DATA if found.unreadable else WORSE if found.is_worse else 0)
