"""The rules, one situation each."""

from typing import Any

import pytest

from builders import GPU, T4, NodeBuilder, a_body, a_book, a_declaration, a_node, a_pod, an_inventory
from shardgate.adapters.policies import read_policy
from shardgate.adapters.referred_workloads import read_declaration
from shardgate.domain.inventory import Inventory
from shardgate.domain.placement import summary_of
from shardgate.domain.policy import FOREIGN_KIND, OWN_KIND, Capacity, Policy, effective_policy
from shardgate.domain.verdict import FindingClass, Outcome, Verdict
from shardgate.domain.verify import verify

OPEN = Policy(capacity=Capacity.OPEN)


def judged(*objects: NodeBuilder | dict[str, Any], policy: Policy = OWN_KIND, **changes: Any) -> Verdict:
    return verify(a_declaration(**changes), an_inventory(*objects), policy)


def outcomes(verdict: Verdict) -> dict[str, Outcome]:
    return {each.code: each.outcome for each in verdict.findings}


def message(verdict: Verdict, code: str) -> str:
    return next(each.message for each in verdict.findings if each.code == code)


# ---- the two references


def test_the_compatible_reference_is_sound() -> None:
    verdict = judged(a_node())
    assert verdict.outcome is Outcome.SOUND
    assert verdict.score == 95
    assert verdict.placement is not None
    (pod,) = verdict.placement.pods
    assert pod.ranks == pod.local_gpus == tuple(range(8))


def test_the_incompatible_reference_is_unsound_in_three_ways() -> None:
    verdict = judged(a_node(gpus=1, labels=T4))
    assert verdict.codes == ("GpuCountTooLow", "WeightsDoNotFit", "ModelExceedsCluster")
    assert verdict.score == 0
    assert message(verdict, "GpuCountTooLow") == "TP2 x PP4 x DP1 needs 8 GPUs, the cluster has 1 (Tesla-T4)"
    assert "16.9 GiB of weights, a Tesla-T4 offers 13.3 GiB of 15.0 GiB" in message(verdict, "WeightsDoNotFit")


# ---- shape


@pytest.mark.parametrize("engine", ["vllm", "lmdeploy", "tgi"])
def test_heads_that_do_not_divide_are_refused_where_the_engine_has_the_rule(engine: str) -> None:
    verdict = judged(a_node(), engine={"name": engine}, strategy={"tensor": 3, "pipeline": 1}, gpus={"perPod": 3})
    assert outcomes(verdict)["HeadsUneven"] is Outcome.UNSOUND


def test_a_rule_is_not_raised_for_an_engine_that_does_not_have_it() -> None:
    verdict = judged(a_node(), engine={"name": "nim"}, strategy={"tensor": 3, "pipeline": 1}, gpus={"perPod": 3})
    assert "HeadsUneven" not in verdict.codes


def test_an_unknown_engine_leaves_the_rule_open() -> None:
    verdict = judged(a_node(), engine={"name": "other"}, strategy={"tensor": 3, "pipeline": 1}, gpus={"perPod": 3})
    assert outcomes(verdict)["HeadsUneven"] is Outcome.UNDECIDED
    assert outcomes(verdict)["EngineUnknown"] is Outcome.UNDECIDED


@pytest.mark.parametrize(("tensor", "is_even"), [(1, True), (2, True), (8, True), (16, True), (64, True), (32, True)])
def test_kv_heads_may_be_split_or_replicated(tensor: int, is_even: bool) -> None:
    verdict = judged(a_node(gpus=64), strategy={"tensor": tensor, "pipeline": 1}, gpus=None)
    assert ("KvHeadsUneven" not in verdict.codes) is is_even


def test_kv_heads_that_neither_divide_nor_multiply() -> None:
    config = {"num_attention_heads": 48, "num_key_value_heads": 8, "hidden_size": 6144}
    verdict = judged(a_node(gpus=12), model={"config": config}, strategy={"tensor": 12, "pipeline": 1}, gpus={"perPod": 12})
    assert "HeadsUneven" not in verdict.codes
    assert message(verdict, "KvHeadsUneven") == "8 KV heads cannot be shared evenly by 12 tensor ranks"


def test_more_stages_than_layers() -> None:
    verdict = judged(a_node(gpus=96), engine={"name": "tensorrt-llm"}, strategy={"tensor": 1, "pipeline": 96}, gpus={"perPod": 96})
    assert outcomes(verdict)["LayersTooFew"] is Outcome.UNSOUND
    vllm = judged(a_node(gpus=96), strategy={"tensor": 1, "pipeline": 96}, gpus={"perPod": 96})
    assert outcomes(vllm)["LayersTooFew"] is Outcome.UNDECIDED


def test_declared_stages_must_add_up() -> None:
    verdict = judged(a_node(), strategy={"layersPerStage": [20, 20, 20, 22]})
    assert outcomes(verdict)["DeclarationContradicts"] is Outcome.UNSOUND
    assert "82 layers in all, the model has 80" in message(verdict, "DeclarationContradicts")
    assert "DeclarationContradicts" not in judged(a_node(), strategy={"layersPerStage": [20, 20, 21, 19]}).codes


def test_pods_that_share_ranks_unevenly() -> None:
    nodes = [a_node(f"n{i}", gpus=3) for i in range(3)]
    assert outcomes(judged(*nodes, gpus={"perPod": 3}))["WorldSizeMismatch"] is Outcome.RISKY
    sglang = judged(*nodes, engine={"name": "sglang"}, gpus={"perPod": 3})
    assert outcomes(sglang)["WorldSizeMismatch"] is Outcome.UNSOUND


# ---- memory


def test_weights_are_held_against_every_gpu_never_pooled() -> None:
    verdict = judged(*[a_node(f"t{i}", gpus=8, labels=T4) for i in range(2)])
    assert outcomes(verdict)["WeightsDoNotFit"] is Outcome.UNSOUND
    assert "ModelExceedsCluster" not in verdict.codes


def test_under_open_capacity_a_larger_gpu_may_come() -> None:
    verdict = judged(a_node(labels=T4), policy=OPEN)
    assert outcomes(verdict)["WeightsDoNotFit"] is Outcome.WAITING


@pytest.mark.parametrize(
    "changes",
    [
        {"gpus": {"perPod": 8, "products": ["Tesla-T4"]}},
        {"placement": {"nodeSelector": {"nvidia.com/gpu.product": "Tesla-T4"}}},
    ],
)
def test_under_open_capacity_a_product_that_can_never_do_is_refused(changes: dict[str, Any]) -> None:
    verdict = judged(a_node(labels=T4), policy=OPEN, **changes)
    assert outcomes(verdict)["WeightsDoNotFit"] is Outcome.UNSOUND


def test_under_open_capacity_no_gpu_in_the_table_would_do() -> None:
    verdict = judged(
        a_node(),
        policy=OPEN,
        model={"name": "meta-llama/Meta-Llama-3.1-405B", "weights": "bf16"},
        strategy={"tensor": 1, "pipeline": 1},
        gpus={"perPod": 1},
    )
    assert outcomes(verdict)["WeightsDoNotFit"] is Outcome.UNSOUND


def test_the_scheduler_may_choose_gpus_that_are_too_small() -> None:
    verdict = judged(a_node(), a_node("small", labels=T4))
    assert outcomes(verdict) == {"WeightsDoNotFit": Outcome.RISKY}
    assert verdict.placement is not None
    assert [pod.node for pod in verdict.placement.pods] == ["node-a"]
    chosen = judged(a_node(), a_node("small", labels=T4), gpus={"perPod": 8, "products": ["h100*"]})
    assert chosen.outcome is Outcome.SOUND


def test_a_limit_inside_the_uncertainty_is_not_a_coin_toss() -> None:
    """A product without a measurement: CUDA sees up to 0.75 GiB less than what the label says."""
    labels = {"nvidia.com/gpu.product": "Some-New-GPU", "nvidia.com/gpu.memory": "24600"}
    verdict = judged(a_node(labels=labels), engine={"memoryUtilization": 0.9})
    assert outcomes(verdict) == {"MemoryTight": Outcome.UNDECIDED}


def test_an_engine_whose_fraction_is_of_free_memory_does_not_bound_the_weights() -> None:
    labels = {"nvidia.com/gpu.product": "Some-New-GPU", "nvidia.com/gpu.memory": "19500"}
    verdict = judged(a_node(labels=labels), engine={"name": "tensorrt-llm", "memoryUtilization": 0.5})
    assert "WeightsDoNotFit" not in verdict.codes


# ---- capacity


def test_busy_gpus_are_waiting() -> None:
    verdict = judged(a_node(), a_pod("p", node="node-a", gpus=4, namespace="other"))
    assert outcomes(verdict) == {"GpusBusy": Outcome.WAITING}
    assert "4 of 8 are free" in message(verdict, "GpusBusy")


def test_own_pods_are_room_of_ones_own() -> None:
    assert judged(a_node(), a_pod("p", node="node-a", gpus=8, declaration="llama")).outcome is Outcome.SOUND
    assert judged(a_node(), a_pod("p", node="node-a", gpus=8, declaration="other")).outcome is Outcome.WAITING


@pytest.mark.parametrize(
    ("node", "why"),
    [
        (a_node().cordoned(), "cordoned"),
        (a_node().not_ready(), "not ready"),
        (a_node().allocatable(7), "1 GPU not healthy"),
        (a_node().label("nvidia.com/mig.config.state", "pending"), "in transition"),
    ],
)
def test_what_may_come_back_is_waiting_even_when_closed(node: NodeBuilder, why: str) -> None:
    verdict = judged(node)
    assert outcomes(verdict) == {"NodesUnavailable": Outcome.WAITING}
    assert why in message(verdict, "NodesUnavailable")


def test_a_cordoned_node_is_left_out_as_cordoned_not_as_tainted() -> None:
    verdict = judged(a_node().cordoned(), a_node("b", gpus=4))
    assert verdict.placement is not None
    assert summary_of(verdict.placement.excluded) == "2 nodes: 1 cordoned, 1 with fewer than 8 free GPUs"


def test_a_pod_that_tolerates_a_cordon_goes_there() -> None:
    toleration = {"key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule"}
    assert judged(a_node().cordoned(), placement={"tolerations": [toleration]}).outcome is Outcome.SOUND


@pytest.mark.parametrize(
    ("toleration", "fits"),
    [
        ({"key": "team", "operator": "Exists"}, True),
        ({"key": "team", "value": "other"}, True),
        ({"key": "team", "value": "mine"}, False),
        ({"operator": "Exists"}, True),
        ({"key": "team", "operator": "Exists", "effect": "NoExecute"}, False),
    ],
)
def test_taints_and_tolerations(toleration: dict[str, str], fits: bool) -> None:
    verdict = judged(a_node().tainted(), placement={"tolerations": [toleration]})
    assert (verdict.outcome is Outcome.SOUND) is fits


def test_a_taint_that_only_prefers_is_no_obstacle() -> None:
    assert judged(a_node().tainted(effect="PreferNoSchedule")).outcome is Outcome.SOUND


def test_nodes_left_out_are_counted_by_reason() -> None:
    verdict = judged(a_node().tainted(), a_node("b", gpus=4))
    assert outcomes(verdict) == {"NodesDoNotFit": Outcome.UNSOUND}
    assert "2 nodes: 1 tainted team=other, 1 with fewer than 8 free GPUs" in message(verdict, "NodesDoNotFit")


@pytest.mark.parametrize(
    ("selector", "fits"),
    [
        ({"pool": "a"}, True),
        ({"pool": "b"}, False),
        ({"kubernetes.io/hostname": "node-a"}, True),
        ({"kubernetes.io/hostname": "node-b"}, False),
    ],
)
def test_node_selector(selector: dict[str, str], fits: bool) -> None:
    verdict = judged(a_node().label("pool", "a"), placement={"nodeSelector": selector})
    assert (verdict.outcome is Outcome.SOUND) is fits


def test_every_requested_resource_counts() -> None:
    assert judged(a_node(), placement={"requests": {"memory": "512Gi"}}).outcome is Outcome.SOUND
    verdict = judged(a_node(), placement={"requests": {"memory": "2Ti"}})
    assert "too little CPU, memory or pod room" in message(verdict, "NodesDoNotFit")


def test_a_replica_may_span_nodes_and_its_tensor_groups_stay_whole() -> None:
    verdict = judged(a_node(gpus=4), a_node("node-b", gpus=4), gpus={"perPod": 4})
    assert verdict.outcome is Outcome.SOUND
    assert verdict.placement is not None
    assert {pod.node: pod.ranks for pod in verdict.placement.pods} == {"node-a": (0, 1, 2, 3), "node-b": (4, 5, 6, 7)}


def test_pods_of_unset_size_are_the_fewest_equal_ones_that_fit() -> None:
    verdict = judged(a_node(gpus=4), a_node("node-b", gpus=4), gpus=None)
    assert (verdict.required.pods_per_replica, verdict.required.gpus_per_pod) == (2, 4)
    assert verdict.outcome is Outcome.SOUND


def test_one_replica_that_fits_is_never_refused() -> None:
    verdict = judged(a_node(), replicas=3)
    assert outcomes(verdict) == {"GpuCountTooLow": Outcome.WAITING}
    assert "1 of 3 replicas could fit" in message(verdict, "GpuCountTooLow")
    assert verdict.placement is not None
    assert verdict.placement.replicas_that_fit == 1


def test_zero_replicas_need_nothing() -> None:
    verdict = judged(a_node(gpus=1, labels=T4), replicas=0)
    assert "GpuCountTooLow" not in verdict.codes


@pytest.mark.parametrize(("policy", "outcome"), [(OWN_KIND, Outcome.UNSOUND), (FOREIGN_KIND, Outcome.WAITING)])
def test_too_few_gpus_are_refused_only_where_nothing_may_come(policy: Policy, outcome: Outcome) -> None:
    assert outcomes(judged(a_node(gpus=4), policy=policy))["GpuCountTooLow"] is outcome


def test_pools_that_may_come_count() -> None:
    body = {
        "metadata": {"name": "p"},
        "spec": {"provisionable": [{"name": "pool", "product": "NVIDIA-H100-80GB-HBM3", "gpusPerNode": 8, "maxNodes": 2}]},
    }
    policy = effective_policy([read_policy(body)], {}, "InferenceDeployment.shardgate.io", OWN_KIND)
    assert outcomes(judged(a_node(gpus=1, labels=T4), policy=policy))["NodesToProvision"] is Outcome.WAITING
    assert outcomes(judged(a_node(gpus=1, labels=T4), policy=policy, replicas=3))["GpuCountTooLow"] is Outcome.WAITING


def test_a_product_that_is_not_accepted() -> None:
    verdict = judged(a_node(), gpus={"perPod": 8, "products": ["B200*"]})
    assert outcomes(verdict) == {"GpuProductNotAccepted": Outcome.UNSOUND}
    assert message(verdict, "GpuProductNotAccepted") == "accepts B200*; the cluster has H100-80GB-HBM3"


def test_another_resource_is_another_gpu() -> None:
    verdict = judged(a_node(), gpus={"perPod": 8, "resource": "amd.com/gpu"})
    assert "GpuCountTooLow" in verdict.codes


# ---- doubtful GPUs beside sure ones


def test_figures_in_messages_are_of_the_gpus_that_count() -> None:
    """Small GPUs that are free beside busy large ones are no help, and not counted as such."""
    busy = judged(a_node(), a_pod("p", node="node-a", gpus=4, namespace="o"), a_node("b", gpus=8, labels=T4))
    assert "4 of 8 are free" in message(busy, "GpusBusy")
    failed = judged(a_node().allocatable(7), a_node("b", gpus=8, labels=T4))
    assert "7 of 8 are available now" in message(failed, "NodesUnavailable")


def test_doubtful_gpus_that_happen_to_be_free_make_nothing_sound() -> None:
    """The sure ones are busy or cordoned: that is waiting, whatever stands free beside them."""
    busy = judged(a_node(), a_pod("p", node="node-a", gpus=8, namespace="o"), a_node("b").without_gpu_labels())
    assert outcomes(busy) == {"GpusBusy": Outcome.WAITING}
    cordoned = judged(a_node().cordoned(), a_node("b").label("nvidia.com/gpu.replicas", "4"))
    assert outcomes(cordoned) == {"NodesUnavailable": Outcome.WAITING}


def test_gpus_that_are_too_small_are_never_counted_beside_doubtful_ones() -> None:
    verdict = judged(a_node("u").without_gpu_labels(), a_node("b", labels=T4), replicas=2)
    assert outcomes(verdict)["GpuCountTooLow"] is Outcome.WAITING
    assert outcomes(verdict)["GpuFactsMissing"] is Outcome.UNDECIDED
    one = judged(a_node("u").without_gpu_labels(), a_node("b", labels=T4))
    assert one.placement is not None
    assert [pod.node for pod in one.placement.pods] == ["u"]


def test_an_unlabelled_gpu_may_be_an_accepted_one() -> None:
    verdict = judged(a_node().without_gpu_labels(), gpus={"perPod": 8, "products": ["H100*"]})
    assert outcomes(verdict) == {"GpuFactsMissing": Outcome.UNDECIDED}


# ---- what is not read


@pytest.mark.parametrize("flag", ["--no-such-flag=1", "--kv-transfer-config={}"])
def test_flags_that_are_not_modelled_refuse_nothing_by_memory(flag: str) -> None:
    assert outcomes(judged(a_node(labels=T4), engine={"args": [flag]}))["WeightsDoNotFit"] is Outcome.UNDECIDED


def test_a_flag_that_is_not_known_is_not_passed_over() -> None:
    assert outcomes(judged(a_node(), engine={"args": ["--no-such-flag=1"]})) == {"DeclarationOpaque": Outcome.UNDECIDED}


def test_weights_kept_on_the_host_are_not_held_against_gpus() -> None:
    verdict = judged(a_node(labels=T4), engine={"args": ["--cpu-offload-gb=15"], "maxModelLen": 2048, "maxSequences": 16})
    assert verdict.outcome is Outcome.SOUND


def test_an_unknown_engine_might_keep_weights_elsewhere() -> None:
    assert outcomes(judged(a_node(labels=T4), engine={"name": "other"}))["WeightsDoNotFit"] is Outcome.UNDECIDED


def test_what_a_referenced_workload_may_say_is_not_refused() -> None:
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"}
    verdict = judged(a_node(), workloadRef=reference, strategy=None, engine=None, gpus=None)
    assert verdict.outcome is Outcome.UNDECIDED


@pytest.mark.parametrize(("dtype", "fits"), [("fp16", True), ("fp32", False)])
def test_engines_convert_unquantised_weights_as_they_load(dtype: str, fits: bool) -> None:
    small = {"model": {"name": "meta-llama/Meta-Llama-3-8B", "dtype": dtype}, "strategy": {"tensor": 1, "pipeline": 1}}
    l4 = {"nvidia.com/gpu.product": "NVIDIA-L4", "nvidia.com/gpu.memory": "23034"}
    verdict = judged(a_node(gpus=1, labels=l4), **small, gpus={"perPod": 1})
    assert (verdict.outcome is Outcome.SOUND) is fits


def test_attention_data_ranks_hold_attention_of_their_own() -> None:
    """Llama 70B with attention whole on each of 8 ranks: 12 GB more than its share, and it still fits an H100."""
    strategy = {"tensor": 8, "pipeline": 1, "data": 8, "attentionData": True}
    verdict = judged(a_node(), engine={"name": "sglang", "version": "0.5.3"}, strategy=strategy)
    assert verdict.outcome is Outcome.SOUND
    plain = judged(a_node(), engine={"name": "sglang", "version": "0.5.3"}, strategy={"tensor": 8, "pipeline": 1})
    assert verdict.weights is not None
    assert plain.weights is not None
    assert verdict.weights.fullest.per_rank > plain.weights.fullest.per_rank + 10 * 2**30


# ---- nodes


def test_a_host_is_selected_by_its_label_not_by_the_nodes_name() -> None:
    node = a_node("ip-10-0-0-1.ec2.internal").label("kubernetes.io/hostname", "ip-10-0-0-1")
    chosen = {"placement": {"nodeSelector": {"kubernetes.io/hostname": "ip-10-0-0-1"}}}
    assert judged(node, **chosen).outcome is Outcome.SOUND
    assert judged(a_node("other"), **chosen).outcome is Outcome.UNSOUND


def test_amounts_that_a_node_does_not_state_are_not_zero() -> None:
    node = a_node()
    for name in ("pods", "cpu", "memory"):
        del node.body["status"]["allocatable"][name]
    assert judged(node, placement={"requests": {"cpu": "8", "memory": "64Gi"}}).outcome is Outcome.SOUND


def test_labelled_gpus_without_a_plugin_yet_are_waited_for() -> None:
    node = a_node().label("nvidia.com/gpu.count", "8")
    for amounts in (node.body["status"]["allocatable"], node.body["status"]["capacity"]):
        del amounts[GPU]
    assert outcomes(judged(node)) == {"NodesUnavailable": Outcome.WAITING}


def test_labelled_gpus_that_a_plugin_counts_as_none_are_waited_for() -> None:
    node = a_node().allocatable(0).label("nvidia.com/gpu.count", "8")
    node.body["status"]["capacity"][GPU] = "0"
    verdict = judged(node)
    assert outcomes(verdict) == {"NodesUnavailable": Outcome.WAITING}
    assert "8 GPUs on nodes in transition" in message(verdict, "NodesUnavailable")


@pytest.mark.parametrize(
    "key",
    ["ebs.csi.aws.com/agent-not-ready", "node.cilium.io/agent-not-ready", "cloud.google.com/impending-node-termination",
     "aws-node-termination-handler/spot-itn", "karpenter.sh/unregistered", "node.kubernetes.io/disk-pressure"],
)  # fmt: skip
def test_taints_that_pass_are_waited_out(key: str) -> None:
    assert outcomes(judged(a_node().tainted(key))) == {"NodesUnavailable": Outcome.WAITING}


def test_a_size_that_no_node_could_choose_is_not_chosen() -> None:
    empty = verify(a_declaration(gpus=None), Inventory(groups=(), nodes_seen=0), OWN_KIND)
    assert (empty.required.gpus, empty.required.gpus_per_pod, empty.required.pods_per_replica) == (8, None, None)


def test_no_replicas_need_no_memory_either() -> None:
    assert judged(a_node(gpus=1, labels=T4), replicas=0).outcome is Outcome.SOUND


def test_the_widest_strategy_is_judged() -> None:
    """Bounded by the schema to 65,536 ranks; a prime number of them is the worst to cut into pods."""
    verdict = judged(a_node(), model={"config": {"num_hidden_layers": 4096}}, strategy={"tensor": 16, "pipeline": 4093}, gpus=None)
    assert verdict.outcome is Outcome.UNSOUND


# ---- quality


def test_gpus_left_over_are_wasteful() -> None:
    verdict = judged(a_node(), strategy={"tensor": 4, "pipeline": 1})
    assert outcomes(verdict) == {"GpusLeftOver": Outcome.WASTEFUL}


# ---- unknowns


def test_an_unknown_model_is_undecided_and_says_what_to_add() -> None:
    verdict = judged(a_node(), model={"name": "acme/secret-70b", "weights": "fp16"})
    assert outcomes(verdict) == {"ModelUnknown": Outcome.UNDECIDED}
    assert "spec.model.config" in verdict.findings[0].remedy
    assert verdict.aspects[FindingClass.MEMORY] is Outcome.UNDECIDED
    assert verdict.aspects[FindingClass.CAPACITY] is Outcome.SOUND


def test_a_config_makes_any_name_known() -> None:
    config = {
        "architectures": ["LlamaForCausalLM"], "hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64,
        "num_key_value_heads": 8, "intermediate_size": 28672, "vocab_size": 128256,
    }  # fmt: skip
    verdict = judged(a_node(), model={"name": "acme/secret-70b", "weights": "fp16", "config": config})
    assert verdict.outcome is Outcome.SOUND
    assert verdict.weights is not None
    assert verdict.weights.parameters == 70_553_706_496


def test_too_few_gpus_for_an_unknown_model_are_still_too_few() -> None:
    verdict = judged(a_node(gpus=1), model={"name": "acme/secret-70b"})
    assert verdict.outcome is Outcome.UNSOUND
    assert verdict.codes == ("GpuCountTooLow", "ModelUnknown")


def test_unlabelled_gpus_are_undecided_not_too_small() -> None:
    assert outcomes(judged(a_node().without_gpu_labels())) == {"GpuFactsMissing": Outcome.UNDECIDED}


def test_unlabelled_gpus_do_not_matter_where_others_do() -> None:
    assert judged(a_node(), a_node("b").without_gpu_labels()).outcome is Outcome.SOUND


def test_shared_gpus_are_undecided() -> None:
    node = a_node().label("nvidia.com/gpu.replicas", "4")
    assert outcomes(judged(node, strategy={"tensor": 2, "pipeline": 1}, gpus={"perPod": 2})) == {"GpuShared": Outcome.UNDECIDED}


def test_an_unmodelled_constraint_matters_only_where_it_decides() -> None:
    affinity = {
        "podAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "x"}}}
            ]
        }
    }
    assert outcomes(judged(a_node(), placement={"affinity": affinity})) == {"ConstraintNotModelled": Outcome.UNDECIDED}
    assert judged(a_node(gpus=4), placement={"affinity": affinity}).codes == ("GpuCountTooLow",)
    preferred = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}
    assert judged(a_node(), placement={"affinity": preferred}).outcome is Outcome.SOUND


@pytest.mark.parametrize("freshness", [{"age_seconds": 91.0}, {"broken_seconds": 31.0}])
def test_a_stale_inventory_decides_nothing(freshness: dict[str, float]) -> None:
    stale = an_inventory(a_node(gpus=1, labels=T4), **freshness)
    verdict = verify(a_declaration(), stale, OWN_KIND)
    assert outcomes(verdict) == {"InventoryStale": Outcome.UNDECIDED}
    assert verdict.placement is None
    uneven = verify(a_declaration(strategy={"tensor": 3, "pipeline": 1}, gpus={"perPod": 3}), stale, OWN_KIND)
    assert uneven.outcome is Outcome.UNSOUND


def test_no_nodes_at_all_is_a_state_of_its_own() -> None:
    for policy in (OWN_KIND, OPEN):
        verdict = verify(a_declaration(), Inventory(groups=(), nodes_seen=0), policy)
        assert outcomes(verdict) == {"InventoryEmpty": Outcome.UNDECIDED}


def test_a_node_that_was_here_a_short_while_ago_is_waited_for() -> None:
    """The only node was deleted: neither an empty cluster nor, worse, one where the pods fit."""
    book = a_book(a_node())
    book.drop_node("node-a", 100)
    assert outcomes(verify(a_declaration(), book.inventory(101), OWN_KIND)) == {"NodesUnavailable": Outcome.WAITING}
    late = verify(a_declaration(), book.inventory(10_000), OWN_KIND)
    assert outcomes(late) == {"InventoryEmpty": Outcome.UNDECIDED}


def test_nodes_without_gpus_are_too_few_only_when_closed() -> None:
    empty = Inventory(groups=(), nodes_seen=3)
    assert "GpuCountTooLow" in verify(a_declaration(), empty, OWN_KIND).codes
    assert outcomes(verify(a_declaration(), empty, OPEN)) == {"InventoryEmpty": Outcome.UNDECIDED}


def test_an_undeclared_engine_is_undecided() -> None:
    assert "EngineUnknown" in judged(a_node(), engine=None).codes


def test_a_workload_reference_is_said_to_be_unread() -> None:
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"}
    assert "DeclarationOpaque" in judged(a_node(), workloadRef=reference).codes


def test_the_same_question_has_the_same_answer() -> None:
    body = a_body()
    inventory = an_inventory(a_node(), a_pod("p", node="node-a", gpus=1))
    assert verify(read_declaration(body), inventory, OWN_KIND) == verify(read_declaration(body), inventory, OWN_KIND)
    assert GPU in inventory.nodes[0].used


def test_daemon_pods_are_there_when_idle_too() -> None:
    """A DaemonSet's pods hold CPU whatever else runs: what needs that CPU will not fit by waiting."""
    daemon = a_pod("agent", node="node-a", gpus=0, namespace="kube-system")
    daemon["metadata"]["ownerReferences"] = [
        {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "agent", "uid": "u", "controller": True}
    ]
    daemon["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "8"}}
    wanted = {"requests": {"cpu": "60"}}
    assert judged(a_node(), daemon, placement=wanted).codes[0] == "NodesDoNotFit"
    daemon["metadata"]["ownerReferences"] = []
    assert judged(a_node(), daemon, placement=wanted).codes[0] == "GpusBusy"


def test_stages_go_to_neighbouring_nodes() -> None:
    """Two replicas of two pods on four nodes: each within one NVLink clique, whatever the nodes are called."""
    cliques = {"a": "x.1", "b": "x.2", "c": "x.1", "d": "x.2"}
    nodes = [a_node(name).label("nvidia.com/gpu.clique", clique) for name, clique in cliques.items()]
    verdict = judged(*nodes, strategy={"tensor": 8, "pipeline": 2}, replicas=2, gpus={"perPod": 8})
    assert verdict.placement is not None
    by_replica: dict[int, set[str]] = {}
    for pod in verdict.placement.pods:
        by_replica.setdefault(pod.replica, set()).add(cliques[pod.node])
    assert all(len(each) == 1 for each in by_replica.values())
    assert len(by_replica) == 2
