package uplink

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/linekeeper/linekeeper/agent/status"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// hubClock is what is known of the hub's clock: it said hub when this computer's monotonic clock was at.
type hubClock struct {
	hub, at time.Time
}

// noteSkew compares the hub's clock with ours: hub said at while ours went from sent to received.
func (u *Uplink) noteSkew(hub, sent, received time.Time) {
	if hub.IsZero() || hub.Unix() == 0 {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clock = hubClock{hub: hub, at: sent.Add(received.Sub(sent) / 2)}
}

// ClockSkew returns this computer's clock minus the hub's; ok is false while nothing is known of the hub's. A clock that is
// set meanwhile is noticed: the hub's goes on by what has really passed.
func (u *Uplink) ClockSkew() (skew time.Duration, ok bool) {
	u.mu.Lock()
	c := u.clock
	u.mu.Unlock()
	if c.hub.IsZero() {
		return 0, false
	}
	return apart(u.cfg.Now(), c.hub.Add(time.Since(c.at))), true
}

// apart is a minus b by the calendar; monotonic readings would hide what was set.
func apart(a, b time.Time) time.Duration { return a.Round(0).Sub(b.Round(0)) }

// ClockSuspect reports that this computer's clock is known to be wrong: its times must not be trusted.
func (u *Uplink) ClockSuspect() bool {
	skew, ok := u.ClockSkew()
	return ok && skew.Abs() > status.ClockTolerance
}

// judgeClock finds out why a certificate is not valid now: it asks the hub for its time and says which of clock and
// certificate is wrong. Without an answer the fault stays as it is.
func (u *Uplink) judgeClock(ctx context.Context, a *attempt, f *Fault) *Fault {
	switch f.Code {
	case "clock", "hub_certificate_expired", "own_certificate_expired":
	default:
		return f
	}
	if a.way.url != "" {
		return f
	}
	sent := time.Now()
	hub, err := a.askTime(ctx)
	if err != nil {
		u.log().Debug("the hub's time is not known", "error", err)
		return f
	}
	u.noteSkew(hub, sent, time.Now())
	now := a.cfg.Now()
	off := apart(now, hub)
	said := *f
	if off.Abs() <= status.ClockTolerance {
		if f.Code != "clock" {
			said.NextStep = "renew it: this computer's clock is right, it agrees with the hub's"
		}
		return &said
	}
	side := "ahead"
	if off < 0 {
		side = "behind"
	}
	return &Fault{
		Code:     "clock",
		Reason:   fmt.Sprintf("the clock is wrong by %s: this computer says %s, the hub says %s", longSpan(off.Abs()), now.Format(time.RFC3339), hub.Format(time.RFC3339)),
		NextStep: "set this computer's clock, it is " + side + "; facts are kept meanwhile, and their times are marked as doubtful",
		cause:    f.cause,
	}
}

// longSpan is span that also knows years.
func longSpan(d time.Duration) string {
	const year = 365 * 24 * time.Hour
	if d < 2*year {
		return span(d)
	}
	return fmt.Sprintf("%d years", int64((d+year/2)/year))
}

// askTime reads the hub's time from a page of its agents' port. The hub must hold a certificate of our authority, but
// whether it is valid now cannot be asked of a clock that may be wrong; so nothing else is believed and nothing is sent.
func (a *attempt) askTime(ctx context.Context) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.ConnectTimeout/3)
	defer cancel()
	conf, err := a.tlsConfig()
	if err != nil {
		return time.Time{}, err
	}
	conf.Certificates, conf.NextProtos, conf.InsecureSkipVerify = nil, []string{"http/1.1"}, true
	conf.VerifyConnection = func(state tls.ConnectionState) error { return verifyAtItsTime(state, conf) }
	raw, err := a.dialTCP(ctx, a.target())
	if err != nil {
		return time.Time{}, err
	}
	defer raw.Close()
	defer context.AfterFunc(ctx, func() { raw.Close() })()
	conn := tls.Client(raw, conf)
	if err := conn.HandshakeContext(ctx); err != nil {
		return time.Time{}, err
	}
	return readDate(conn, conf.ServerName)
}

func readDate(conn net.Conn, host string) (time.Time, error) {
	if _, err := fmt.Fprintf(conn, "HEAD %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", pb.TunnelPath, host); err != nil {
		return time.Time{}, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: http.MethodHead})
	if err != nil {
		return time.Time{}, err
	}
	resp.Body.Close()
	return http.ParseTime(resp.Header.Get("Date"))
}

// verifyAtItsTime checks everything about a certificate but whether now is within its time.
func verifyAtItsTime(state tls.ConnectionState, conf *tls.Config) error {
	if len(state.PeerCertificates) == 0 {
		return errors.New("no certificate")
	}
	leaf := state.PeerCertificates[0]
	o := x509.VerifyOptions{
		Roots: conf.RootCAs, DNSName: conf.ServerName, Intermediates: x509.NewCertPool(),
		CurrentTime: leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2),
	}
	for _, c := range state.PeerCertificates[1:] {
		o.Intermediates.AddCert(c)
	}
	_, err := leaf.Verify(o)
	return err
}
