package opcua

import "github.com/gopcua/opcua/ua"

// walk goes through an answer whose lists the library would believe without looking: a few bytes of a server that nobody trusts
// yet could take all memory. It reports whether it knows the answer; what is wrong in it stands in w.err.
func (w *wire) walk(answer any) bool {
	switch answer.(type) {
	case *ua.GetEndpointsResponse:
		w.each(w.endpoint)
	case *ua.FindServersResponse:
		w.each(w.application)
	case *ua.BrowseResponse, *ua.BrowseNextResponse:
		w.each(w.browseResult)
		w.diagnostics()
	case *ua.TranslateBrowsePathsToNodeIDsResponse:
		w.each(w.browsePathResult)
		w.diagnostics()
	case *ua.CreateSessionResponse:
		w.createdSession()
	case *ua.ActivateSessionResponse:
		w.bytes()
		w.each(func() { w.u32() })
		w.diagnostics()
	default:
		return false
	}
	return true
}

// each reads a list by reading each of its elements.
func (w *wire) each(element func()) {
	for range w.count(1) {
		if w.err != nil {
			return
		}
		element()
	}
}

func (w *wire) texts(n int) {
	for range n {
		w.bytes()
	}
}

func (w *wire) application() {
	w.texts(2)
	w.localizedText()
	w.u32()
	w.texts(2)
	w.each(func() { w.bytes() })
}

func (w *wire) endpoint() {
	w.bytes()
	w.application()
	w.bytes()
	w.u32()
	w.bytes()
	w.each(func() {
		w.bytes()
		w.u32()
		w.texts(3)
	})
	w.bytes()
	w.u8()
}

func (w *wire) browseResult() {
	w.u32()
	w.bytes()
	w.each(func() {
		w.nodeID(false)
		w.u8()
		w.nodeID(true)
		w.qualifiedName()
		w.localizedText()
		w.u32()
		w.nodeID(true)
	})
}

func (w *wire) browsePathResult() {
	w.u32()
	w.each(func() {
		w.nodeID(true)
		w.u32()
	})
}

func (w *wire) createdSession() {
	w.nodeID(false)
	w.nodeID(false)
	w.u64()
	w.texts(2)
	w.each(w.endpoint)
	w.each(func() { w.texts(2) })
	w.texts(2)
	w.u32()
}
