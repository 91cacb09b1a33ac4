package uaserver

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	mrand "math/rand/v2"
	"time"

	"github.com/gopcua/opcua/ua"
	"github.com/gopcua/opcua/uapolicy"
	"github.com/gopcua/opcua/uasc"
)

const (
	nonceLength = 32
	maxSession  = time.Hour
	minSession  = 10 * time.Second
	// maxRequests is how many publish requests a session may leave with the server.
	maxRequests = 32
)

// session is a client's log-in. It can move from one secure channel to the next.
type session struct {
	id, token *ua.NodeID
	user      string // empty until it is activated
	cert      []byte // the client's
	nonce     []byte
	timeout   time.Duration
	heard     time.Time
	channel   *uasc.SecureChannel
	requests  []publishRequest
}

// publishRequest waits for something to be published.
type publishRequest struct {
	reqID, handle uint32
	results       []ua.StatusCode
}

func newNonce() []byte {
	n := make([]byte, nonceLength)
	rand.Read(n) // never fails
	return n
}

func header(handle uint32, status ua.StatusCode) *ua.ResponseHeader {
	return &ua.ResponseHeader{Timestamp: time.Now(), RequestHandle: handle, ServiceResult: status,
		ServiceDiagnostics: &ua.DiagnosticInfo{}, StringTable: []string{}, AdditionalHeader: ua.NewExtensionObject(nil)}
}

// withSession finds the active session of a request on this channel.
func withSession[R ua.Request](s *Server, h func(ss *session, r R, reqID uint32) (ua.Response, error)) func(*uasc.SecureChannel, R, uint32) (ua.Response, error) {
	return func(sc *uasc.SecureChannel, r R, reqID uint32) (ua.Response, error) {
		ss := s.sessions[r.Header().AuthenticationToken.String()]
		if ss == nil {
			return nil, ua.StatusBadSessionIDInvalid
		}
		if ss.user == "" {
			return nil, ua.StatusBadSessionNotActivated
		}
		if ss.channel != sc {
			return nil, ua.StatusBadSecureChannelIDInvalid
		}
		ss.heard = time.Now()
		return h(ss, r, reqID)
	}
}

// getEndpoints answers at whatever address the server was reached: the library's own service knows none but its own, and clients come
// through gateways.
func (s *Server) getEndpoints(_ *uasc.SecureChannel, r *ua.GetEndpointsRequest, _ uint32) (ua.Response, error) {
	return &ua.GetEndpointsResponse{ResponseHeader: header(r.RequestHeader.RequestHandle, ua.StatusOK), Endpoints: s.ua.Endpoints()}, nil
}

func (s *Server) createSession(sc *uasc.SecureChannel, r *ua.CreateSessionRequest, _ uint32) (ua.Response, error) {
	signature, algorithm, err := sc.NewSessionSignature(r.ClientCertificate, r.ClientNonce)
	if err != nil {
		return nil, ua.StatusBadCertificateInvalid
	}
	if algorithm == "" {
		return nil, ua.StatusBadSecurityModeRejected // a channel without security is there to ask for endpoints only
	}
	timeout := time.Duration(r.RequestedSessionTimeout) * time.Millisecond
	ss := &session{id: ua.NewNumericNodeID(1, mrand.Uint32()), token: ua.NewByteStringNodeID(0, newNonce()), cert: r.ClientCertificate,
		nonce: newNonce(), timeout: min(max(timeout, minSession), maxSession), heard: time.Now(), channel: sc}
	s.sessions[ss.token.String()] = ss
	return &ua.CreateSessionResponse{
		ResponseHeader: header(r.RequestHeader.RequestHandle, ua.StatusOK), SessionID: ss.id, AuthenticationToken: ss.token,
		RevisedSessionTimeout: float64(ss.timeout / time.Millisecond), ServerSignature: &ua.SignatureData{Signature: signature, Algorithm: algorithm},
		ServerCertificate: s.cert, ServerNonce: ss.nonce, ServerEndpoints: s.ua.Endpoints(),
	}, nil
}

func (s *Server) activateSession(sc *uasc.SecureChannel, r *ua.ActivateSessionRequest, _ uint32) (ua.Response, error) {
	ss := s.sessions[r.RequestHeader.AuthenticationToken.String()]
	if ss == nil {
		return nil, ua.StatusBadSessionIDInvalid
	}
	if r.ClientSignature == nil || sc.VerifySessionSignature(ss.cert, ss.nonce, r.ClientSignature.Signature) != nil {
		return nil, ua.StatusBadApplicationSignatureInvalid
	}
	user, err := s.checkUser(ss, r.UserIdentityToken)
	if err != nil {
		return nil, err
	}
	if ss.channel != sc {
		ss.requests = nil // they came over a channel that the client has given up
	}
	ss.user, ss.channel, ss.nonce, ss.heard = user, sc, newNonce(), time.Now()
	return &ua.ActivateSessionResponse{ResponseHeader: header(r.RequestHeader.RequestHandle, ua.StatusOK), ServerNonce: ss.nonce,
		Results: []ua.StatusCode{}, DiagnosticInfos: []*ua.DiagnosticInfo{}}, nil
}

func (s *Server) checkUser(ss *session, token *ua.ExtensionObject) (string, error) {
	if token == nil {
		return "", ua.StatusBadIdentityTokenInvalid
	}
	t, ok := token.Value.(*ua.UserNameIdentityToken)
	if !ok {
		return "", ua.StatusBadIdentityTokenRejected
	}
	algorithm, err := uapolicy.Asymmetric(ua.SecurityPolicyURIBasic256Sha256, s.key, nil)
	if err != nil {
		return "", ua.StatusBadInternalError
	}
	secret, err := algorithm.Decrypt(t.Password)
	if err != nil || len(secret) < 4 {
		return "", ua.StatusBadIdentityTokenInvalid
	}
	n := int(binary.LittleEndian.Uint32(secret))
	secret = secret[4:]
	if n < nonceLength || n > len(secret) || subtle.ConstantTimeCompare(secret[n-nonceLength:n], ss.nonce) != 1 {
		return "", ua.StatusBadIdentityTokenInvalid
	}
	right := subtle.ConstantTimeCompare([]byte(t.UserName), []byte(s.cfg.User)) & subtle.ConstantTimeCompare(secret[:n-nonceLength], []byte(s.cfg.Password))
	if right != 1 {
		return "", ua.StatusBadUserAccessDenied
	}
	return t.UserName, nil
}

func (s *Server) closeSession(_ *uasc.SecureChannel, r *ua.CloseSessionRequest, _ uint32) (ua.Response, error) {
	ss := s.sessions[r.RequestHeader.AuthenticationToken.String()]
	if ss == nil {
		return nil, ua.StatusBadSessionIDInvalid
	}
	s.endSession(ss, r.DeleteSubscriptions)
	return &ua.CloseSessionResponse{ResponseHeader: header(r.RequestHeader.RequestHandle, ua.StatusOK)}, nil
}

// endSession forgets a session; its subscriptions live on without an owner unless they are to be deleted.
func (s *Server) endSession(ss *session, deleteSubscriptions bool) {
	delete(s.sessions, ss.token.String())
	for _, sub := range s.subs {
		if sub.session != ss {
			continue
		}
		sub.session = nil
		if deleteSubscriptions {
			s.deleteSubscription(sub)
		}
	}
}

func (s *Server) refuseWrite(_ *session, r *ua.WriteRequest, _ uint32) (ua.Response, error) {
	results := make([]ua.StatusCode, len(r.NodesToWrite))
	for i := range results {
		results[i] = ua.StatusBadNotWritable
	}
	return &ua.WriteResponse{ResponseHeader: header(r.RequestHeader.RequestHandle, ua.StatusOK), Results: results, DiagnosticInfos: []*ua.DiagnosticInfo{}}, nil
}
