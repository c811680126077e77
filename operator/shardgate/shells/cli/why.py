"""``shardgate why``."""

import rich_click as click

from shardgate.shells.cli.consoles import console
from shardgate.shells.cli.exit_codes import NO_INPUT
from shardgate.shells.cli.forms import print_json
from shardgate.shells.cli.options import output_option
from shardgate.shells.cluster import own_namespace
from shardgate.shells.kept_decisions import Found, kept_decisions
from shardgate.shells.terminal import print_decision, print_explanation
from shardgate.shells.why import why_live


@click.command()
@click.argument("subject", metavar="[KIND/NAME]", required=False)
@click.option("--ref", "reference", metavar="REF", help="A decision of admission, by the reference that its message ends in.")
@click.option("-n", "--namespace", metavar="NAMESPACE", help="Default: that of the kubeconfig's current context.")
@output_option()
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
    if not print_json([answer], output):
        print_explanation(console(), answer)


def _why_reference(reference: str, namespace: str, output: str, *, with_facts: bool) -> int:
    found = kept_decisions(reference, namespace)
    if not found.decisions:
        click.echo(f"error: {_not_kept(reference, namespace, found)}", err=True)
        return NO_INPUT
    decisions = [each if with_facts else {**each, "facts": None} for each in found.decisions]
    if not print_json(decisions, "json" if with_facts else output):
        screen = console()
        for each in decisions:
            print_decision(screen, each)
    return 0


def _not_kept(reference: str, namespace: str, found: Found) -> str:
    if not found.replicas:
        return f"namespace {namespace} is exempt from admission: nothing is decided there"
    asked = ", ".join(f"{name} ({kept} kept)" for name, kept in sorted(found.replicas.items()))
    return (
        f"no decision {reference} of namespace {namespace} is kept by those replicas that answered: {asked}; "
        "each keeps its last 200, and none outlives its process"
    )
