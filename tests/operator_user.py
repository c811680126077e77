"""Who the operator and the node agents are to the API server."""

OPERATOR_USER = "system:serviceaccount:shardgate-system:shardgate"
AGENT_USER = "system:serviceaccount:shardgate-system:shardgate-agent"
