package opcua

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/gopcua/opcua/ua"

	"github.com/linekeeper/linekeeper/agent/signal"
)

const (
	// clockOff is how far the server's clock may be from ours before a Probe says so.
	clockOff = time.Minute
	// manyNodes is how many nodes a Probe lists one by one; of more it lists those that cannot be read.
	manyNodes = 50
)

// prober goes the way to a server step by step.
type prober struct {
	*reader
	steps []signal.Step
	host  string
	port  string
	all   []*ua.EndpointDescription
	in    *login
	link  *link
	facts serverFacts
}

// Probe tries the way to the server as Run would go, with a session of its own; see signal.Prober. It makes the agent's
// certificate where there is none yet, and keeps a certificate of the server's that is unknown for a person to decide about.
func (d *driver) Probe(ctx context.Context) []signal.Step {
	p := &prober{reader: d.scout()}
	defer p.end(ctx)
	for _, step := range []func(context.Context) bool{p.resolveName, p.openPort, p.askServer, p.security, p.ownCertificate,
		p.serverCertificate, p.loginKind, p.channel, p.login, p.server, p.nodes, p.machines} {
		if !step(ctx) {
			break
		}
	}
	return p.steps
}

func (p *prober) end(ctx context.Context) {
	if p.link == nil {
		return
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	p.link.leave(last)
}

func (p *prober) ok(name, detail string) bool {
	p.steps = append(p.steps, signal.Step{Name: name, Detail: detail})
	return true
}

func (p *prober) warn(name string, problem *signal.Problem) {
	p.steps = append(p.steps, signal.Step{Name: name, Problem: problem, Warning: true})
}

// fail ends the way at this step.
func (p *prober) fail(name string, err error) bool {
	p.steps = append(p.steps, signal.Step{Name: name, Problem: p.inWords(err)})
	return false
}

// inWords is an error as the page shows it.
func (p *prober) inWords(err error) *signal.Problem {
	var t *trouble
	var d *distrust
	switch {
	case errors.As(err, &d):
		return &signal.Problem{Code: d.code, Item: d.fingerprint, Reason: d.Error(), NextStep: d.nextStep}
	case errors.As(err, &t):
		return &signal.Problem{Code: t.code, Item: p.config.Endpoint, Reason: plain(t), NextStep: t.nextStep}
	}
	return &signal.Problem{Code: "connection_lost", Item: p.config.Endpoint, Reason: plain(err),
		NextStep: "try again; if it stays, look into the server's log"}
}

func (p *prober) resolveName(ctx context.Context) bool {
	u, err := url.Parse(p.config.Endpoint)
	if err != nil {
		return p.fail("the address is one", err)
	}
	p.host, p.port = u.Hostname(), u.Port()
	if p.port == "" {
		p.port = "4840"
	}
	if net.ParseIP(p.host) != nil {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	name := fmt.Sprintf("the name %q is known", p.host)
	found, err := net.DefaultResolver.LookupHost(ctx, p.host)
	if err != nil {
		return p.fail(name, &trouble{code: "name_unknown", cause: lookupCause(err),
			reason:   fmt.Sprintf("this computer does not find the name %q", p.host),
			nextStep: "write the server's IP address into endpoint, or have the name entered in the plant's DNS or this computer's hosts file"})
	}
	return p.ok(name, strings.Join(found, ", "))
}

// lookupCause is why a name was not found, without the name once more.
func lookupCause(err error) error {
	var d *net.DNSError
	if errors.As(err, &d) {
		return errors.New(d.Err)
	}
	return err
}

func (p *prober) openPort(ctx context.Context) bool {
	name := "port " + p.port + " is open"
	d := net.Dialer{Timeout: dialTimeout}
	began := time.Now()
	c, err := d.DialContext(ctx, "tcp", net.JoinHostPort(p.host, p.port))
	if err == nil {
		took := time.Since(began).Round(time.Millisecond)
		remote := c.RemoteAddr().String()
		c.Close()
		return p.ok(name, fmt.Sprintf("%s, after %s", remote, took))
	}
	t := &trouble{code: "unreachable", cause: err}
	var timeout net.Error
	switch {
	case strings.Contains(err.Error(), "refused"):
		t.code, t.reason = "port_closed", fmt.Sprintf("the computer %s answers, but nothing listens at its port %s", p.host, p.port)
		t.nextStep = "start the OPC UA server there, or correct the port: servers mostly have 4840, KEPServerEX 49320, Ignition 62541"
	case errors.As(err, &timeout) && timeout.Timeout():
		t.reason = fmt.Sprintf("nothing at all answers at %s, port %s", p.host, p.port)
		t.nextStep = "check that the computer is on and the address is right; most often a firewall between the two drops the port"
	default:
		t.reason = fmt.Sprintf("there is no way to %s, port %s", p.host, p.port)
		t.nextStep = "check this computer's network: address, mask, gateway, VLAN"
	}
	var op *net.OpError
	if errors.As(err, &op) {
		t.cause = op.Err
	}
	return p.fail(name, t)
}

func (p *prober) askServer(ctx context.Context) bool {
	const name = "an OPC UA server answers"
	all, err := askEndpoints(ctx, p.config.Endpoint)
	if err != nil {
		return p.fail(name, err)
	}
	p.all = all
	detail := fmt.Sprintf("it offers %s", strings.Join(securities(all), ", "))
	if len(all) > 0 && all[0].Server != nil {
		detail = fmt.Sprintf("%s, %s; %s", textOf(all[0].Server.ApplicationName), all[0].Server.ApplicationURI, detail)
	}
	return p.ok(name, detail)
}

func textOf(t *ua.LocalizedText) string {
	if t == nil {
		return ""
	}
	return oneLine(t.Text)
}

func (p *prober) security(context.Context) bool {
	name := fmt.Sprintf("the server offers %s, %s", p.config.SecurityPolicy, shortMode(p.config.mode()))
	found, err := chooseEndpoints(p.all, &p.config)
	if err != nil {
		return p.fail(name, err)
	}
	p.endpoints = found
	return p.ok(name, p.endpoint().EndpointURL)
}

func (p *prober) ownCertificate(context.Context) bool {
	const name = "this agent's certificate is in order"
	err := p.loadOwn()
	if p.config.SecurityPolicy == "None" {
		return true // it is made all the same, as Run does
	}
	if err != nil {
		return p.fail(name, err)
	}
	cert, now := p.own.cert, time.Now()
	if now.After(cert.NotAfter) || now.Before(cert.NotBefore) {
		return p.fail(name, &trouble{code: "own_certificate",
			reason:   fmt.Sprintf("this agent's certificate is valid from %s to %s only", cert.NotBefore.Format(time.DateOnly), cert.NotAfter.Format(time.DateOnly)),
			nextStep: "let the authority issue a new one and replace the files, or check this computer's clock; it is " + p.ownPlace()})
	}
	if left := cert.NotAfter.Sub(now); left < renewBefore {
		problem := &signal.Problem{Code: "own_certificate", Item: p.ownPlace(),
			Reason:   "this agent's certificate ends on " + cert.NotAfter.Format(time.DateOnly),
			NextStep: "the running agent makes its successor and says on its page when to trust it in the server"}
		if p.config.Certificate != "" {
			problem.NextStep = "let the authority issue a new one and replace the files"
		}
		p.warn(name, problem)
		return true
	}
	return p.ok(name, fmt.Sprintf("until %s; application URI %s; %s", cert.NotAfter.Format(time.DateOnly), uriOf(cert), p.ownPlace()))
}

func (p *prober) serverCertificate(context.Context) bool {
	if p.config.SecurityPolicy == "None" {
		p.warn("the server is who it says", &signal.Problem{Code: "unchecked", Item: p.config.Endpoint,
			Reason:   "security_policy None: nobody checks that it is the right server, and everybody on the way can read and change what is said",
			NextStep: "choose a security policy that the server offers, if it has one"})
		return true
	}
	const name = "this agent trusts the server's certificate"
	if err := p.checkServer(p.endpoint()); err != nil {
		return p.fail(name, err)
	}
	leaf := p.judged.leaf
	how := "trusted itself"
	if a := p.judged.authority; a != nil {
		how = fmt.Sprintf("trusted through the authority %q", subject(a))
	}
	p.ok(name, fmt.Sprintf("%q, %s, until %s, SHA-1 %s", subject(leaf), how, leaf.NotAfter.Format(time.DateOnly), thumbprint(leaf.Raw)))
	for _, w := range p.judged.warnings {
		p.warn("the server's certificate fits", &signal.Problem{Code: "certificate_warning", Item: fingerprint(leaf.Raw), Reason: w,
			NextStep: "it works; give the server a better certificate when its maker's steps allow it"})
	}
	return true
}

func (p *prober) loginKind(context.Context) bool {
	name := fmt.Sprintf("the server lets %s log in", p.kindName())
	token, err := p.chooseToken(p.endpoint())
	if err != nil {
		return p.fail(name, err)
	}
	p.in = &login{endpoint: p.endpoint(), token: token}
	if err := p.readSecrets(p.in); err != nil {
		return p.fail(name, err)
	}
	if tokenPolicy(token, p.in.endpoint) == ua.SecurityPolicyURINone && p.in.secret != "" && p.in.endpoint.SecurityMode != ua.MessageSecurityModeSignAndEncrypt {
		p.warn(name, &signal.Problem{Code: "password_unprotected", Item: p.config.Endpoint,
			Reason: "the password or token goes over the network readable", NextStep: "set security_mode to SignAndEncrypt"})
		return true
	}
	return p.ok(name, "")
}

func (p *prober) kindName() string {
	switch u := p.config.User; {
	case u == nil:
		return "anonymous users"
	case u.Name != "":
		return "users with a name and a password"
	case u.TokenFile != "":
		return "users with an issued token"
	default:
		return "users with a certificate"
	}
}

func (p *prober) channel(ctx context.Context) bool {
	name := "the server opens a secure channel to this agent"
	if p.config.SecurityPolicy == "None" {
		name = "the server opens a channel"
	}
	client, err := p.dial(ctx, p.in)
	if err != nil {
		return p.fail(name, err)
	}
	p.link = &link{client: client}
	return p.ok(name, "")
}

func (p *prober) login(ctx context.Context) bool {
	name := fmt.Sprintf("the server accepts %s", p.userName())
	for range p.endpoints {
		err := p.openSession(ctx, p.link, p.in)
		if err == nil {
			return p.ok(name, fmt.Sprintf("session for %s", p.session.RevisedTimeout()))
		}
		var t *trouble
		if next := p.endpoint(); errors.As(err, &t) || next == p.in.endpoint {
			return p.fail(name, err)
		}
		if err := p.again(ctx); err != nil { // each address has token names of its own
			return p.fail(name, err)
		}
	}
	return true
}

// again goes to the next of the server's endpoints.
func (p *prober) again(ctx context.Context) error {
	p.link.close(ctx)
	p.link = nil
	in, err := p.prepareLogin(ctx)
	if err != nil {
		return err
	}
	client, err := p.dial(ctx, in)
	if err != nil {
		return err
	}
	p.in, p.link = in, &link{client: client}
	return nil
}

func (p *prober) server(ctx context.Context) bool {
	const name = "the server says what it is"
	facts, err := p.link.facts(ctx)
	if err != nil {
		return p.fail(name, err)
	}
	p.facts = facts
	b := facts.build
	p.ok(name, fmt.Sprintf("%s %s %s (treated as %s), started %s, %d namespaces", oneLine(b.ManufacturerName), oneLine(b.ProductName),
		oneLine(b.SoftwareVersion), facts.profile.name, facts.started.In(p.zone()).Format(time.DateTime), len(facts.namespaces)))
	if off := time.Since(facts.now); !facts.now.IsZero() && off.Abs() > clockOff {
		where := "behind"
		if off < 0 {
			where = "ahead of"
		}
		p.warn("the two clocks agree", &signal.Problem{Code: "clock", Item: p.config.Endpoint,
			Reason:   fmt.Sprintf("the server's clock is %s %s this computer's", off.Abs().Round(time.Second), where),
			NextStep: "set the clocks by one time server: certificates and the times of facts depend on them"})
	}
	if most := facts.profile.items; most > 0 && len(p.config.Nodes) > most {
		p.warn("the server bears that many nodes", &signal.Problem{Code: "too_many_nodes", Item: p.config.Endpoint,
			Reason:   fmt.Sprintf("%d nodes are configured; a %s bears %d", len(p.config.Nodes), facts.profile.name, most),
			NextStep: "read fewer nodes, or gather them in arrays and structures"})
	}
	return true
}
