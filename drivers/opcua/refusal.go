package opcua

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/gopcua/opcua/ua"
)

// refusals are the statuses by which servers refuse our certificate or channel, with what they mean and what to do. %s in a
// next step is where our certificate lies and how it is told from others.
var refusals = map[ua.StatusCode]struct{ code, reason, next string }{
	ua.StatusBadSecurityChecksFailed: {"agent_not_trusted", "the server refuses this agent's certificate, most likely because it does not trust it yet", ""},
	ua.StatusBadCertificateUntrusted: {"agent_not_trusted", "the server does not trust this agent's certificate", ""},
	ua.StatusBadCertificateTimeInvalid: {"agent_certificate_time", "the server takes this agent's certificate for expired or not yet valid",
		"check the clocks of the server and of this computer; the certificate is %s"},
	ua.StatusBadCertificateIssuerTimeInvalid: {"agent_certificate_time", "the server takes the certificate of the authority behind this agent's for expired",
		"renew the authority's certificate, or check the server's clock"},
	ua.StatusBadCertificateURIInvalid: {"agent_uri", "the server says that this agent's application URI is not the one in its certificate",
		"leave application_uri out, or set it to what the certificate says; the certificate is %s"},
	ua.StatusBadCertificateHostNameInvalid: {"agent_host", "the server says that this agent's certificate is for another host",
		"switch the check of clients' host names off in the server, or give the agent a certificate for this host's name; it is %s"},
	ua.StatusBadCertificateUseNotAllowed: {"agent_certificate_use", "the server does not accept the purposes in this agent's certificate",
		"let the authority issue one for client authentication, with digital signature, key encipherment, data encipherment and non-repudiation; it is %s"},
	ua.StatusBadCertificateInvalid: {"agent_certificate", "the server finds this agent's certificate faulty",
		"look into the server's log for the reason; the certificate is %s"},
	ua.StatusBadCertificateChainIncomplete: {"agent_chain", "the server does not know the authority behind this agent's certificate",
		"give the server the authority's certificate; the agent's is %s"},
	ua.StatusBadCertificateRevoked: {"agent_revoked", "the server says that this agent's certificate was revoked",
		"give the agent a new certificate; the old one is %s"},
	ua.StatusBadCertificateRevocationUnknown: {"agent_revocation", "the server cannot tell whether this agent's certificate was revoked",
		"give the server the authority's list of revoked certificates; the certificate is %s"},
	ua.StatusBadCertificateIssuerRevocationUnknown: {"agent_revocation", "the server cannot tell whether the certificate of the authority behind this agent's was revoked",
		"give the server the authority's list of revoked certificates"},
	ua.StatusBadSecurityPolicyRejected: {"policy_refused", "the server refuses the security policy", "enable it in the server, or set security_policy to one that `plantagent doctor` lists as offered"},
	ua.StatusBadSecurityModeRejected:   {"policy_refused", "the server refuses the security mode", "enable it in the server, or set security_mode to one that `plantagent doctor` lists as offered"},
	ua.StatusBadTCPEndpointURLInvalid: {"endpoint_unknown", "the server does not know the address by which it is called",
		"write endpoint as the server's own page shows it, with the path behind the port"},
	ua.StatusBadTCPServerTooBusy:           {"server_busy", "the server is too busy for another connection", "close other clients or wait; the agent tries again by itself"},
	ua.StatusBadTCPNotEnoughResources:      {"server_busy", "the server has no room for another connection", "close other clients or wait; the agent tries again by itself"},
	ua.StatusBadMaxConnectionsReached:      {"server_busy", "the server has no room for another connection", "close other clients or wait; the agent tries again by itself"},
	ua.StatusBadServerHalted:               {"server_halted", "the server is stopped", "start it; the agent tries again by itself"},
	ua.StatusBadProtocolVersionUnsupported: {"no_opcua", "the server speaks another version of the protocol", "update the server"},
}

// trustIn says where each maker keeps the list of clients that its server trusts.
var trustIn = []struct{ maker, place string }{
	{"siemens", "in TIA Portal, under OPC UA > Server > Security > Trusted clients of the CPU (import the file, then load the program)"},
	{"simatic", "in TIA Portal, under OPC UA > Server > Security > Trusted clients of the CPU (import the file, then load the program)"},
	{"kepware", "in the OPC UA Configuration Manager, under Trusted Clients: Trust"},
	{"kepserver", "in the OPC UA Configuration Manager, under Trusted Clients: Trust"},
	{"inductiveautomation", "on the gateway's page, under Config > OPC UA > Security > Server: Trust"},
	{"ignition", "on the gateway's page, under Config > OPC UA > Security > Server: Trust"},
}

// place is where the endpoint's server keeps that list.
func place(e *ua.EndpointDescription) string {
	if e != nil && e.Server != nil {
		who := strings.ToLower(e.Server.ProductURI + " " + e.Server.ApplicationURI)
		for _, t := range trustIn {
			if strings.Contains(who, t.maker) {
				return t.place
			}
		}
	}
	return "in the server's list of client certificates: it usually lies under \"rejected\" there"
}

// ownPlace says where our certificate lies and how it is told from others.
func (r *reader) ownPlace() string {
	file, _ := r.ownFiles()
	return fmt.Sprintf("%q, file %s, SHA-1 %s, SHA-256 %s", subject(r.own.cert), file, thumbprint(r.own.cert.Raw), fingerprint(r.own.cert.Raw))
}

// ownFiles are the certificate that the agent shows to this server, and its key.
func (r *reader) ownFiles() (cert, key string) {
	if r.config.Certificate != "" {
		return r.config.Certificate, r.config.Key
	}
	return ownFiles(r.env.Dir)
}

// refusedChannel puts the server's refusal of a secure channel into words.
func (r *reader) refusedChannel(e *ua.EndpointDescription, w *word) *trouble {
	known, ok := refusals[w.status]
	if !ok {
		return &trouble{code: "channel_refused", reason: "the server refuses a secure channel with this agent", cause: w,
			nextStep: "look into the server's log for the reason; the agent's certificate is " + r.ownPlace()}
	}
	t := &trouble{code: known.code, reason: known.reason, cause: w, nextStep: known.next}
	switch {
	case known.next == "":
		t.nextStep = fmt.Sprintf("trust the agent's certificate %s; the agent then connects by itself. It is %s", place(e), r.ownPlace())
	case strings.Contains(known.next, "%s"):
		t.nextStep = fmt.Sprintf(known.next, r.ownPlace())
	}
	return t
}

// explainChannel finds out why a secure channel could not be opened.
func (r *reader) explainChannel(ctx context.Context, e *ua.EndpointDescription, err error) error {
	if e.SecurityPolicyURI == ua.SecurityPolicyURINone || !closedOrRefused(err) {
		return unreachable(r.config.Endpoint, err)
	}
	var status ua.StatusCode
	if errors.As(err, &status) {
		return r.refusedChannel(e, &word{status: status})
	}
	why := knock(ctx, r.config.Endpoint, e, r.own)
	var w *word
	switch {
	case errors.As(why, &w):
		return r.refusedChannel(e, w)
	case errors.Is(why, errHungUp):
		return &trouble{code: "agent_not_trusted", cause: why,
			reason:   "the server ends the connection when it sees this agent's certificate, most likely because it does not trust it yet",
			nextStep: fmt.Sprintf("trust the agent's certificate %s; the agent then connects by itself. It is %s", place(e), r.ownPlace())}
	case why == nil:
		return fmt.Errorf("open a secure channel: %w", err) // it was let in now: the first try met something that passed
	}
	return unreachable(r.config.Endpoint, why)
}

// explainLogin turns the server's refusal of a session into something a person can act on.
func (r *reader) explainLogin(err error) error {
	var status ua.StatusCode
	if !errors.As(err, &status) {
		return fmt.Errorf("open a session: %w", err)
	}
	name := statusName(status)
	switch status {
	case ua.StatusBadIdentityTokenInvalid:
		// Each address of a server may have token names of its own: try those of the next one.
		r.candidate++
		if r.candidate%max(len(r.endpoints), 1) != 0 {
			return fmt.Errorf("open a session: %s", name)
		}
		fallthrough
	case ua.StatusBadUserAccessDenied, ua.StatusBadIdentityTokenRejected, ua.StatusBadUserSignatureInvalid:
		return &trouble{code: "login_refused", pause: true,
			reason:   fmt.Sprintf("the server refuses the login of %s: %s", r.userName(), name),
			nextStep: r.loginStep()}
	case ua.StatusBadTooManySessions:
		return &trouble{code: "too_many_sessions",
			reason:   "the server has no free session: " + name,
			nextStep: "close other clients, raise the server's limit, or wait until old sessions have timed out"}
	case ua.StatusBadApplicationSignatureInvalid:
		return &trouble{code: "agent_certificate", pause: true,
			reason:   "the server says that this agent does not hold its certificate's key: " + name,
			nextStep: "check that nothing between the two changes messages; the agent's certificate is " + r.ownPlace()}
	}
	if _, ok := refusals[status]; ok {
		t := r.refusedChannel(r.endpoint(), &word{status: status})
		t.pause = true
		return t
	}
	return fmt.Errorf("open a session: %s", name)
}

// endpoint is the one that is tried at present.
func (r *reader) endpoint() *ua.EndpointDescription {
	if len(r.endpoints) == 0 {
		return nil
	}
	return r.endpoints[r.candidate%len(r.endpoints)]
}

func (r *reader) loginStep() string {
	const rarely = "; the agent tries rarely, so that no account is locked"
	switch u := r.config.User; {
	case u == nil:
		return "enable anonymous users in the server, or name a user in the source's section" + rarely
	case u.Name != "":
		return "correct the password file or the user in the server" + rarely
	case u.TokenFile != "":
		return fmt.Sprintf("have a new token written into %s, or look in the server which issuer and audience it expects%s", filepath.Base(u.TokenFile), rarely)
	default:
		return fmt.Sprintf("trust the user's certificate %s in the server: it has a list of its own for users%s", filepath.Base(u.Certificate), rarely)
	}
}

func (r *reader) userName() string {
	switch u := r.config.User; {
	case u == nil:
		return "an anonymous user"
	case u.Name != "":
		return fmt.Sprintf("user %q", u.Name)
	case u.TokenFile != "":
		return fmt.Sprintf("the user of token file %q", u.TokenFile)
	default:
		return fmt.Sprintf("the user of certificate %q", u.Certificate)
	}
}
