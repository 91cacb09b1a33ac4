package opcua

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	gopcua "github.com/gopcua/opcua"
	"github.com/gopcua/opcua/ua"
)

// client is a secure channel, with the session that its calls belong to. The session's handshake is our own: the library signs
// everything that a server shows where the specification has the first certificate only, so that no server behind an authority
// lets it in, and it does not look whether the certificate is still the one that was trusted.
type client struct {
	*gopcua.Client
	token atomic.Pointer[ua.NodeID]
}

// Send sends a request in the session, if there is one, and hands its answer to h.
func (c *client) Send(ctx context.Context, req ua.Request, h func(ua.Response) error) error {
	return c.sendAs(ctx, c.token.Load(), req, h)
}

func (c *client) sendAs(ctx context.Context, token *ua.NodeID, req ua.Request, h func(ua.Response) error) error {
	channel := c.SecureChannel()
	if channel == nil {
		return ua.StatusBadServerNotConnected
	}
	return channel.SendRequest(ctx, req, token, h)
}

// userSession is a session at the server. It outlives the channel that it was made on.
type userSession struct {
	token *ua.NodeID
	// server is the server's certificate, nonce what it sent last: whoever takes the session over signs both.
	server, nonce []byte
	timeout       time.Duration
}

// RevisedTimeout is how long the server keeps the session of an agent that is away.
func (s *userSession) RevisedTimeout() time.Duration { return s.timeout }

// errSignature is a server that cannot sign as its certificate's owner would.
var errSignature = errors.New("the server's signature does not fit its certificate")

// createSession makes a session that nobody is logged in to yet.
func (r *reader) createSession(ctx context.Context, c *client, in *login) (*userSession, error) {
	nonce := make([]byte, 32)
	if _, err := rand.Read(nonce); err != nil {
		return nil, fmt.Errorf("draw a nonce: %w", err)
	}
	req := &ua.CreateSessionRequest{
		ClientDescription: &ua.ApplicationDescription{
			ApplicationURI: uriOf(r.own.cert), ProductURI: "urn:linekeeper",
			ApplicationName: ua.NewLocalizedText("Linekeeper agent"), ApplicationType: ua.ApplicationTypeClient,
		},
		EndpointURL: r.config.Endpoint, SessionName: "linekeeper " + r.env.Agent + " " + r.env.Source,
		ClientNonce: nonce, RequestedSessionTimeout: milliseconds(r.config.SessionTimeout),
	}
	secured := in.endpoint.SecurityPolicyURI != ua.SecurityPolicyURINone
	if secured {
		req.ClientCertificate = r.own.der
	}
	var s *userSession
	err := c.sendAs(ctx, nil, req, func(v ua.Response) error {
		res, err := asAnswer[*ua.CreateSessionResponse](req, v)
		if err != nil {
			return err
		}
		server := firstOf(res.ServerCertificate)
		if secured {
			if !bytes.Equal(server, firstOf(in.endpoint.ServerCertificate)) || res.ServerSignature == nil ||
				c.SecureChannel().VerifySessionSignature(server, nonce, res.ServerSignature.Signature) != nil {
				return errSignature
			}
		}
		s = &userSession{token: res.AuthenticationToken, server: server, nonce: res.ServerNonce,
			timeout: time.Duration(res.RevisedSessionTimeout) * time.Millisecond}
		return nil
	})
	return s, err
}

// firstOf is the first certificate of a chain, the owner's.
func firstOf(chain []byte) []byte {
	certs, err := x509.ParseCertificates(chain)
	if err != nil || len(certs) == 0 {
		return chain
	}
	return certs[0].Raw
}

// activate logs in to a session, a new one or one from before, on this channel.
func (r *reader) activate(ctx context.Context, c *client, s *userSession, in *login) error {
	channel := c.SecureChannel()
	if channel == nil {
		return ua.StatusBadServerNotConnected
	}
	// The library appends to what it is given.
	server := s.server[:len(s.server):len(s.server)]
	signature, algorithm, err := channel.NewSessionSignature(server, s.nonce)
	if err != nil {
		return fmt.Errorf("sign for the session: %w", err)
	}
	req := &ua.ActivateSessionRequest{LocaleIDs: []string{"en"}, UserTokenSignature: &ua.SignatureData{},
		ClientSignature: &ua.SignatureData{Algorithm: algorithm, Signature: signature}}
	policy := tokenPolicy(in.token, in.endpoint)
	switch in.token.TokenType {
	case ua.UserTokenTypeUserName:
		secret, algorithm, err := channel.EncryptUserPassword(policy, in.secret, server, s.nonce)
		if err != nil {
			return fmt.Errorf("encrypt the password: %w", err)
		}
		req.UserIdentityToken = ua.NewExtensionObject(&ua.UserNameIdentityToken{PolicyID: in.token.PolicyID, UserName: r.config.User.Name,
			Password: secret, EncryptionAlgorithm: algorithm})
	case ua.UserTokenTypeCertificate:
		signature, algorithm, err := channel.NewUserTokenSignature(policy, server, s.nonce)
		if err != nil {
			return fmt.Errorf("sign as the user: %w", err)
		}
		req.UserTokenSignature = &ua.SignatureData{Algorithm: algorithm, Signature: signature}
		req.UserIdentityToken = ua.NewExtensionObject(&ua.X509IdentityToken{PolicyID: in.token.PolicyID, CertificateData: in.user.der})
	case ua.UserTokenTypeIssuedToken:
		secret, algorithm, err := channel.EncryptUserPassword(policy, in.secret, server, s.nonce)
		if err != nil {
			return fmt.Errorf("encrypt the token: %w", err)
		}
		req.UserIdentityToken = ua.NewExtensionObject(&ua.IssuedIdentityToken{PolicyID: in.token.PolicyID, TokenData: secret, EncryptionAlgorithm: algorithm})
	default:
		req.UserIdentityToken = ua.NewExtensionObject(&ua.AnonymousIdentityToken{PolicyID: in.token.PolicyID})
	}
	return c.sendAs(ctx, s.token, req, func(v ua.Response) error {
		res, err := asAnswer[*ua.ActivateSessionResponse](req, v)
		if err != nil {
			return err
		}
		s.nonce = res.ServerNonce
		c.token.Store(s.token)
		return nil
	})
}
