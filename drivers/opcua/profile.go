package opcua

import (
	"strings"
	"time"

	"github.com/gopcua/opcua/ua"
)

// profile is what is known of a kind of server beyond what it says of its own limits: servers name limits that they do not
// reach, or none at all. Zero fields say that nothing is known; a limit that the server names counts when it is smaller.
type profile struct {
	// name is for people: "Siemens S7-1200".
	name string
	// itemsPerCall bounds one CreateMonitoredItems, readsPerCall one Read, browsesPerCall one Browse.
	itemsPerCall, readsPerCall, browsesPerCall int
	// items is how many monitored items the whole server bears.
	items int
	// sampling and publishing are the shortest intervals that it grants without losing its breath.
	sampling, publishing time.Duration
	// queue is the longest queue that it keeps for an item.
	queue uint32
	// noDeadband is true where a deadband is refused (BadMonitoredItemFilterUnsupported): the item has to be asked for without.
	noDeadband bool
	// sessions is how many sessions it has for all of its clients.
	sessions int
	// idsChange is true where the ids of nodes may be others after the program was loaded anew, so that browse paths are the
	// safer names.
	idsChange bool
}

// generic is for servers that nobody described.
var generic = profile{name: "generic", itemsPerCall: 1000, readsPerCall: 500, browsesPerCall: 100}

// profiles are tried in their order; maker and product are looked for in what the server says of itself, in lower case. The
// figures are cautious ones for the smallest model of each kind, from what others report; none was measured on the machine itself.
var profiles = []struct {
	maker, product string
	profile
}{
	{"siemens", "1200", profile{name: "Siemens S7-1200", itemsPerCall: 100, readsPerCall: 500, browsesPerCall: 100, items: 1000,
		sampling: 100 * time.Millisecond, publishing: 200 * time.Millisecond, noDeadband: true, sessions: 10, idsChange: true}},
	{"siemens", "1500", profile{name: "Siemens S7-1500", itemsPerCall: 500, readsPerCall: 500, browsesPerCall: 100, items: 10_000,
		sampling: 100 * time.Millisecond, publishing: 200 * time.Millisecond, sessions: 32, idsChange: true}},
	{"kepware", "", profile{name: "KEPServerEX", itemsPerCall: 1000, readsPerCall: 500, browsesPerCall: 100, sessions: 128}},
	{"ptc", "", profile{name: "KEPServerEX", itemsPerCall: 1000, readsPerCall: 500, browsesPerCall: 100, sessions: 128}},
	{"", "kepserverex", profile{name: "KEPServerEX", itemsPerCall: 1000, readsPerCall: 500, browsesPerCall: 100, sessions: 128}},
	{"inductive automation", "", profile{name: "Ignition", itemsPerCall: 1000, readsPerCall: 500, browsesPerCall: 100}},
	{"", "ignition", profile{name: "Ignition", itemsPerCall: 1000, readsPerCall: 500, browsesPerCall: 100}},
}

// profileOf tells what kind of server it is from its Server_ServerStatus_BuildInfo. Makers write their names into any of the
// fields.
func profileOf(b ua.BuildInfo) profile {
	maker := strings.ToLower(b.ManufacturerName + " " + b.ProductURI)
	product := strings.ToLower(b.ProductName + " " + b.ProductURI)
	for _, p := range profiles {
		if hasWord(maker, p.maker) && strings.Contains(product, p.product) {
			return p.profile
		}
	}
	return generic
}

// hasWord reports whether text contains a word that no letters surround: "ptc" is not in "captcha".
func hasWord(text, word string) bool {
	for rest := text; ; {
		i := strings.Index(rest, word)
		if i < 0 {
			return false
		}
		before, after := i == 0 || !isLetter(rest[i-1]), i+len(word) == len(rest) || !isLetter(rest[i+len(word)])
		if word == "" || before && after {
			return true
		}
		rest = rest[i+1:]
	}
}

func isLetter(c byte) bool { return c >= 'a' && c <= 'z' }

// limit is the smaller of a profile's limit and the one that the server names; 0 means that there is none.
func limit(known int, named uint32) int {
	switch {
	case named == 0:
		return known
	case known == 0:
		return int(named)
	}
	return min(known, int(named))
}
