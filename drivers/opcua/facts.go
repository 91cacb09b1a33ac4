package opcua

import (
	"context"
	"fmt"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
)

// serverFacts is what a server says of itself, asked anew after each connect: its namespaces, its program and its limits may
// be others then.
type serverFacts struct {
	namespaces []string
	started    time.Time
	// now is the server's clock when it answered.
	now     time.Time
	build   ua.BuildInfo
	profile profile
	// The limits of one call are the smaller of what the server names and what its profile says; 0 is no limit.
	itemsPerCall                               uint32
	readsPerCall, browsesPerCall, pathsPerCall int
	continuationPoints                         int
}

func (l *link) facts(ctx context.Context) (serverFacts, error) {
	var f serverFacts
	var itemsPerCall, readsPerCall, browsesPerCall, pathsPerCall uint32
	var points uint16
	asked := []struct {
		node uint32
		take func(v any)
	}{
		{id.Server_NamespaceArray, func(v any) { f.namespaces, _ = v.([]string) }},
		{id.Server_ServerStatus_StartTime, func(v any) { f.started, _ = v.(time.Time) }},
		{id.Server_ServerStatus_CurrentTime, func(v any) { f.now, _ = v.(time.Time) }},
		{id.Server_ServerStatus_BuildInfo_ManufacturerName, func(v any) { f.build.ManufacturerName, _ = v.(string) }},
		{id.Server_ServerStatus_BuildInfo_ProductName, func(v any) { f.build.ProductName, _ = v.(string) }},
		{id.Server_ServerStatus_BuildInfo_ProductURI, func(v any) { f.build.ProductURI, _ = v.(string) }},
		{id.Server_ServerStatus_BuildInfo_SoftwareVersion, func(v any) { f.build.SoftwareVersion, _ = v.(string) }},
		{id.Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall, func(v any) { itemsPerCall, _ = v.(uint32) }},
		{id.Server_ServerCapabilities_OperationLimits_MaxNodesPerRead, func(v any) { readsPerCall, _ = v.(uint32) }},
		{id.Server_ServerCapabilities_OperationLimits_MaxNodesPerBrowse, func(v any) { browsesPerCall, _ = v.(uint32) }},
		{id.Server_ServerCapabilities_OperationLimits_MaxNodesPerTranslateBrowsePathsToNodeIDs, func(v any) { pathsPerCall, _ = v.(uint32) }},
		{id.Server_ServerCapabilities_MaxBrowseContinuationPoints, func(v any) { points, _ = v.(uint16) }},
	}
	var nodes []*ua.ReadValueID
	for _, a := range asked {
		nodes = append(nodes, &ua.ReadValueID{NodeID: ua.NewNumericNodeID(0, a.node),
			AttributeID: ua.AttributeIDValue, DataEncoding: &ua.QualifiedName{}})
	}
	values, err := l.read(ctx, nodes, 0)
	if err != nil {
		return f, fmt.Errorf("read what the server says of itself: %w", err)
	}
	for i, a := range asked {
		a.take(content(values[i]))
	}
	f.profile = profileOf(f.build)
	f.itemsPerCall = uint32(limit(f.profile.itemsPerCall, itemsPerCall))
	f.readsPerCall = limit(f.profile.readsPerCall, readsPerCall)
	f.browsesPerCall = limit(f.profile.browsesPerCall, browsesPerCall)
	f.pathsPerCall = limit(f.profile.browsesPerCall, pathsPerCall)
	f.continuationPoints = int(points)
	return f, nil
}

// content is a value's content; nil when the server has none, such as for a node that it does not know.
func content(v *ua.DataValue) any {
	if v == nil || v.Value == nil {
		return nil
	}
	return v.Value.Value()
}
