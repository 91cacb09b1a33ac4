package opcua

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gopcua/opcua/ua"
	"go.yaml.in/yaml/v4"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// defaultPort is where OPC UA servers listen by default.
const defaultPort = "4840"

// addressOf makes an endpoint of what a person typed: "10.0.0.5", "press7:4841", "opc.tcp://press7:4840/plant".
func addressOf(typed string) (*url.URL, error) {
	text := strings.TrimSpace(typed)
	if scheme, _, found := strings.Cut(text, "://"); !found {
		if ip := net.ParseIP(text); ip != nil && ip.To4() == nil {
			text = "[" + text + "]"
		}
		text = "opc.tcp://" + text
	} else if scheme != "opc.tcp" {
		return nil, fmt.Errorf("address %q is not an OPC UA address: write a host, host:port, or opc.tcp://host:4840 (other transports are not possible)", typed)
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" {
		return nil, fmt.Errorf("address %q is not an OPC UA address: write a host, host:port, or opc.tcp://host:4840", typed)
	}
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), defaultPort)
	}
	return u, nil
}

// foundServer is one server that was found at an address.
type foundServer struct {
	address   *url.URL
	endpoints []*ua.EndpointDescription
}

// discover finds the ways to the servers at an address: to the one that listens there, and to those that it knows of, which is
// what a discovery server is for. It sends no secret and trusts nothing that it hears: a host is never replaced by another one
// that a server names, only by the host that the person typed.
func discover(ctx context.Context, env signal.Env, typed string) ([]signal.Offer, error) {
	address, err := addressOf(typed)
	if err != nil {
		return nil, err
	}
	first, err := askEndpoints(ctx, address.String())
	if err != nil {
		var t *trouble
		if errors.As(err, &t) {
			return nil, fmt.Errorf("%s: %s", plain(t), t.nextStep)
		}
		return nil, err
	}
	found := []foundServer{{address: address, endpoints: first}}
	for _, other := range neighbours(ctx, address) {
		if sameAddress(other.String(), address.String()) {
			continue
		}
		if list, err := askEndpoints(ctx, other.String()); err == nil {
			found = append(found, foundServer{address: other, endpoints: list})
		}
	}
	var offers []signal.Offer
	seen := map[string]bool{}
	for _, s := range found {
		for _, o := range s.offers(env) {
			if !seen[o.Section] {
				seen[o.Section] = true
				offers = append(offers, o.Offer)
			}
		}
	}
	if len(offers) == 0 {
		return nil, fmt.Errorf("the server at %s offers no way that this agent can take: it offers %s", address, strings.Join(securities(first), ", "))
	}
	return offers, nil
}

// neighbours are the addresses of the servers that the one at an address knows of, at the host that the person typed.
func neighbours(ctx context.Context, address *url.URL) (list []*url.URL) {
	res, err := asStranger[*ua.FindServersResponse](ctx, address.String(), &ua.FindServersRequest{EndpointURL: address.String()})
	if err != nil {
		return nil // many servers know of nobody and say so in this way
	}
	for _, s := range res.Servers {
		if s.ApplicationType == ua.ApplicationTypeDiscoveryServer || s.ApplicationType == ua.ApplicationTypeClient {
			continue
		}
		for _, text := range s.DiscoveryURLs {
			u, err := addressOf(text)
			if err != nil {
				continue
			}
			at := *address
			at.Host, at.Path = net.JoinHostPort(address.Hostname(), u.Port()), u.Path
			list = append(list, &at)
			break
		}
	}
	return list
}

// ranked is an offer with its place among the others.
type ranked struct {
	signal.Offer
	rank int
}

// policyRank orders the policies, the best first; those that are not named cannot be used.
var policyRank = map[string]int{"Aes256_Sha256_RsaPss": 0, "Basic256Sha256": 1, "Aes128_Sha256_RsaOaep": 2, "Basic256": 20, "Basic128Rsa15": 21, "None": 40}

func deprecated(policy string) bool { return policy == "Basic256" || policy == "Basic128Rsa15" }

// offers are the ways to a server, the best and safest first.
func (s foundServer) offers(env signal.Env) []ranked {
	var list []ranked
	var unusable []string
	for _, e := range s.endpoints {
		policy := shortPolicy(e.SecurityPolicyURI)
		rank, usable := policyRank[policy]
		if !isBinary(e) {
			continue
		}
		if !usable {
			unusable = append(unusable, policy)
			continue
		}
		if e.SecurityMode == ua.MessageSecurityModeSign {
			rank += 10
		}
		for _, kind := range []ua.UserTokenType{ua.UserTokenTypeUserName, ua.UserTokenTypeCertificate, ua.UserTokenTypeIssuedToken, ua.UserTokenTypeAnonymous} {
			if o, ok := s.offer(env, e, policy, kind); ok {
				list = append(list, ranked{o, rank*10 + tokenRank(kind)})
			}
		}
	}
	slices.SortStableFunc(list, func(a, b ranked) int { return cmp.Compare(a.rank, b.rank) })
	if len(list) > 0 && unusable != nil {
		list[0].Notes = append(list[0].Notes, "the server also offers "+strings.Join(slices.Compact(unusable), ", ")+", which this agent cannot use")
	}
	return list
}

func tokenRank(k ua.UserTokenType) int {
	switch k {
	case ua.UserTokenTypeUserName:
		return 0
	case ua.UserTokenTypeCertificate:
		return 1
	case ua.UserTokenTypeIssuedToken:
		return 2
	}
	return 3
}

// offered is the section of an offer, in the order in which a person reads it.
type offered struct {
	Endpoint              string       `yaml:"endpoint"`
	SecurityPolicy        string       `yaml:"security_policy"`
	SecurityMode          string       `yaml:"security_mode,omitempty"`
	AllowDeprecated       bool         `yaml:"allow_deprecated,omitempty"`
	User                  *offeredUser `yaml:"user,omitempty"`
	Anonymous             bool         `yaml:"anonymous,omitempty"`
	AllowInsecurePassword bool         `yaml:"allow_insecure_password,omitempty"`
}

type offeredUser struct {
	Name         string `yaml:"name,omitempty"`
	PasswordFile string `yaml:"password_file,omitempty"`
	Certificate  string `yaml:"certificate,omitempty"`
	Key          string `yaml:"key,omitempty"`
	TokenFile    string `yaml:"token_file,omitempty"`
}

// offer is one endpoint with one kind of login; false when the endpoint does not have it.
func (s foundServer) offer(env signal.Env, e *ua.EndpointDescription, policy string, kind ua.UserTokenType) (o signal.Offer, ok bool) {
	c := Config{AllowDeprecated: true}
	secret, readable := kind == ua.UserTokenTypeUserName || kind == ua.UserTokenTypeIssuedToken, false
	for _, t := range e.UserIdentityTokens {
		if t.TokenType == kind && takesJWT(t) && c.supported(tokenPolicy(t, e)) {
			ok = true
			readable = secret && e.SecurityMode != ua.MessageSecurityModeSignAndEncrypt &&
				tokenPolicy(t, e) == ua.SecurityPolicyURINone
		}
	}
	if !ok {
		return o, false
	}
	at := *s.address
	if u, err := url.Parse(e.EndpointURL); err == nil {
		at.Path = u.Path
		if !strings.EqualFold(u.Hostname(), at.Hostname()) {
			o.Notes = append(o.Notes, fmt.Sprintf("the server calls itself %s; the host that you typed is kept", u.Host))
		}
	}
	section := offered{Endpoint: at.String(), SecurityPolicy: policy, AllowDeprecated: deprecated(policy),
		AllowInsecurePassword: readable || secret && policy == "None"}
	parts := []string{at.String(), policy}
	if policy != "None" {
		section.SecurityMode = shortMode(e.SecurityMode)
		parts = append(parts, section.SecurityMode)
	}
	name := cmp.Or(env.Source, "opcua")
	switch kind {
	case ua.UserTokenTypeUserName:
		section.User = &offeredUser{Name: "linekeeper", PasswordFile: name + "-password.txt"}
		parts = append(parts, "user name")
		o.Notes = append(o.Notes, fmt.Sprintf("write the user's name into user, and the password into the file %s-password.txt beside the configuration", name))
	case ua.UserTokenTypeCertificate:
		section.User = &offeredUser{Certificate: name + "-user.pem", Key: name + "-user.key"}
		parts = append(parts, "user certificate")
		o.Notes = append(o.Notes, "the user's certificate has to be trusted in the server's list of users")
	case ua.UserTokenTypeIssuedToken:
		section.User = &offeredUser{TokenFile: name + "-token.txt"}
		parts = append(parts, "issued token")
		o.Notes = append(o.Notes, fmt.Sprintf("the server takes JSON Web Tokens: whoever has them issued writes each into the file %s-token.txt beside the configuration", name))
	default:
		section.Anonymous = true
		parts = append(parts, "anonymous")
	}
	o.Title = strings.Join(parts, ", ")
	o.Secure = policy != "None" && !section.AllowDeprecated && !section.AllowInsecurePassword
	o.Notes = append(o.Notes, trustNotes(env, e, policy)...)
	if section.AllowInsecurePassword {
		o.Notes = append(o.Notes, "the password or token would go over the network readable")
	}
	text, err := yaml.Dump(section)
	if err != nil {
		return o, false // it holds nothing but strings
	}
	o.Section = string(text)
	return o, true
}

// trustNotes say whose certificate has to be trusted where.
func trustNotes(env signal.Env, e *ua.EndpointDescription, policy string) (notes []string) {
	if policy == "None" {
		return []string{"nothing is encrypted, and nobody checks that it is the right server"}
	}
	if deprecated(policy) {
		notes = append(notes, "this policy is not safe any more; enable Basic256Sha256 or better in the server if it has it")
	}
	certs, err := x509.ParseCertificates(e.ServerCertificate)
	if err != nil || len(certs) == 0 {
		return append(notes, "the server shows no certificate that can be read; it will not work before it has one")
	}
	leaf := certs[0]
	notes = append(notes, fmt.Sprintf("this agent has to trust the server's certificate %q, SHA-256 %s (SHA-1 %s): plantagent trust %s %s",
		subject(leaf), fingerprint(leaf.Raw), thumbprint(leaf.Raw), cmp.Or(env.Source, "SOURCE"), fingerprint(leaf.Raw)[:16]),
		"the server has to trust this agent's certificate "+place(e))
	if now := time.Now(); now.After(leaf.NotAfter) || now.Before(leaf.NotBefore) {
		notes = append(notes, fmt.Sprintf("the server's certificate is valid from %s to %s only", leaf.NotBefore.Format(time.DateOnly), leaf.NotAfter.Format(time.DateOnly)))
	}
	return notes
}
