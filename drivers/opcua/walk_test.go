package opcua

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gopcua/opcua/ua"
)

// strangers are answers of servers that nobody trusts yet, as the library writes them.
func strangers(t testing.TB) map[string][]byte {
	t.Helper()
	application := &ua.ApplicationDescription{ApplicationURI: "urn:press", ProductURI: "urn:maker", ApplicationName: ua.NewLocalizedText("press"),
		DiscoveryURLs: []string{"opc.tcp://press:4840", ""}}
	e := &ua.EndpointDescription{EndpointURL: "opc.tcp://press:4840", Server: application, ServerCertificate: []byte{1, 2, 3}, SecurityMode: ua.MessageSecurityModeSign,
		UserIdentityTokens: []*ua.UserTokenPolicy{{PolicyID: "a"}, {PolicyID: "b", TokenType: ua.UserTokenTypeUserName}}, TransportProfileURI: uaTCP, SecurityLevel: 7}
	ref := &ua.ReferenceDescription{ReferenceTypeID: ua.NewNumericNodeID(0, 35), IsForward: true, NodeID: ua.NewExpandedNodeID(ua.NewStringNodeID(2, "Press"), "urn:x", 3),
		BrowseName: &ua.QualifiedName{NamespaceIndex: 2, Name: "Press"}, DisplayName: ua.NewLocalizedTextWithLocale("Presse", "de"), TypeDefinition: ua.NewExpandedNodeID(ua.NewNumericNodeID(0, 61), "", 0)}
	all := map[string][]byte{}
	for name, v := range map[string]any{
		"endpoints": &ua.GetEndpointsResponse{Endpoints: []*ua.EndpointDescription{e, e}},
		"servers":   &ua.FindServersResponse{Servers: []*ua.ApplicationDescription{application}},
		"browse":    &ua.BrowseResponse{Results: []*ua.BrowseResult{{ContinuationPoint: []byte{9}, References: []*ua.ReferenceDescription{ref, ref}}, {StatusCode: ua.StatusBadNodeIDUnknown}}},
		"next":      &ua.BrowseNextResponse{Results: []*ua.BrowseResult{{References: []*ua.ReferenceDescription{ref}}}},
		"paths": &ua.TranslateBrowsePathsToNodeIDsResponse{Results: []*ua.BrowsePathResult{{Targets: []*ua.BrowsePathTarget{
			{TargetID: ua.NewExpandedNodeID(ua.NewStringNodeID(2, "Press"), "", 0), RemainingPathIndex: 4294967295}}}}},
		"created": &ua.CreateSessionResponse{SessionID: ua.NewNumericNodeID(1, 7), AuthenticationToken: ua.NewGUIDNodeID(0, "72962B91-FA75-4AE6-8D28-B404DC7DAF63"), RevisedSessionTimeout: 60000,
			ServerNonce: []byte{1}, ServerCertificate: []byte{2}, ServerEndpoints: []*ua.EndpointDescription{e}, ServerSignature: &ua.SignatureData{Algorithm: "x", Signature: []byte{3}}, MaxRequestMessageSize: 5},
		"activated": &ua.ActivateSessionResponse{ServerNonce: []byte{1}, Results: []ua.StatusCode{0}},
	} {
		header := &ua.ResponseHeader{ServiceDiagnostics: &ua.DiagnosticInfo{}, AdditionalHeader: ua.NewExtensionObject(nil)}
		v.(ua.Response).SetHeader(header)
		b, err := ua.Encode(v)
		if err != nil {
			t.Fatal(err)
		}
		h, err := ua.Encode(header)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = b[len(h):]
	}
	return all
}

// decodeStranger decodes a body as the answer of that name, and writes it again.
func decodeStranger(name string, body []byte) (again []byte, err error) {
	l := &late{body: body}
	var v ua.Response
	switch name {
	case "endpoints":
		v, err = typed[*ua.GetEndpointsResponse](l)
	case "servers":
		v, err = typed[*ua.FindServersResponse](l)
	case "browse":
		v, err = typed[*ua.BrowseResponse](l)
	case "next":
		v, err = typed[*ua.BrowseNextResponse](l)
	case "paths":
		v, err = typed[*ua.TranslateBrowsePathsToNodeIDsResponse](l)
	case "created":
		v, err = typed[*ua.CreateSessionResponse](l)
	default:
		v, err = typed[*ua.ActivateSessionResponse](l)
	}
	if err != nil {
		return nil, err
	}
	header := &ua.ResponseHeader{ServiceDiagnostics: &ua.DiagnosticInfo{}, AdditionalHeader: ua.NewExtensionObject(nil)}
	v.SetHeader(header)
	b, err := ua.Encode(v)
	if err != nil {
		return nil, err
	}
	h, err := ua.Encode(header)
	return b[len(h):], err
}

func TestAnswersOfStrangersAreReadAndNotBelieved(t *testing.T) {
	for name, body := range strangers(t) {
		again, err := decodeStranger(name, body)
		if err != nil || !bytes.Equal(again, body) {
			t.Errorf("%s: %v %s", name, err, cmp.Diff(body, again))
		}
		for cut := range body {
			if _, err := decodeStranger(name, body[:cut]); err == nil {
				t.Errorf("%s is read although it ends after %d of %d bytes", name, cut, len(body))
			}
		}
		// A list that claims two thousand million elements.
		if _, err := decodeStranger(name, []byte{0xff, 0xff, 0xff, 0x7f}); err == nil {
			t.Errorf("%s: a list without end is believed", name)
		}
	}
}

// FuzzStrangers reads what a server says before anybody trusts it.
func FuzzStrangers(f *testing.F) {
	names := []string{"endpoints", "servers", "browse", "next", "paths", "created", "activated"}
	for name, body := range strangers(f) {
		for i, n := range names {
			if n == name {
				f.Add(byte(i), body)
			}
		}
	}
	f.Fuzz(func(_ *testing.T, which byte, body []byte) {
		_, _ = decodeStranger(names[int(which)%len(names)], body)
	})
}
