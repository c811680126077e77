"""ConfigMaps are read by name, kept while a workload names them, and change nothing while they are the same."""

import asyncio
from typing import Any

import pytest

from builders import a_vllm_deployment, standing
from shardgate.adapters.workloads.config_map_names import config_maps_named
from shardgate.adapters.workloads.library import Library
from shardgate.shells import config_maps as module
from shardgate.shells.cluster import ApiError
from shardgate.shells.config_maps import ConfigMaps

Json = dict[str, Any]


def naming(*names: str, uid: str = "u") -> Json:
    body = a_vllm_deployment()
    body["spec"]["template"]["spec"]["volumes"] = [{"name": name, "configMap": {"name": name}} for name in names]
    return standing(body, uid)


class Served:
    """Stands in for the API server: ConfigMaps by name."""

    def __init__(self, **data: Json) -> None:
        self.data, self.asked = data, list[str]()
        self.problem: ApiError | None = None

    async def request(self, _: str, path: str) -> Json:
        name = path.rsplit("/", 1)[1]
        self.asked.append(name)
        if self.problem is not None:
            raise self.problem
        if name not in self.data:
            raise ApiError(404, "NotFound", name)
        return {"data": self.data[name]}


async def turn(maps: ConfigMaps, seconds: float = 0.05) -> None:
    task = asyncio.create_task(maps.run())
    await asyncio.sleep(seconds)
    task.cancel()


def test_names_are_found_wherever_they_stand() -> None:
    body = naming("a")
    container = body["spec"]["template"]["spec"]["containers"][0]
    container["envFrom"] = [{"configMapRef": {"name": "b"}}, {"secretRef": {"name": "no"}}]
    container["env"] = [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "x"}}}]
    assert sorted(config_maps_named(body)) == ["a", "b", "c"]
    assert list(config_maps_named({"inference": {"config": "d"}})) == ["d"]
    deep: Json = {}
    for _ in range(1000):
        deep = {"x": deep}
    assert list(config_maps_named({"spec": deep})) == []


def test_they_are_read_once_and_go_with_their_last_workload() -> None:
    async def test() -> None:
        served, library = Served(a={"x": "1"}), Library()
        maps = ConfigMaps(served, library)  # type: ignore[arg-type]
        maps.follow(naming("a", "missing"))
        maps.follow(naming("a", uid="v"))
        await turn(maps)
        assert sorted(served.asked) == ["a", "missing"]
        stored = library.find("ConfigMap", "a", "serving")
        assert stored is not None
        assert stored["data"] == {"x": "1"}
        version = library.version
        maps.follow(naming("a"))
        await turn(maps)
        assert (served.asked.count("a"), library.version) == (2, version), "read again, and the same"
        maps.unfollow("u")
        assert library.find("ConfigMap", "a", "serving") is not None
        maps.unfollow("v")
        assert library.find("ConfigMap", "a", "serving") is None

    asyncio.run(test())


def test_they_are_read_again_now_and_then_and_a_failure_keeps_what_was(monkeypatch: Any) -> None:
    async def test() -> None:
        monkeypatch.setattr(module, "AGAIN_SECONDS", 0.02)
        served, library = Served(a={"x": "1"}), Library()
        maps = ConfigMaps(served, library)  # type: ignore[arg-type]
        maps.follow(naming("a"))
        await turn(maps)
        served.problem = ApiError(403, "Forbidden", "configmaps")
        served.data["a"] = {"x": "2"}
        await turn(maps)
        stored = library.find("ConfigMap", "a", "serving")
        assert stored is not None
        assert stored["data"] == {"x": "1"}
        served.problem = None
        await turn(maps)
        stored = library.find("ConfigMap", "a", "serving")
        assert stored is not None
        assert stored["data"] == {"x": "2"}
        del served.data["a"]
        await turn(maps)
        assert library.find("ConfigMap", "a", "serving") is None

    asyncio.run(test())


def test_one_that_is_not_here_is_looked_for_soon_and_then_ever_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SOON_SECONDS", 0.01)

    async def test() -> None:
        served, library = Served(), Library()
        maps = ConfigMaps(served, library)  # type: ignore[arg-type]  # stands in
        maps.follow(naming("a"))
        await turn(maps, 0.5)
        assert 2 <= len(served.asked) <= 8, "0.01, 0.02, 0.04, .. later"
        served.data["a"] = {"x": "1"}
        await turn(maps, 1.0)
        assert library.find("ConfigMap", "a", "serving") is not None

    asyncio.run(test())
