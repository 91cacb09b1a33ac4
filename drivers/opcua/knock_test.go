package opcua

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"
	"github.com/gopcua/opcua/uacp"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

// refuser is a server that greets and then refuses every secure channel in its own way.
func refuser(t *testing.T, refuse func(*uacp.Conn)) (address string) {
	t.Helper()
	l, err := uacp.Listen(t.Context(), "opc.tcp://127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept(context.Background())
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue
			}
			go func() {
				defer c.Close()
				if _, err := c.Receive(); err == nil {
					refuse(c)
				}
			}()
		}
	}()
	return "opc.tcp://" + l.Addr().String()
}

// TestTheServersOwnWordReachesThePage: the library turns each of these into an end of file. Only a server of our own refuses on
// demand in each way.
func TestTheServersOwnWordReachesThePage(t *testing.T) {
	own, err := sharedOwn()
	if err != nil {
		t.Fatal(err)
	}
	say := func(status ua.StatusCode, text string) func(*uacp.Conn) {
		return func(c *uacp.Conn) { c.Send("ERRF", &uacp.Error{ErrorCode: uint32(status), Reason: text}) }
	}
	for _, tt := range []struct {
		name   string
		refuse func(*uacp.Conn)
		maker  string
		code   string
		says   []string
	}{
		{"not trusted", say(ua.StatusBadCertificateUntrusted, "no\r\n  trust"), "", "agent_not_trusted", []string{"the server does not trust", "BadCertificateUntrusted, no trust", "cert.der", "SHA-1"}},
		{"checks failed, a Siemens PLC", say(ua.StatusBadSecurityChecksFailed, ""), "https://www.siemens.com/s7-1500", "agent_not_trusted", []string{"TIA Portal", "BadSecurityChecksFailed"}},
		{"checks failed, Kepware", say(ua.StatusBadSecurityChecksFailed, ""), "urn:Kepware.KEPServerEX.V6", "agent_not_trusted", []string{"OPC UA Configuration Manager"}},
		{"time", say(ua.StatusBadCertificateTimeInvalid, ""), "", "agent_certificate_time", []string{"check the clocks"}},
		{"URI", say(ua.StatusBadCertificateURIInvalid, ""), "", "agent_uri", []string{"application URI"}},
		{"host", say(ua.StatusBadCertificateHostNameInvalid, ""), "", "agent_host", []string{"another host"}},
		{"use", say(ua.StatusBadCertificateUseNotAllowed, ""), "", "agent_certificate_use", []string{"client authentication"}},
		{"policy", say(ua.StatusBadSecurityPolicyRejected, ""), "", "policy_refused", []string{"enable it in the server"}},
		{"busy", say(ua.StatusBadTCPServerTooBusy, ""), "", "server_busy", []string{"too busy"}},
		{"an unknown reason", say(ua.StatusBadOutOfMemory, strings.Repeat("long ", 100)), "", "channel_refused", []string{"BadOutOfMemory", "log"}},
		{"without a word", func(*uacp.Conn) {}, "", "agent_not_trusted", []string{"ends the connection"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			config, _ := counterConfig(refuser(t, tt.refuse), 1)
			r := b.driver(config, nil).scout()
			r.own = own
			e := endpoint(r.config.Endpoint, "Basic256Sha256", ua.MessageSecurityModeSignAndEncrypt,
				&ua.UserTokenPolicy{PolicyID: "u", TokenType: ua.UserTokenTypeUserName})
			e.ServerCertificate = own.der // any certificate with a key that we can encrypt for
			e.Server = &ua.ApplicationDescription{ProductURI: tt.maker}
			_, err := r.dial(t.Context(), &login{endpoint: e, token: e.UserIdentityTokens[0]})
			var got *trouble
			if !errors.As(err, &got) {
				t.Fatalf("error is %v", err)
			}
			text := got.Error() + " | " + got.nextStep
			if got.code != tt.code || strings.ContainsAny(text, "\r\n") || len(text) > 1000 {
				t.Errorf("code %q: %q", got.code, text)
			}
			for _, s := range tt.says {
				if !strings.Contains(text, s) {
					t.Errorf("it does not say %q: %s", s, text)
				}
			}
		})
	}
}

func TestAKnockEndsWithItsContext(t *testing.T) {
	own, err := sharedOwn()
	if err != nil {
		t.Fatal(err)
	}
	hold := make(chan struct{})
	defer close(hold)
	address := refuser(t, func(*uacp.Conn) { <-hold })
	e := endpoint(address, "Basic256Sha256", ua.MessageSecurityModeSign)
	e.ServerCertificate = own.der
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- knock(ctx, address, e, own) }()
	cancel()
	realparts.Eventually(t, 5*time.Second, "the knock ends", func() error {
		select {
		case err := <-done:
			if err == nil {
				t.Error("it was let in")
			}
			return nil
		default:
			return errors.New("not yet")
		}
	})
}

// FuzzOpened reads what a server answers to the first message, before anything about it is trusted.
func FuzzOpened(f *testing.F) {
	own, err := sharedOwn()
	if err != nil {
		f.Fatal(err)
	}
	e := endpoint("opc.tcp://h:1", "Basic256Sha256", ua.MessageSecurityModeSign)
	e.ServerCertificate = own.der
	policy, err := policyFor(e, own)
	if err != nil {
		f.Fatal(err)
	}
	front := "OPNF\x00\x00\x00\x00\x00\x00\x00\x00/\x00\x00\x00http://opcfoundation.org/UA/SecurityPolicy#None\xff\xff\xff\xff\xff\xff\xff\xff"
	f.Add([]byte(front + "\x01\x00\x00\x00\x01\x00\x00\x00\x01\x00\x8d\x01\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x13\x80"))
	f.Add([]byte(front + "\x01\x00"))
	f.Add([]byte("OPNF"))
	f.Add([]byte("OPNF\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\x7f"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := opened(b, policy); err != nil && err.Error() == "" {
			t.Error("an error without a word")
		}
	})
}
