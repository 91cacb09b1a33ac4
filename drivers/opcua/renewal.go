package opcua

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// tendEvery is how often the agent looks after its certificate.
const tendEvery = 6 * time.Hour

// ownMu lets one goroutine at a time change certificate folders: the reader and whoever tends the certificate share one.
var ownMu sync.Mutex

// loadOwn reads the agent's certificate, which may be another one than at the last connect.
func (r *reader) loadOwn() error {
	own, created, err := r.identity(time.Now())
	if err != nil {
		return err
	}
	if created {
		r.log.Info("certificate created, the server has to trust it", "source", r.env.Source, "sha256", fingerprint(own.cert.Raw),
			"application_uri", uriOf(own.cert))
	}
	if r.own.key != nil && !r.own.cert.Equal(own.cert) {
		r.session = nil // a session belongs to the certificate that it was made with
	}
	r.own = own
	return nil
}

// identity is what the agent shows to this server: the files that the configuration names, or a pair of its own.
func (r *reader) identity(now time.Time) (own identity, created bool, err error) {
	ownMu.Lock()
	defer ownMu.Unlock()
	c := &r.config
	if c.Certificate == "" {
		if own, created, err = loadOwn(r.env.Dir, c.ApplicationURI, now); err != nil {
			return own, false, &trouble{code: "own_certificate", reason: "the agent's certificate cannot be used", cause: err,
				nextStep: "check the folder " + filepath.Join(r.env.Dir, "own") + "; without it a new certificate is created"}
		}
		return own, created, nil
	}
	if own, err = loadIdentity(c.Certificate, c.Key); err != nil {
		return own, false, &trouble{code: "own_certificate", reason: "the agent's certificate cannot be used", cause: err,
			nextStep: "check the files that certificate and key name in the source's section, and that the agent may read them"}
	}
	if uri := uriOf(own.cert); uri == "" || c.ApplicationURI != "" && c.ApplicationURI != uri {
		return own, false, &trouble{code: "own_certificate",
			reason:   fmt.Sprintf("the agent's certificate %s has the application URI %q, application_uri is %q", c.Certificate, uri, c.ApplicationURI),
			nextStep: "let the authority put the agent's application URI into the certificate (subject alternative name, URI), and leave application_uri out"}
	}
	return own, false, nil
}

// tend looks after the agent's certificate until ctx ends.
func (d *driver) tend(ctx context.Context) {
	for ctx.Err() == nil {
		d.env.Reporter.Problem("own_certificate", d.renew(ctx, time.Now()))
		pause(ctx, tendEvery)
	}
}

// renew makes a successor well before the agent's certificate ends, and puts it in its place once the server accepts it: never
// before, because until a person trusts it there the line would stand still. It returns what a person has to do.
func (d *driver) renew(ctx context.Context, now time.Time) *signal.Problem {
	if d.config.SecurityPolicy == "None" {
		return nil
	}
	r := d.scout()
	certFile, _ := r.ownFiles()
	own, _, err := r.identity(now)
	if err != nil || own.cert.NotAfter.Sub(now) > renewBefore {
		return nil // a certificate that cannot be read is the connection's problem
	}
	p := &signal.Problem{Code: "own_certificate", Item: certFile,
		Reason: "the agent's certificate ends on " + own.cert.NotAfter.Format(time.DateOnly)}
	if d.config.Certificate != "" {
		p.NextStep = "let the authority issue a new one and replace the files; the agent takes it at its next connect"
		return p
	}
	next, err := d.successor(now)
	if err != nil {
		p.NextStep = "the agent could not make its successor: " + err.Error()
		return p
	}
	if why := r.accepts(ctx, next); why != nil {
		r.own = next
		nextFile, _ := nextFiles(d.env.Dir)
		p.Reason += "; its successor is ready, and the server does not accept it yet: " + plain(why)
		p.NextStep = fmt.Sprintf("trust it %s; the agent then changes by itself, without a stop, and at the end of the old one in any case. "+
			"It is %q, file %s, SHA-1 %s, SHA-256 %s", place(r.endpoint()), subject(next.cert), nextFile, thumbprint(next.cert.Raw),
			fingerprint(next.cert.Raw))
		return p
	}
	ownMu.Lock()
	defer ownMu.Unlock()
	if err := promote(d.env.Dir); err != nil {
		p.NextStep = "the server accepts its successor, but it could not be put in place: " + err.Error()
		return p
	}
	d.env.Logger.Info("certificate renewed, the server accepts it", "source", d.env.Source, "sha256", fingerprint(next.cert.Raw))
	return nil
}

func (d *driver) successor(now time.Time) (identity, error) {
	ownMu.Lock()
	defer ownMu.Unlock()
	return successor(d.env.Dir, d.config.ApplicationURI, now)
}

// accepts tries whether the server lets the agent in with another certificate, all the way to a session, which it ends at once.
func (r *reader) accepts(ctx context.Context, own identity) error {
	r.own = own
	l, err := r.connect(ctx)
	if err != nil {
		return err
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	l.leave(last)
	return nil
}

// scout is a reader that goes the same way as the driver's, beside it, and tells the page nothing.
func (d *driver) scout() *reader {
	quiet := &driver{env: d.env, config: d.config, pace: d.pace}
	quiet.env.Reporter, quiet.env.Logger = mute{}, mute{}
	return newReader(quiet, nil)
}

// mute hears everything and says nothing.
type mute struct{}

func (mute) State(signal.State, string)      {}
func (mute) Problem(string, *signal.Problem) {}
func (mute) Debug(string, ...any)            {}
func (mute) Info(string, ...any)             {}
func (mute) Warn(string, ...any)             {}
func (mute) Error(string, ...any)            {}
