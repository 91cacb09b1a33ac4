package linekeeperv1

// Where the uplink runs inside a WebSocket: the path at the hub, and the subprotocol that both sides name.
const (
	TunnelPath     = "/v1/agent-tunnel"
	TunnelProtocol = "linekeeper.uplink.v1"
)
