// Package uaserver is an OPC UA server for the demo's machines: read-only tags, one user, and subscriptions that keep their
// values while a client is away.
//
// It owns sessions, subscriptions and tags, and borrows encoding, secure channel, browsing and reading from gopcua's server.
// It promises that each change of a tag reaches each subscription of it once and in order, that what was sent can be
// fetched again until it was acknowledged, and that a subscription outlives its session and can be taken over by the
// same user. It offers Basic256Sha256 with SignAndEncrypt only, and it takes every client certificate. It never lets a
// client write.
package uaserver

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/server"
	"github.com/gopcua/opcua/ua"
	"github.com/gopcua/opcua/uasc"
)

// Config of a server.
type Config struct {
	// Dir keeps the certificate (cert.der) and its key (key.der); they are made when they are not there.
	Dir string
	// URI is the application's URI and the namespace of the tags.
	URI            string
	User, Password string
	// Port on the loopback interface; 0 takes a free one.
	Port int
}

// Server is a running server. Its methods may be called from any goroutine.
type Server struct {
	cfg  Config
	key  *rsa.PrivateKey
	cert []byte
	port int
	ua   *server.Server
	ns   *server.NodeNameSpace

	stop func()
	done sync.WaitGroup
	wake chan struct{}

	mu       sync.Mutex
	closed   bool
	tags     map[string]*tag // by node id as text
	sessions map[string]*session
	subs     map[uint32]*subscription
	lastSub  uint32
	lastItem uint32
}

// tag is one variable. last never goes back, so that values can be told apart by their time.
type tag struct {
	node  *ua.NodeID
	value *ua.DataValue
	items map[uint32]*item
	seen  bool // a subscription has had it
}

// Start starts a server without tags. Closing ends it; the end of ctx alone does not.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	s := &Server{cfg: cfg, port: cfg.Port, wake: make(chan struct{}, 1), tags: map[string]*tag{}, sessions: map[string]*session{}, subs: map[uint32]*subscription{}}
	if err := s.loadCertificate(); err != nil {
		return nil, fmt.Errorf("start OPC UA server: %w", err)
	}
	if s.port == 0 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("start OPC UA server: %w", err)
		}
		s.port = l.Addr().(*net.TCPAddr).Port
		l.Close()
	}
	s.ua = server.New(server.EndPoint("127.0.0.1", s.port), server.Certificate(s.cert), server.PrivateKey(s.key), server.ServerName("Linekeeper demo plant"),
		server.EnableSecurity("Basic256Sha256", ua.MessageSecurityModeSignAndEncrypt), server.EnableAuthMode(ua.UserTokenTypeUserName))
	s.ns = server.NewNodeNameSpace(s.ua, cfg.URI)
	if root, err := s.ua.Namespace(0); err == nil {
		root.Objects().AddRef(s.ns.Objects(), server.RefType(id.HasComponent), true)
	}
	s.handle()
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = cancel
	if err := s.ua.Start(ctx); err != nil {
		cancel()
		return nil, fmt.Errorf("start OPC UA server on port %d: %w", s.port, err)
	}
	s.done.Go(func() { s.publish(ctx) })
	return s, nil
}

// handle puts our services in the place of the library's, which forget values and take any password.
func (s *Server) handle() {
	type service = func(*uasc.SecureChannel, ua.Request, uint32) (ua.Response, error)
	unsupported := func(*uasc.SecureChannel, ua.Request, uint32) (ua.Response, error) {
		return nil, ua.StatusBadServiceUnsupported
	}
	for typeID, h := range map[uint16]service{
		id.GetEndpointsRequest_Encoding_DefaultBinary:          serve(s, s.getEndpoints),
		id.CreateSessionRequest_Encoding_DefaultBinary:         serve(s, s.createSession),
		id.ActivateSessionRequest_Encoding_DefaultBinary:       serve(s, s.activateSession),
		id.CloseSessionRequest_Encoding_DefaultBinary:          serve(s, s.closeSession),
		id.CreateSubscriptionRequest_Encoding_DefaultBinary:    serve(s, withSession(s, s.createSubscription)),
		id.DeleteSubscriptionsRequest_Encoding_DefaultBinary:   serve(s, withSession(s, s.deleteSubscriptions)),
		id.TransferSubscriptionsRequest_Encoding_DefaultBinary: serve(s, withSession(s, s.transferSubscriptions)),
		id.SetPublishingModeRequest_Encoding_DefaultBinary:     serve(s, withSession(s, s.setPublishingMode)),
		id.PublishRequest_Encoding_DefaultBinary:               serve(s, withSession(s, s.takePublishRequest)),
		id.RepublishRequest_Encoding_DefaultBinary:             serve(s, withSession(s, s.republish)),
		id.CreateMonitoredItemsRequest_Encoding_DefaultBinary:  serve(s, withSession(s, s.createItems)),
		id.DeleteMonitoredItemsRequest_Encoding_DefaultBinary:  serve(s, withSession(s, s.deleteItems)),
		id.WriteRequest_Encoding_DefaultBinary:                 serve(s, withSession(s, s.refuseWrite)),
		id.ModifySubscriptionRequest_Encoding_DefaultBinary:    unsupported,
		id.ModifyMonitoredItemsRequest_Encoding_DefaultBinary:  unsupported,
		id.SetMonitoringModeRequest_Encoding_DefaultBinary:     unsupported,
		id.SetTriggeringRequest_Encoding_DefaultBinary:         unsupported,
	} {
		s.ua.RegisterHandler(typeID, server.Handler(h))
	}
}

// serve makes a handler of a method that knows its request's type and runs under the lock.
func serve[R ua.Request](s *Server, h func(sc *uasc.SecureChannel, r R, reqID uint32) (ua.Response, error)) func(*uasc.SecureChannel, ua.Request, uint32) (ua.Response, error) {
	return func(sc *uasc.SecureChannel, r ua.Request, reqID uint32) (ua.Response, error) {
		req, ok := r.(R)
		if !ok {
			return nil, ua.StatusBadRequestTypeInvalid
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		return h(sc, req, reqID)
	}
}

// Endpoint is the server's address.
func (s *Server) Endpoint() string { return fmt.Sprintf("opc.tcp://127.0.0.1:%d", s.port) }

// Certificate is the server's certificate in DER.
func (s *Server) Certificate() []byte { return s.cert }

// NodeID is the id of a tag as a client writes it, independent of the namespace's index.
func (s *Server) NodeID(name string) string { return "nsu=" + s.cfg.URI + ";s=" + name }

// AddTag adds a tag with its first value, which decides its type.
func (s *Server) AddTag(name string, value any) {
	node := ua.NewStringNodeID(s.ns.ID(), name)
	t := &tag{node: node, value: dataValue(value, time.Time{}), items: map[uint32]*item{}}
	s.mu.Lock()
	s.tags[node.String()] = t
	s.mu.Unlock()
	n := server.NewVariableNode(node, name, func() *ua.DataValue {
		s.mu.Lock()
		defer s.mu.Unlock()
		return t.value
	})
	s.ns.AddNode(n)
	s.ns.Objects().AddRef(n, server.RefType(id.HasComponent), true)
}

// Set changes a tag and hands the value to every subscription of it, whether its client is there or not.
func (s *Server) Set(name string, value any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tags[ua.NewStringNodeID(s.ns.ID(), name).String()]
	t.value = dataValue(value, t.value.SourceTimestamp)
	for _, i := range t.items {
		i.sub.enqueue(i, t.value)
	}
}

// Watched reports whether a subscription has ever been made for the tag.
func (s *Server) Watched(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tags[ua.NewStringNodeID(s.ns.ID(), name).String()].seen
}

// Unsent counts the values that no client has acknowledged yet.
func (s *Server) Unsent() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, sub := range s.subs {
		n += len(sub.queue)
		for _, m := range sub.sent {
			n += m.values
		}
	}
	return n
}

func dataValue(value any, after time.Time) *ua.DataValue {
	now := time.Now().UTC()
	if !now.After(after) {
		now = after.Add(time.Microsecond)
	}
	return &ua.DataValue{EncodingMask: ua.DataValueValue | ua.DataValueSourceTimestamp | ua.DataValueServerTimestamp,
		Value: ua.MustVariant(value), SourceTimestamp: now, ServerTimestamp: now}
}

// Close ends the server. It waits up to 10 s for clients that are still connected.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.stop()
	s.done.Wait()
	return s.ua.Close()
}

// loadCertificate reads the server's certificate and key, or makes them.
func (s *Server) loadCertificate() error {
	certFile, keyFile := filepath.Join(s.cfg.Dir, "cert.der"), filepath.Join(s.cfg.Dir, "key.der")
	cert, certErr := os.ReadFile(certFile)
	keyDER, keyErr := os.ReadFile(keyFile)
	if certErr == nil && keyErr == nil {
		key, err := x509.ParsePKCS1PrivateKey(keyDER)
		if err != nil {
			return fmt.Errorf("read key %q: %w: delete it and %q to have new ones made", keyFile, err, certFile)
		}
		s.cert, s.key = cert, key
		return nil
	}
	if err := s.makeCertificate(); err != nil {
		return fmt.Errorf("make certificate: %w", err)
	}
	if err := os.MkdirAll(s.cfg.Dir, 0o755); err != nil {
		return err
	}
	return errors.Join(os.WriteFile(keyFile, x509.MarshalPKCS1PrivateKey(s.key), 0o600), os.WriteFile(certFile, s.cert, 0o644))
}

func (s *Server) makeCertificate() (err error) {
	if s.key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		return err
	}
	uri, err := url.Parse(s.cfg.URI)
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "Linekeeper demo plant"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(5, 0, 0),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment | x509.KeyUsageKeyEncipherment | x509.KeyUsageDataEncipherment,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
		URIs: []*url.URL{uri}, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	s.cert, err = x509.CreateCertificate(rand.Reader, template, template, &s.key.PublicKey, s.key)
	return err
}
