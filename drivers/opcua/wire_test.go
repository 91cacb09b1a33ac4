package opcua

import (
	"slices"
	"strings"
	"testing"

	"github.com/gopcua/opcua/id"
)

// The table of services is copied where the specification's numbers of services lie.
func TestEveryServiceIsLookedAt(t *testing.T) {
	found := 0
	for n := range uint32(1 << 16) {
		name := id.Name(n)
		if strings.HasSuffix(name, "Request_Encoding_DefaultBinary") || strings.HasSuffix(name, "Response_Encoding_DefaultBinary") || name == "ServiceFault_Encoding_DefaultBinary" {
			found++
			if !slices.ContainsFunc(serviceNumbers, func(r [2]uint16) bool { return n >= uint32(r[0]) && n < uint32(r[1]) }) {
				t.Errorf("%s is number %d, where nobody looks", name, n)
			}
		}
	}
	if found < 70 {
		t.Errorf("%d services have a name: the names are not what they were", found)
	}
}
