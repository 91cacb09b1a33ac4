package opcua

import (
	"fmt"
	"strings"
	"sync"

	"github.com/gopcua/opcua/ua"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// severity is the part of a status code that says good, uncertain or bad; name the part that has a name.
const (
	severityMask = 0xC0000000
	nameMask     = 0xFFFF0000
	// overflow marks a value behind which the server's queue lost others.
	overflow = 0x0480
)

func quality(c ua.StatusCode) signal.Quality {
	switch uint32(c) & severityMask {
	case 0:
		return signal.Good
	case 0x40000000:
		return signal.Uncertain
	}
	return signal.Bad
}

// specSpelling undoes the library's Go spelling of abbreviations.
var specSpelling = strings.NewReplacer("ID", "Id", "URI", "Uri", "URL", "Url", "TCP", "Tcp")

// statusName is the status as the specification spells it.
func statusName(c ua.StatusCode) string {
	if uint32(c)&nameMask == 0 {
		return "Good"
	}
	if d, ok := ua.StatusCodes[ua.StatusCode(uint32(c)&nameMask)]; ok {
		return specSpelling.Replace(strings.TrimPrefix(d.Name, "Status"))
	}
	return fmt.Sprintf("0x%08X", uint32(c))
}

// encoded is a structure of any type, kept as bytes.
type encoded struct{ bytes []byte }

// Decode keeps a copy of the bytes.
func (e *encoded) Decode(b []byte) (int, error) {
	e.bytes = append([]byte{}, b...)
	return len(b), nil
}

// Encode gives them back.
func (e *encoded) Encode() ([]byte, error) { return e.bytes, nil }

// The library's table of structures belongs to the process and panics when an id comes twice: every driver asks here. Two
// servers may use one id for two types, which is why nothing but bytes is ever registered.
var (
	keptMu  sync.Mutex
	keptIDs = map[string]bool{}
)

// keepBytesOf makes the library keep the bytes of a structure's type where it decodes an answer itself.
func keepBytesOf(id *ua.NodeID) {
	keptMu.Lock()
	defer keptMu.Unlock()
	if keptIDs[id.String()] {
		return
	}
	keptIDs[id.String()] = true
	defer func() {
		_ = recover() // the library itself knows the type under this id
	}()
	ua.RegisterExtensionObject(id, new(encoded))
}

// fill sets a signal's value, status and times from a data value.
func fill(s *signal.Signal, d *dataValue) {
	s.Quality = quality(d.status)
	s.Status = statusName(d.status)
	s.SourceTime, s.ServerTime = d.source, d.server
	if s.SourceTime.IsZero() {
		s.SourceTime = d.server
	}
	if uint32(d.status)&overflow == overflow {
		s.Status += " (overflow)"
	}
	switch {
	case s.Quality == signal.Bad:
		// Servers send a 0 along with a bad status. It is not a measurement.
		return
	case d.notNumber != "":
		s.Quality, s.Status = signal.Bad, d.notNumber
	}
	s.Value = d.value
}
