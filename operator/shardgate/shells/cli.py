"""The command line, also ``kubectl shardgate``."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import rich_click as click
import yaml
from rich.console import Console

from shardgate import __version__
from shardgate.adapters.claimed import Claim, planned
from shardgate.adapters.errors import mistakes_in
from shardgate.adapters.inference_deployments import is_inference_deployment
from shardgate.adapters.model_profiles import describes_model
from shardgate.adapters.referred_workloads import groups_in, read_declaration
from shardgate.adapters.report import reference_of, report
from shardgate.adapters.standing_workloads import key_of, referred_to
from shardgate.adapters.workload_declarations import declare
from shardgate.adapters.workload_verdicts import judged, workload_report
from shardgate.adapters.workloads.kinds import is_judged_kind
from shardgate.adapters.workloads.library import Library
from shardgate.adapters.workloads.registry import read_workload
from shardgate.api import GROUP
from shardgate.domain.declaration import Declaration
from shardgate.domain.enforce import enforce
from shardgate.domain.policy import FOREIGN_KIND, OWN_KIND, Mode
from shardgate.domain.verdict import Outcome, Verdict
from shardgate.domain.verify import verify as verify_declaration
from shardgate.shells.accuracy import live_accuracy
from shardgate.shells.cluster import ApiError, ClusterUnreachable, own_namespace
from shardgate.shells.doctor import check_up
from shardgate.shells.documents import Document, NoSuchFile, Unreadable, read_documents
from shardgate.shells.extraction import extracted
from shardgate.shells.kept_decisions import Found, kept_decisions
from shardgate.shells.model_folder import UnreadableFolder, profile_of_folder
from shardgate.shells.server_verdicts import server_verdicts
from shardgate.shells.snapshot import GpusError, Snapshot, from_gpus, live_snapshot
from shardgate.shells.terminal import (
    print_accuracy,
    print_checkup,
    print_decision,
    print_explanation,
    print_nodes,
    print_report,
    print_server_verdict,
)
from shardgate.shells.uninstallation import removed_leftovers, removed_webhooks
from shardgate.shells.why import NoSuchObject, why_live

REFUSED, UNDECIDED = 1, 2
UNHEALTHY = 1
USAGE, BAD_DATA, NO_INPUT, UNAVAILABLE, INTERNAL = 64, 65, 66, 69, 70

click.rich_click.TEXT_MARKUP = "rich"


@dataclass(slots=True)
class _Result:
    """One declaration's report, and what it does to the exit code."""

    report: dict[str, Any]
    refused: bool
    outcome: Outcome


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
@click.version_option(__version__, prog_name="shardgate")
@click.pass_context
def cli(context: click.Context) -> None:
    """Tells whether the parallel strategy that an LLM deployment declares can run on the GPUs that are really free."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(USAGE)


@cli.command()
@click.option(
    "-f", "files", multiple=True, required=True, metavar="FILE", help="Manifest, folder, or - for standard input; may be repeated."
)
@click.option(
    "--cluster",
    "clusters",
    multiple=True,
    metavar="SNAPSHOT",
    help="Nodes, pods, policies and models as YAML or JSON (kubectl get -o yaml will do). Default: the live cluster.",
)
@click.option(
    "--gpus",
    metavar="ITEMS",
    help="A cluster made up of these nodes: 8xH100-80GB-HBM3[@79.19Gi][,...], @ = memory as the engine sees it.",
)
@click.option(
    "-o", "output", type=click.Choice(["table", "json", "jsonl"]), default="table", show_default=True, help="Form of the report."
)
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
    if clusters and gpus:
        problem = "--cluster and --gpus exclude each other"
        raise click.UsageError(problem)
    if by_server:
        if clusters or gpus:
            problem = "--server asks the live cluster: --cluster and --gpus have no place beside it"
            raise click.UsageError(problem)
        context.exit(_verify_by_server(files, output))
    declared = list(read_documents(files))
    bodies = [each.body for each in declared if isinstance(each, Document)]
    snapshot = _snapshot(clusters, gpus, bodies)
    results: list[_Result] = []
    library = Library.of(bodies, snapshot.references)
    snapshot.add(each for each in declared if isinstance(each, Document) and describes_model(each.body))
    unreadable = list(snapshot.unreadable)
    referred = {referred_to(each.body) for each in declared if isinstance(each, Document)}
    for document in declared:
        if isinstance(document, Unreadable):
            unreadable.append(document)
        elif is_inference_deployment(document.body):
            _judge(document, library, snapshot, results, unreadable)
        elif key_of(document.body) not in referred:
            _judge_workload(document, library, snapshot, results)
    for each in unreadable:
        click.echo(f"error: {each}", err=True)
    if not results and not unreadable:
        click.echo("no declaration found", err=True)
    _print(results, output)
    context.exit(_exit_code(results, unreadable))


def _verify_by_server(files: tuple[str, ...], output: str) -> int:
    documents = list(read_documents(files))
    unreadable = [each for each in documents if isinstance(each, Unreadable)]
    readable = [each for each in documents if isinstance(each, Document)]
    found = server_verdicts([each for each in readable if is_inference_deployment(each.body) or is_judged_kind(each.body)])
    for each in unreadable:
        click.echo(f"error: {each}", err=True)
    if not found and not unreadable:
        click.echo("no declaration found", err=True)
    if not _print_json([each.json() for each in found], output):
        console = Console()
        for each_verdict in found:
            print_server_verdict(console, each_verdict)
    if unreadable:
        return BAD_DATA
    if any(each.refused for each in found):
        return REFUSED
    return UNDECIDED if any(each.is_undecided for each in found) else 0


@cli.command()
@click.argument("subject", metavar="[KIND/NAME]", required=False)
@click.option("--ref", "reference", metavar="REF", help="A decision of admission, by the reference that its message ends in.")
@click.option("-n", "--namespace", metavar="NAMESPACE", help="Default: that of the kubeconfig's current context.")
@click.option("-o", "output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="Form of the answer.")
@click.option("--facts", "with_facts", is_flag=True, help="Print what was judged by, too: in JSON, for a report of a bug.")
@click.pass_context
def why(  # its options
    context: click.Context, subject: str | None, reference: str | None, namespace: str | None, output: str, *, with_facts: bool
) -> None:
    """Say why a live object does not run, or why one was refused.

    KIND/NAME: one answer by the verdict, quotas, queues, the scheduler's and autoscaler's words and the containers' last
    exits, as far as you may read them. --ref: a decision of admission; each replica of the operator keeps its last 200 with
    the facts that it used, for whoever may create decisionreviews in the namespace, and it is judged again by those. Exit
    code: 0 answered, 64 usage, 66 no such object or decision, 69 cluster unreachable.
    """
    if (subject is None) == (reference is None):
        problem = "give KIND/NAME, or --ref REF"
        raise click.UsageError(problem)
    kind, _, name = (subject or "").partition("/")
    if subject is not None and not (kind and name):
        problem = f"{subject}: write KIND/NAME, as infd/llama"
        raise click.UsageError(problem)
    where = namespace or own_namespace()
    if reference is not None:
        context.exit(_why_reference(reference.lower(), where, output, with_facts=with_facts))
    answer = why_live(kind, name, where).json()
    if not _print_json([answer], output):
        print_explanation(Console(), answer)


def _why_reference(reference: str, namespace: str, output: str, *, with_facts: bool) -> int:
    found = kept_decisions(reference, namespace)
    if not found.decisions:
        click.echo(f"error: {_not_kept(reference, namespace, found)}", err=True)
        return NO_INPUT
    decisions = [each if with_facts else {**each, "facts": None} for each in found.decisions]
    if not _print_json(decisions, "json" if with_facts else output):
        console = Console()
        for each in decisions:
            print_decision(console, each)
    return 0


def _not_kept(reference: str, namespace: str, found: Found) -> str:
    if not found.replicas:
        return f"namespace {namespace} is exempt from admission: nothing is decided there"
    asked = ", ".join(f"{name} ({kept} kept)" for name, kept in sorted(found.replicas.items()))
    return (
        f"no decision {reference} of namespace {namespace} is kept by those replicas that answered: {asked}; "
        "each keeps its last 200, and none outlives its process"
    )


@cli.command()
@click.option(
    "-n",
    "--namespace",
    metavar="NAMESPACE",
    help="Where admission is asked by dry runs. Default: the kubeconfig's.",
)
@click.option(
    "--operator-namespace", default="shardgate-system", show_default=True, metavar="NAMESPACE", help="Where the operator runs."
)
@click.option("-o", "output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="Form of the answer.")
@click.pass_context
def doctor(context: click.Context, namespace: str | None, operator_namespace: str, output: str) -> None:
    """Check whether a live installation is healthy, and say how to repair what is not.

    With your own rights: what you may not read is a check that could not be told. Nothing is written; admission is asked by
    dry runs. Exit code: 1 if a check failed, else 2 if it could not be told whether admission works, else 0; 69 cluster
    unreachable.
    """
    found = check_up(namespace or own_namespace(), operator_namespace)
    if not _print_json([found.json()], output):
        print_checkup(Console(), found)
    context.exit({True: 0, False: UNHEALTHY, None: UNDECIDED}[found.healthy])


@cli.command()
@click.option("-o", "output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="Form of the answer.")
def accuracy(output: str) -> None:
    """Show how well the memory of engines that run here was predicted.

    By engine version and GPU product, as the operator reads it from the Prometheus of its prometheusUrl: predicted tokens
    of KV cache against those that engines hold. One whose p90 error exceeds 15 % refuses nothing for memory. Exit code:
    0, 66 where no operator has written anything, 69 cluster unreachable.
    """
    document = live_accuracy()
    if not _print_json([document], output):
        print_accuracy(Console(), document)


@cli.command()
@click.option(
    "-f", "files", multiple=True, required=True, metavar="FILE", help="Manifest, folder, or - for standard input; may be repeated."
)
@click.option("-o", "output", type=click.Choice(["json"]), default="json", show_default=True, help="Form of the answer.")
@click.pass_context
def extract(context: click.Context, files: tuple[str, ...], output: str) -> None:  # noqa: ARG001  # one form so far
    """Print what manifests of any supported kind declare, and what in them could not be read.

    Objects that others refer to (ConfigMaps, runtimes, presets, claim templates) are looked for in the same files. Exit
    code: 65 for a document that cannot be read (named; the others are printed), 66 no such file.
    """
    documents = list(read_documents(files))
    found = extracted(each for each in documents if isinstance(each, Document))
    unreadable = [each for each in documents if isinstance(each, Unreadable)] + found.unreadable
    for each in unreadable:
        click.echo(f"error: {each}", err=True)
    if not found.declarations and not unreadable:
        click.echo("no declaration found", err=True)
    click.echo(json.dumps({"declarations": found.declarations, "ignored": found.ignored}, indent=2))
    context.exit(BAD_DATA if unreadable else 0)


@cli.command()
@click.option(
    "--cluster",
    "clusters",
    multiple=True,
    metavar="SNAPSHOT",
    help="Nodes and ResourceSlices as YAML or JSON (kubectl get -o yaml will do). Default: the live cluster.",
)
@click.option("-o", "output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="Form of the answer.")
@click.pass_context
def nodes(context: click.Context, clusters: tuple[str, ...], output: str) -> None:
    """Show how each node's GPUs are read, and where each fact comes from.

    Exit code: 65 for a node that cannot be read (named; the others are shown), 66 no such file, 69 cluster unreachable.
    """
    snapshot = _snapshot(clusters, None)
    found = snapshot.nodes()
    for each in snapshot.unreadable:
        click.echo(f"error: {each}", err=True)
    if output == "json":
        click.echo(json.dumps({"nodes": found}, indent=2))
    else:
        print_nodes(Console(), found)
    context.exit(BAD_DATA if snapshot.unreadable else 0)


@cli.command(add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def agent(context: click.Context, arguments: tuple[str, ...]) -> None:
    """Read this node's GPU driver: print it (--once), or keep the node's GpuNodeReport."""
    from shardgate.shells.agent.command import run  # noqa: PLC0415  # pynvml takes 20 MiB, and __main__ passes this by

    context.exit(run(arguments))


@cli.group()
def model() -> None:
    """Private models: what their names stand for."""


@model.command(name="add")
@click.argument("folder", metavar="DIR")
@click.option(
    "--match", multiple=True, metavar="NAME", help="As declarations spell the model; may be repeated. Default: DIR itself."
)
@click.option("--name", metavar="NAME", help="Of the ModelProfile. Default: DIR's last part.")
def model_add(folder: str, match: tuple[str, ...], name: str | None) -> None:
    """Print a ModelProfile of a folder's config.json and safetensors index; no weights are read.

    Exit code: 65 where config.json or the index cannot be read, 66 where there is none.
    """
    click.echo(yaml.safe_dump(profile_of_folder(folder, match, name), sort_keys=False), nl=False)


@cli.command()
@click.argument("what", type=click.Choice(["webhooks", "leftovers"]))
@click.option("-n", "--namespace", metavar="NAMESPACE", required=True, help="Where the operator ran.")
def uninstall(what: str, namespace: str) -> None:
    """Remove what must go before or after the operator: the chart's hooks run this; `helm uninstall` is the whole of it.

    webhooks: their configurations, first, so that nobody waits for an operator that is going. leftovers: what it made while
    it ran (its Lease and Secret, the CapacityLedger, WorkloadVerdicts), last. Declarations, exceptions and policies stay.
    Exit code: 0 also where they are gone already, 69 cluster unreachable or not allowed.
    """
    for each in removed_webhooks() if what == "webhooks" else removed_leftovers(namespace):
        click.echo(each)


def _snapshot(clusters: tuple[str, ...], gpus: str | None, declared: Sequence[Mapping[str, Any]] = ()) -> Snapshot:
    if gpus is not None:
        try:
            return from_gpus(gpus)
        except GpusError as error:
            problem = f"--gpus {error}"
            raise click.UsageError(problem) from error
    if clusters:
        snapshot = Snapshot()
        snapshot.add(read_documents(clusters))
        return snapshot
    return live_snapshot(declared)


def _judge(document: Document, library: Library, snapshot: Snapshot, results: list[_Result], unreadable: list[Unreadable]) -> None:
    profiles = snapshot.book.rules.known_profiles
    try:
        declaration = read_declaration(document.body, profiles, groups_in(library, profiles))
    except ExceptionGroup as problems:
        name = (document.body.get("metadata") or {}).get("name") or "without a name"
        unreadable += [Unreadable(f"{document.where}, InferenceDeployment {name}", str(each)) for each in mistakes_in(problems)]
        return
    subject = declaration.subject
    policy = snapshot.book.rules.policy_for(subject.namespace, f"{subject.kind}.{GROUP}", OWN_KIND)
    verdict = verify_declaration(declaration, snapshot.inventory(), policy)
    answer = enforce(declaration, verdict, replace(policy, mode=Mode.ENFORCE), None)
    reference = reference_of(document.body.get("spec") or {}, verdict, policy)
    results.append(_Result(report(declaration, verdict, reference=reference), not answer.allowed, verdict.outcome))
    if answer.allowed:
        _take(snapshot, [(declaration, verdict)])


def _judge_workload(document: Document, library: Library, snapshot: Snapshot, results: list[_Result]) -> None:
    """An object of another kind; one that serves nothing is left alone."""
    workload = read_workload(document.body, library)
    if workload is None:
        return
    subject = workload.subject
    group = subject.api_version.rpartition("/")[0]
    policy = snapshot.book.rules.policy_for(subject.namespace, f"{subject.kind}.{group}", FOREIGN_KIND)
    declarations = [each.declaration for each in declare(workload) if each.declaration is not None]
    snapshot.offer(name for each in declarations for name in each.placement.requests)
    found = judged(workload, snapshot.book.rules.known_profiles, snapshot.inventory(), policy)
    if found is None:
        return
    enforced = replace(policy, mode=Mode.ENFORCE)
    refused = not enforce(found.declarations[0] if found.declarations else None, found.verdict, enforced, None).allowed
    reference = reference_of(document.body.get("spec") or {}, found.verdict, policy)
    results.append(_Result(workload_report(found, reference=reference), refused, found.verdict.outcome))
    if not refused:
        _take(
            snapshot,
            [(each.group.declaration, each.verdict) for each in found.groups if each.group.declaration and each.verdict],
        )


def _take(snapshot: Snapshot, admitted: list[tuple[Declaration, Verdict]]) -> None:
    """The admitted declarations' pods hold their GPUs from now on; those that run already are among them."""
    taken = [(declaration, verdict.placement) for declaration, verdict in admitted if verdict.placement and verdict.placement.pods]
    if taken:
        snapshot.book.drop_own_pods(taken[0][0].owners)
    for number, (declaration, placement) in enumerate(taken):
        uid = f"{declaration.subject.label} {number}"
        pods = planned(declaration, placement)
        snapshot.book.claims.put(Claim(uid=uid, generation=0, owners=(declaration.subject.owner,), pods=pods))


def _print_json(reports: Sequence[Mapping[str, Any]], output: str) -> bool:
    """In one of the forms of JSON; whether it was one."""
    if output == "json":
        click.echo(json.dumps(reports[0] if len(reports) == 1 else reports, indent=2))
    elif output == "jsonl":
        for each in reports:
            click.echo(json.dumps(each))
    return output in ("json", "jsonl")


def _print(results: list[_Result], output: str) -> None:
    reports = [each.report for each in results]
    if not _print_json(reports, output):
        console = Console()
        for each in reports:
            print_report(console, each)


def _exit_code(results: list[_Result], unreadable: list[Unreadable]) -> int:
    if unreadable:
        return BAD_DATA
    if any(each.refused for each in results):
        return REFUSED
    return UNDECIDED if any(each.outcome is Outcome.UNDECIDED for each in results) else 0


def main() -> None:
    """Run, and end with the exit codes that are promised; never with a traceback."""
    try:
        code = cli.main(standalone_mode=False)
    except click.UsageError as error:
        error.show()
        code = USAGE
    except click.ClickException as error:
        error.show()
        code = USAGE
    except (click.Abort, KeyboardInterrupt):
        code = 130
    except UnreadableFolder as error:
        click.echo(f"error: {error}", err=True)
        code = BAD_DATA
    except (NoSuchFile, NoSuchObject) as error:
        click.echo(f"error: {error}", err=True)
        code = NO_INPUT
    except (ClusterUnreachable, ApiError) as error:
        click.echo(f"error: cluster: {error}", err=True)
        code = UNAVAILABLE
    except BrokenPipeError:
        sys.stderr.close()
        code = 0
    except Exception as error:  # noqa: BLE001  # the last resort: a person gets a sentence
        click.echo(f"error: internal: {type(error).__name__}: {error}", err=True)
        code = INTERNAL
    sys.exit(code or 0)
