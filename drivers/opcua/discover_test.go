package opcua

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gopcua/opcua/ua"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

func TestAddressesThatPeopleType(t *testing.T) {
	for _, tt := range []struct{ typed, want string }{
		{"10.0.0.5", "opc.tcp://10.0.0.5:4840"},
		{" press7 ", "opc.tcp://press7:4840"},
		{"press7:4841", "opc.tcp://press7:4841"},
		{"press7:4841/plant", "opc.tcp://press7:4841/plant"},
		{"opc.tcp://press7/plant", "opc.tcp://press7:4840/plant"},
		{"::1", "opc.tcp://[::1]:4840"},
		{"[::1]:4841", "opc.tcp://[::1]:4841"},
		{"https://press7", ""},
		{"opc.tcp://", ""},
		{"", ""},
		{"a b", ""},
	} {
		u, err := addressOf(tt.typed)
		if got := ""; err == nil {
			if got = u.String(); got != tt.want {
				t.Errorf("%q: %s", tt.typed, got)
			}
		} else if tt.want != "" || !strings.Contains(err.Error(), "host") {
			t.Errorf("%q: %v", tt.typed, err)
		}
	}
}

func testDiscover(t *testing.T, plant *realparts.Plant) {
	b := newBench(t)
	address := fmt.Sprintf("localhost:%d", plant.Port)
	offers, err := discover(t.Context(), b.env(), address)
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range offers {
		d, err := load(t, o.Section+"nodes: [{tag: a, node: i=2258}]")
		if err != nil {
			t.Errorf("%s: the section is no configuration: %v\n%s", o.Title, err, o.Section)
			continue
		}
		c := d.config
		if !strings.HasPrefix(c.Endpoint, "opc.tcp://"+address) {
			t.Errorf("%s: the host that was typed was replaced", c.Endpoint)
		}
		if o.Secure != (c.SecurityPolicy != "None") || !strings.Contains(o.Title, c.SecurityPolicy) || len(o.Notes) == 0 {
			t.Errorf("offer %+v", o)
		}
		if i > 0 && o.Secure && !offers[i-1].Secure {
			t.Errorf("%s comes behind %s", o.Title, offers[i-1].Title)
		}
	}
	first := offers[0]
	if !strings.HasSuffix(first.Title, "/plant, Aes256_Sha256_RsaPss, SignAndEncrypt, user name") {
		t.Errorf("the best offer is %q", first.Title)
	}
	notes := strings.Join(first.Notes, "\n")
	for _, want := range []string{"plantagent trust press ", "calls itself 127.0.0.1", "press-password.txt", "trust this agent's certificate"} {
		if !strings.Contains(notes, want) {
			t.Errorf("the notes lack %q:\n%s", want, notes)
		}
	}
	if _, err := discover(t.Context(), b.env(), fmt.Sprintf("127.0.0.1:%d", realparts.FreePort(t))); err == nil || !strings.Contains(err.Error(), "check that the server runs") {
		t.Errorf("nobody there: %v", err)
	}
	if _, err := discover(t.Context(), b.env(), fmt.Sprintf("127.0.0.1:%d", plant.Control)); err == nil || strings.Contains(err.Error(), "%!") {
		t.Errorf("an HTTP server: %v", err)
	} else {
		t.Log(err)
	}
}

func TestOffersSayWhatTheAgentCannotUse(t *testing.T) {
	nobody := &ua.UserTokenPolicy{PolicyID: "nobody", TokenType: ua.UserTokenTypeAnonymous}
	u, err := addressOf("10.0.0.5")
	if err != nil {
		t.Fatal(err)
	}
	s := foundServer{address: u, endpoints: []*ua.EndpointDescription{
		endpoint("opc.tcp://press:4840", "ECC_nistP256", ua.MessageSecurityModeSign, nobody),
		endpoint("opc.tcp://press:4840/a", "None", ua.MessageSecurityModeNone, nobody),
		endpoint("opc.tcp://press:4840/a", "Basic128Rsa15", ua.MessageSecurityModeSignAndEncrypt, nobody),
		endpoint("opc.tcp://press:4840/a", "Basic256Sha256", ua.MessageSecurityModeSign, nobody),
	}}
	var titles []string
	offers := s.offers(newBench(t).env())
	for _, o := range offers {
		titles = append(titles, o.Title)
	}
	want := "opc.tcp://10.0.0.5:4840/a, Basic256Sha256, Sign, anonymous|opc.tcp://10.0.0.5:4840/a, Basic128Rsa15, SignAndEncrypt, anonymous|opc.tcp://10.0.0.5:4840/a, None, anonymous"
	if got := strings.Join(titles, "|"); got != want {
		t.Errorf("offers are %s", got)
	}
	if notes := strings.Join(offers[0].Notes, "\n"); !strings.Contains(notes, "ECC_nistP256") {
		t.Errorf("notes are %s", notes)
	}
	if offers[1].Secure || !strings.Contains(offers[1].Section, "allow_deprecated: true") {
		t.Errorf("an outdated policy: %+v", offers[1])
	}
}
