"""``shardgate verify``."""

import rich_click as click

from shardgate.adapters.forms.drawing import FORMS, drawn
from shardgate.adapters.inference_deployments import is_inference_deployment
from shardgate.adapters.workloads.kinds import is_judged_kind
from shardgate.domain.verdict import Outcome
from shardgate.shells.cli.clusters import cluster_of
from shardgate.shells.cli.consoles import console
from shardgate.shells.cli.exit_codes import BAD_DATA, REFUSED, UNDECIDED
from shardgate.shells.cli.forms import print_json, print_unreadable
from shardgate.shells.cli.options import cluster_option, files_option, gpus_option, output_option
from shardgate.shells.cli.progress import tracked, working
from shardgate.shells.documents import Document, Unreadable, read_documents
from shardgate.shells.judged_documents import JudgedDocuments, judge_documents
from shardgate.shells.report_terminal import print_report
from shardgate.shells.server_verdicts import server_verdicts
from shardgate.shells.terminal import print_server_verdict


@click.command()
@files_option(required=True)
@cluster_option("Nodes, pods, policies and models as YAML or JSON (kubectl get -o yaml will do). Default: the live cluster.")
@gpus_option()
@output_option(("table", "markdown", "json", "jsonl", "html", "dot"), "Form of the report.")
@click.option(
    "--server", "by_server", is_flag=True, help="By a server-side dry run, for people who may not list nodes: what apply would say."
)
@click.pass_context
def verify(  # its options
    context: click.Context, files: tuple[str, ...], clusters: tuple[str, ...], gpus: str | None, output: str, *, by_server: bool
) -> None:
    """Judge declarations against a cluster.

    Several are judged in file order, each admitted one taking its GPUs. Exit code: 1 if any would be refused, else 2 if
    any is undecided, else 0; 64 usage, 65 unreadable document, 66 no such file, 69 cluster unreachable, 70 internal.
    """
    if by_server:
        if output in FORMS:
            problem = f"--server gets no figures from admission: -o {output} has nothing to draw, take table, json or jsonl"
            raise click.UsageError(problem)
        if clusters or gpus:
            problem = "--server asks the live cluster: --cluster and --gpus have no place beside it"
            raise click.UsageError(problem)
        context.exit(_verify_by_server(files, output))
    with working("reading manifests and the cluster"):
        declared = list(read_documents(files))
        snapshot = cluster_of(clusters, gpus, [each.body for each in declared if isinstance(each, Document)])
    found = judge_documents(declared, snapshot, lambda each: tracked(each, "judging declarations"))
    print_unreadable(found.unreadable)
    if not found.judged and not found.unreadable:
        click.echo("no declaration found", err=True)
    reports = [each.report for each in found.judged]
    if output in FORMS:
        click.echo(drawn(reports, output), nl=False)
    elif not print_json(reports, output):
        screen = console()
        for each in reports:
            print_report(screen, each)
    context.exit(_exit_code(found))


def _exit_code(found: JudgedDocuments) -> int:
    if found.unreadable:
        return BAD_DATA
    if any(each.refused for each in found.judged):
        return REFUSED
    return UNDECIDED if any(each.outcome is Outcome.UNDECIDED for each in found.judged) else 0


def _verify_by_server(files: tuple[str, ...], output: str) -> int:
    documents = list(read_documents(files))
    unreadable = [each for each in documents if isinstance(each, Unreadable)]
    readable = [each for each in documents if isinstance(each, Document)]
    found = server_verdicts([each for each in readable if is_inference_deployment(each.body) or is_judged_kind(each.body)])
    print_unreadable(unreadable)
    if not found and not unreadable:
        click.echo("no declaration found", err=True)
    if not print_json([each.json() for each in found], output):
        screen = console()
        for each_verdict in found:
            print_server_verdict(screen, each_verdict)
    if unreadable:
        return BAD_DATA
    if any(each.refused for each in found):
        return REFUSED
    return UNDECIDED if any(each.is_undecided for each in found) else 0
