package opcua

import (
	"testing"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

// TestLookingAroundNodeOPCUA holds what is tried on one plant with a small server's limits.
func TestLookingAroundNodeOPCUA(t *testing.T) {
	t.Parallel()
	plant := realparts.NodeOPCUA(t, realparts.PlantOptions{Counters: 1, Machines: 2, Tree: 1500, OperationLimits: map[string]int{
		"maxNodesPerRead": 20, "maxNodesPerBrowse": 5, "maxNodesPerTranslateBrowsePathsToNodeIds": 2}})
	for _, part := range []struct {
		name string
		test func(*testing.T, *realparts.Plant)
	}{
		{"browse paths lead to nodes", testPaths},
		{"ids that change after a download are found again", testDownload},
		{"everything is browsed, page by page", testBrowse},
		{"a glob finds what it names", testFind},
		{"browsing does not disturb reading", testBrowseWhileReading},
		{"discovery offers the safest way first", testDiscover},
		{"a probe goes all the way", testProbe},
		{"a channel is opened by hand", testKnocks},
	} {
		t.Run(part.name, func(t *testing.T) { part.test(t, plant) })
	}
}
