"""Who the operator is to the API server."""

OPERATOR_USER = "system:serviceaccount:shardgate-system:shardgate"
