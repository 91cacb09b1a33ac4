package opcua

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"time"

	gopcua "github.com/gopcua/opcua"
	"github.com/gopcua/opcua/ua"
)

const (
	// dialTimeout bounds TCP, hello, secure channel and session of one attempt, each for itself.
	dialTimeout = 8 * time.Second
	// callTimeout bounds each call but publish.
	callTimeout = 8 * time.Second
)

// trouble is a fault with words for the person who can mend it.
type trouble struct {
	code     string
	reason   string
	nextStep string
	// pause is true where trying again soon does harm: a wrong password locks accounts.
	pause bool
	cause error
}

func (t *trouble) Error() string {
	if t.cause == nil {
		return t.reason
	}
	return t.reason + ": " + t.cause.Error()
}

func (t *trouble) Unwrap() error { return t.cause }

// login is what a session is activated with.
type login struct {
	endpoint *ua.EndpointDescription
	token    *ua.UserTokenPolicy
	user     identity
	secret   string // password or token
}

// connect opens a secure channel to the trusted server and re-activates the session there, or creates one.
func (r *reader) connect(ctx context.Context) (*link, error) {
	in, err := r.prepareLogin(ctx)
	if err != nil {
		return nil, err
	}
	client, err := r.dial(ctx, in)
	if err != nil {
		r.endpoints = nil
		return nil, err
	}
	l := &link{client: client}
	if err := r.openSession(ctx, l, in); err != nil {
		l.close(ctx)
		if !errors.Is(err, io.EOF) {
			r.endpoints = nil
		}
		return nil, err
	}
	return l, nil
}

// prepareLogin finds the endpoint, decides about its certificate, and reads the secrets; in this order.
func (r *reader) prepareLogin(ctx context.Context) (*login, error) {
	if len(r.endpoints) == 0 {
		found, err := r.discover(ctx)
		if err != nil {
			return nil, err
		}
		r.endpoints = found
	}
	in := &login{endpoint: r.endpoints[r.candidate%len(r.endpoints)]}
	if err := r.checkServer(in.endpoint); err != nil {
		return nil, err
	}
	token, err := r.chooseToken(in.endpoint)
	if err != nil {
		return nil, err
	}
	in.token = token
	return in, r.readSecrets(in)
}

func (r *reader) readSecrets(in *login) (err error) {
	u := r.config.User
	switch {
	case u == nil:
		return nil
	case u.Certificate != "":
		in.user, err = loadIdentity(u.Certificate, u.Key)
	default:
		in.secret, err = u.secret()
	}
	if err != nil {
		return &trouble{code: "login_files", reason: "the user's secrets cannot be read", cause: err,
			nextStep: "check the file names in the source's user section and that the agent may read them"}
	}
	return nil
}

// discover asks the server, without any secret, for its endpoints, and returns those that the configuration allows.
func (r *reader) discover(ctx context.Context) ([]*ua.EndpointDescription, error) {
	all, err := askEndpoints(ctx, r.config.Endpoint)
	if err != nil {
		return nil, err
	}
	return chooseEndpoints(all, &r.config)
}

// askEndpoints asks the server at an address what it offers. Nothing that it says is trusted yet.
func askEndpoints(ctx context.Context, address string) ([]*ua.EndpointDescription, error) {
	res, err := asStranger[*ua.GetEndpointsResponse](ctx, address, &ua.GetEndpointsRequest{EndpointURL: address})
	if err != nil {
		return nil, err
	}
	return res.Endpoints, nil
}

// asStranger asks a server without security and without a session, for what it tells everybody.
func asStranger[T ua.Response](ctx context.Context, address string, req ua.Request) (answer T, err error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	c, err := gopcua.NewClient(address, gopcua.AutoReconnect(false), gopcua.DialTimeout(dialTimeout),
		gopcua.RequestTimeout(dialTimeout))
	if err != nil {
		return answer, fmt.Errorf("ask %q for its endpoints: %w", address, err)
	}
	if err := c.Dial(ctx); err != nil {
		return answer, unreachable(address, err)
	}
	defer c.Close(ctx)
	if answer, err = call[T](ctx, &client{Client: c}, 0, req); err != nil {
		return answer, unreachable(address, err)
	}
	return answer, nil
}

// unreachable puts into words why no conversation came about.
func unreachable(endpoint string, err error) error {
	var w *word
	if errors.As(spoken(err), &w) {
		if known, ok := refusals[w.status]; ok && !strings.HasPrefix(known.code, "agent_") {
			return &trouble{code: known.code, reason: known.reason, nextStep: known.next, cause: w}
		}
		return &trouble{code: "server_refuses", reason: fmt.Sprintf("the server at %s refuses to talk", endpoint), cause: w,
			nextStep: "look into the server's log for the reason"}
	}
	var op *net.OpError
	var status ua.StatusCode
	switch {
	case errors.As(err, &op):
		err = op.Err // without our own port, which is another one each time
	case errors.Is(err, io.EOF):
		return &trouble{code: "hung_up", reason: fmt.Sprintf("what answers at %s closes the connection at once", endpoint), cause: err,
			nextStep: "check that the port is the OPC UA server's, that the server runs, and that no firewall stands between"}
	case !isNetwork(err) && !errors.As(err, &status):
		return &trouble{code: "no_opcua", reason: fmt.Sprintf("what answers at %s does not speak OPC UA", endpoint),
			nextStep: "check the port: OPC UA servers mostly have 4840, KEPServerEX 49320, Ignition 62541"}
	}
	return &trouble{code: "unreachable", reason: fmt.Sprintf("the server at %s does not answer", endpoint), cause: err,
		nextStep: "check that the server runs and that no firewall stands between"}
}

const uaTCP = "http://opcfoundation.org/UA-Profile/Transport/uatcp-uasc-uabinary"

// chooseEndpoints keeps the endpoints of the wanted security, that of the very address first: each address of a server may
// have login rules of its own, and behind a gateway none of the addresses is the one we use.
func chooseEndpoints(all []*ua.EndpointDescription, c *Config) ([]*ua.EndpointDescription, error) {
	var exact, others []*ua.EndpointDescription
	for _, e := range all {
		switch {
		case !isBinary(e) || e.SecurityPolicyURI != c.policyURI() || e.SecurityMode != c.mode():
		case sameAddress(e.EndpointURL, c.Endpoint):
			exact = append(exact, e)
		default:
			others = append(others, e)
		}
	}
	found := append(exact, others...)
	if len(found) == 0 {
		return nil, &trouble{code: "security_not_offered",
			reason: fmt.Sprintf("the server does not offer %s with %s: it offers %s", c.SecurityPolicy, shortMode(c.mode()),
				strings.Join(securities(all), ", ")),
			nextStep: "set security_policy and security_mode to one of these, or enable the wanted one in the server"}
	}
	return found, nil
}

// isBinary reports whether an endpoint speaks the protocol's usual form; others have it in HTTPS or a WebSocket.
func isBinary(e *ua.EndpointDescription) bool {
	return e.TransportProfileURI == "" || e.TransportProfileURI == uaTCP
}

// securities are the ways in which endpoints are secured, each once.
func securities(all []*ua.EndpointDescription) (list []string) {
	seen := map[string]bool{}
	for _, e := range all {
		name := shortPolicy(e.SecurityPolicyURI) + "/" + shortMode(e.SecurityMode)
		if isBinary(e) && !seen[name] {
			seen[name] = true
			list = append(list, name)
		}
	}
	return list
}

func shortPolicy(uri string) string {
	_, name, found := strings.Cut(uri, "#")
	if !found {
		return uri
	}
	return name
}

func shortMode(m ua.MessageSecurityMode) string {
	return strings.TrimPrefix(m.String(), "MessageSecurityMode")
}

func sameAddress(a, b string) bool {
	x, errX := url.Parse(a)
	y, errY := url.Parse(b)
	return errX == nil && errY == nil && strings.EqualFold(x.Host, y.Host) &&
		strings.TrimSuffix(x.Path, "/") == strings.TrimSuffix(y.Path, "/")
}

// checkServer refuses a server that is not trusted.
func (r *reader) checkServer(e *ua.EndpointDescription) error {
	if e.SecurityPolicyURI == ua.SecurityPolicyURINone {
		return nil
	}
	host := ""
	if u, err := url.Parse(r.config.Endpoint); err == nil {
		host = u.Hostname()
	}
	uri := ""
	if e.Server != nil {
		uri = e.Server.ApplicationURI
	}
	j, err := r.store.check(r.env.Source, e.ServerCertificate, uri, host, r.config.tolerates, time.Now())
	if err != nil {
		return err
	}
	r.judged = j
	r.warnHost(j.host())
	return nil
}

// chooseToken finds how the endpoint takes our user, and refuses to send a password where it could be read.
func (r *reader) chooseToken(e *ua.EndpointDescription) (*ua.UserTokenPolicy, error) {
	want := ua.UserTokenTypeAnonymous
	if u := r.config.User; u != nil {
		switch want = ua.UserTokenTypeUserName; {
		case u.Certificate != "":
			want = ua.UserTokenTypeCertificate
		case u.TokenFile != "":
			want = ua.UserTokenTypeIssuedToken
		}
	}
	var best *ua.UserTokenPolicy
	var offered []string
	for _, t := range e.UserIdentityTokens {
		offered = append(offered, strings.TrimPrefix(t.TokenType.String(), "UserTokenType"))
		if t.TokenType != want || !takesJWT(t) || !r.config.supported(tokenPolicy(t, e)) {
			continue
		}
		if best == nil || tokenPolicy(best, e) == ua.SecurityPolicyURINone {
			best = t
		}
	}
	if best == nil {
		return nil, &trouble{code: "login_not_offered", pause: true,
			reason: fmt.Sprintf("the server does not let %s in at this endpoint: it accepts %s",
				strings.TrimPrefix(want.String(), "UserTokenType"), strings.Join(offered, ", ")),
			nextStep: "change the source's user section, or enable this kind of login in the server"}
	}
	readable := tokenPolicy(best, e) == ua.SecurityPolicyURINone && e.SecurityMode != ua.MessageSecurityModeSignAndEncrypt
	if (want == ua.UserTokenTypeUserName || want == ua.UserTokenTypeIssuedToken) && readable && !r.config.AllowInsecurePassword {
		return nil, &trouble{code: "password_unprotected", pause: true,
			reason:   "the server wants the password or token without encryption",
			nextStep: "set security_mode to SignAndEncrypt, or write `allow_insecure_password: true`"}
	}
	return best, nil
}

// takesJWT is false for issued tokens that are no JSON Web Tokens, the only ones that the agent can show.
func takesJWT(t *ua.UserTokenPolicy) bool {
	return t.TokenType != ua.UserTokenTypeIssuedToken || t.IssuedTokenType == "" || t.IssuedTokenType == jwtType
}

const jwtType = "http://opcfoundation.org/UA/UserToken#JWT"

func tokenPolicy(t *ua.UserTokenPolicy, e *ua.EndpointDescription) string {
	if t.SecurityPolicyURI == "" {
		return e.SecurityPolicyURI
	}
	return t.SecurityPolicyURI
}

// supported reports whether a secret may go out in this policy's way.
func (c *Config) supported(policy string) bool {
	switch policy {
	case ua.SecurityPolicyURIBasic128Rsa15, ua.SecurityPolicyURIBasic256:
		return c.AllowDeprecated
	case ua.SecurityPolicyURINone, ua.SecurityPolicyURIBasic256Sha256, ua.SecurityPolicyURIAes128Sha256RsaOaep,
		ua.SecurityPolicyURIAes256Sha256RsaPss:
		return true
	}
	return false
}

// dial opens the secure channel.
func (r *reader) dial(ctx context.Context, in *login) (*client, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	options := []gopcua.Option{
		gopcua.AutoReconnect(false), gopcua.DialTimeout(dialTimeout), gopcua.RequestTimeout(r.publishTimeout()),
		gopcua.SecurityFromEndpoint(in.endpoint, in.token.TokenType), gopcua.PrivateKey(r.own.key),
	}
	if in.endpoint.SecurityPolicyURI != ua.SecurityPolicyURINone {
		options = append(options, gopcua.Certificate(r.own.der))
	}
	if in.user.key != nil {
		options = append(options, gopcua.AuthPrivateKey(in.user.key))
	}
	c, err := gopcua.NewClient(r.config.Endpoint, options...)
	if err != nil {
		return nil, fmt.Errorf("prepare a connection to %q: %w", r.config.Endpoint, err)
	}
	err = c.Dial(ctx)
	if err == nil {
		if err := sameSecurity(c, in.endpoint, r.own); err != nil {
			c.Close(ctx)
			return nil, err
		}
		if !liftLimit(c) {
			r.log.Warn("the library's limit on a message's size stays", "source", r.env.Source)
		}
		return &client{Client: c}, nil
	}
	return nil, r.explainChannel(ctx, in.endpoint, err)
}

// sameSecurity makes sure that the channel is what was asked for: the library takes over what the server's answer says.
func sameSecurity(c *gopcua.Client, e *ua.EndpointDescription, own identity) error {
	if e.SecurityPolicyURI == ua.SecurityPolicyURINone {
		return nil
	}
	want, err := policyFor(e, own)
	if err != nil {
		return err
	}
	_, got, err := c.SecureChannel().NewSessionSignature(e.ServerCertificate, make([]byte, 32))
	if err != nil || got != want.SignatureURI() {
		return &trouble{code: "downgraded", pause: true, cause: err,
			reason:   fmt.Sprintf("the answer was secured in another way than %s", shortPolicy(e.SecurityPolicyURI)),
			nextStep: "make sure that nobody sits between the agent and the server"}
	}
	return nil
}

// isNetwork reports whether the way to the server failed.
func isNetwork(err error) bool {
	var n net.Error
	return errors.Is(err, io.EOF) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || errors.As(err, &n)
}

func closedOrRefused(err error) bool {
	var status ua.StatusCode
	return errors.Is(err, io.EOF) || errors.As(err, &status) && status != ua.StatusBadTimeout
}

// openSession re-activates the session from before, or creates a new one.
func (r *reader) openSession(ctx context.Context, l *link, in *login) (err error) {
	defer func() {
		// The library takes the server's certificate for an RSA one without looking.
		if p := recover(); p != nil {
			err = fmt.Errorf("open a session: %v", p)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if r.session != nil {
		err := r.activate(ctx, l.client, r.session, in)
		if err == nil {
			l.resumed = true
			return nil
		}
		var status ua.StatusCode
		if !errors.As(err, &status) || status == ua.StatusBadTimeout {
			return fmt.Errorf("take the session over: %w", err)
		}
		r.log.Info("session is gone", "reason", statusName(status))
		r.session = nil
	}
	s, err := r.createSession(ctx, l.client, in)
	if errors.Is(err, errSignature) {
		return &trouble{code: "server_signature", pause: true,
			reason:   "the server's signature does not fit the certificate that it showed before: it does not hold the key",
			nextStep: "make sure that nobody sits between the agent and the server"}
	}
	if err != nil {
		return r.explainLogin(err)
	}
	if err := r.activate(ctx, l.client, s, in); err != nil {
		return r.explainLogin(err)
	}
	r.session = s
	return nil
}
