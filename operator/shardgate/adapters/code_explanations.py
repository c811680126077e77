"""A finding's code -> what it means, which engines' rules it stands for, from which versions, and what helps."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from shardgate.adapters.engines.table import versions_of
from shardgate.adapters.finding_catalogue import MEANINGS, REMEDIES
from shardgate.adapters.tables import table
from shardgate.api import API_VERSION
from shardgate.domain.codes import CLASS_OF_CODE, WORST_OF_CODE

Json = dict[str, Any]
KIND = "FindingExplanation"

CODE_OF_RULE: Mapping[str, str] = MappingProxyType(
    {
        rule: code
        for code, rules in {
            "HeadsUneven": "heads",
            "KvHeadsUneven": "kvHeads",
            "VocabularyUneven": "vocabulary",
            "WidthUnsupported": "noAttentionData noDecodeContext noPrefillContext noExpertWidth noPipeline powerOfTwo "
            "decodeContext "
            "prefillContextWithData prefillContextWithDecode contextWithExperts externalBalancingOfDense nodesBackend",
            "ExpertsUneven": "experts balancedExperts expertWidth expertsFewer",
            "DeclarationContradicts": "balancesExpertParallel noAutoLength stagesAddUp",
            "LayersTooFew": "layersTooFew",
            "PipelineUnsupported": "pipelineOfEncoder pipelineUnsupported pipelineListed",
            "QuantizationBlockUneven": "quantisationBlocks quantisationGroups quantisationGroupsOfExperts",
            "WorldSizeMismatch": "nodesDivide ranksOverPods oneNode localExecutor dataOverNodes",
            "ContextTooLong": "contextTooLong",
            "PrecisionUnsupported": "leastGpu leastCapability leastCapabilityOlder bfloat16 bfloat16ByDefault",
            "WeightsDoNotFit": "weightsExceed",
            "NoRoomForKvCache": "noBlocks",
            "ContextDoesNotFit": "fullLength",
            "UtilizationTooHigh": "freeAtStart",
        }.items()
        for rule in rules.split()
    }
)
"""Rule of an engine (``data/engine_rules.json``) -> the finding that it makes."""


def explanation_of(code: str) -> Json:
    """One code of ``CLASS_OF_CODE``."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "code": code,
        "class": CLASS_OF_CODE[code].value,
        "worst": WORST_OF_CODE[code].label,
        "meaning": MEANINGS[code],
        "remedy": REMEDIES[code],
        "rules": [
            {
                "engine": row["engine"], "rule": row["rule"], "versions": versions_of(row), "message": row["message"],
                "source": row["source"],
            }
            for row in table("engine_rules")["rules"]
            if CODE_OF_RULE[row["rule"]] == code
        ],
    }  # fmt: skip
