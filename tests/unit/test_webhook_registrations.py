"""Whether the API server still calls us: configurations that are missing, or say something else."""

import asyncio
import copy
from typing import Any

import pytest

from shardgate.adapters.manifests import webhook_configurations
from shardgate.shells import webhook_registrations as module
from shardgate.shells.cluster import ApiError
from shardgate.shells.metrics import Metrics
from shardgate.shells.webhook_registrations import WebhookRegistrations
from shardgate.shells.writer import Writer

Json = dict[str, Any]
SERVICE = {"service": {"name": "shardgate-webhook", "namespace": "shardgate-system", "port": 443}, "caBundle": "YQ=="}


class Api:
    """Stands in for the API server: both configurations, with its defaults."""

    def __init__(self) -> None:
        made = webhook_configurations(SERVICE, exempt_namespaces=["shardgate-system"], failure_policy="Fail")
        self.bodies = {f"{each['kind'].lower()}s": copy.deepcopy(each) for each in made}
        for body in self.bodies.values():
            for each in body["webhooks"]:
                each["objectSelector"] = {}

    async def request(self, method: str, path: str, **_: Any) -> Json:
        assert method == "GET"
        plural = path.split("/")[-2]
        if plural not in self.bodies:
            raise ApiError(404, "NotFound", path)
        return copy.deepcopy(self.bodies[plural])


VALIDATING, MUTATING = "validatingwebhookconfigurations", "mutatingwebhookconfigurations"


def looked(api: Api, subject: WebhookRegistrations | None = None) -> WebhookRegistrations:
    subject = subject or WebhookRegistrations(Writer(api, Metrics(), "t"), Metrics())  # type: ignore[arg-type]
    asyncio.run(subject.look())
    return subject


def test_as_installed_nothing_is_said_whatever_was_chosen() -> None:
    assert looked(Api()).stated()[:2] == ("True", "AsInstalled")


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("rules", [], "validate.shardgate.io: rules is not this version's"),
        ("matchConditions", [{"name": "never", "expression": "false"}], "validate.shardgate.io: matchConditions is not this version's"),
        ("failurePolicy", "Ignore", "validate.shardgate.io: failurePolicy was changed"),
        ("clientConfig", {"url": "https://elsewhere.example/"}, "validate.shardgate.io: clientConfig was changed"),
        ("objectSelector", {"matchLabels": {"judged": "yes"}}, "validate.shardgate.io: objectSelector was changed"),
        ("namespaceSelector", None, "validate.shardgate.io: namespaceSelector was changed"),
    ],
)  # fmt: skip
def test_what_was_changed_is_named_until_it_is_put_back(field: str, value: Any, said: str) -> None:
    api = Api()
    subject = looked(api)
    before = api.bodies[VALIDATING]["webhooks"][0][field]
    api.bodies[VALIDATING]["webhooks"][0][field] = value
    looked(api, subject)
    assert subject.stated() == ("False", "Changed", said)
    series = subject._metrics.webhook_problems.labels("ValidatingWebhookConfiguration")
    assert series._value.get() == 1
    api.bodies[VALIDATING]["webhooks"][0][field] = before
    looked(api, subject)
    assert (subject.stated()[0], series._value.get()) == ("True", 0)


@pytest.mark.parametrize(("plural", "name"), [(VALIDATING, "exceptions.shardgate.io"), (MUTATING, "grants.shardgate.io")])
@pytest.mark.parametrize("field", ["namespaceSelector", "objectSelector"])
def test_guards_that_leave_something_out_are_named_from_the_first_look(plural: str, name: str, field: str) -> None:
    api = Api()
    (guard,) = (each for each in api.bodies[plural]["webhooks"] if each["name"] == name)
    guard[field] = {"matchLabels": {"judged": "yes"}}
    assert looked(api).stated() == ("False", "Changed", f"{name}: {field} is not this version's")


def test_conditions_that_the_installation_adds_are_its_own_and_kept() -> None:
    """One that nobody had when it was first seen takes objects away from us."""
    own = {"name": "not-the-robot", "expression": "request.userInfo.username != 'robot'"}
    api = Api()
    api.bodies[VALIDATING]["webhooks"][0]["matchConditions"].append(own)
    subject = looked(api)
    assert subject.stated()[:2] == ("True", "AsInstalled")
    api.bodies[VALIDATING]["webhooks"][0]["matchConditions"].append({"name": "never", "expression": "false"})
    assert looked(api, subject).stated() == ("False", "Changed", "validate.shardgate.io: matchConditions was changed")


def test_a_ca_bundle_that_is_renewed_is_no_change() -> None:
    api = Api()
    subject = looked(api)
    api.bodies[MUTATING]["webhooks"][0]["clientConfig"]["caBundle"] = "Yg=="
    assert looked(api, subject).stated()[0] == "True"


def test_webhooks_that_are_gone_or_strange_are_named() -> None:
    api = Api()
    gone = api.bodies[VALIDATING]["webhooks"].pop()
    api.bodies[MUTATING]["webhooks"].append({"name": "other.shardgate.io"})
    _, reason, message = looked(api).stated()
    assert (reason, message) == ("Changed", f"{gone['name']} is missing; other.shardgate.io is none of this version")


def test_one_that_goes_is_missed_at_once_and_one_that_never_came_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    api = Api()
    subject = looked(api)
    del api.bodies[VALIDATING]
    looked(api, subject)
    assert subject.stated() == ("False", "Missing", "the ValidatingWebhookConfiguration shardgate is missing")
    fresh = looked(api)
    assert fresh.stated()[:2] == ("Unknown", "NotSeen"), "it may still be installed"
    clock[0] += 61
    assert looked(api, fresh).stated()[1] == "Missing"
