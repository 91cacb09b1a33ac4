package opcua

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
	"github.com/gopcua/opcua/uacp"
	"github.com/gopcua/opcua/uapolicy"
	"github.com/gopcua/opcua/uasc"
)

// errHungUp is a server that closes the connection without a word.
var errHungUp = errors.New("the server closed the connection without a word")

// word is what a server said when it refused a secure channel.
type word struct {
	status ua.StatusCode
	// text is the server's own, cut to what a line can show.
	text string
}

func (w *word) Error() string {
	if w.text == "" || strings.Contains(w.text, statusName(w.status)) && len(w.text) < len(statusName(w.status))+8 {
		return statusName(w.status)
	}
	return statusName(w.status) + ", " + w.text
}

// knock opens a secure channel as a certificate's owner and leaves again: nil says that the server let it in. The library loses
// the reason of a refusal, which is what an engineer needs; so the one message that is refused is sent by hand here. Its error
// is a *word, errHungUp, or one of the network.
func knock(ctx context.Context, address string, e *ua.EndpointDescription, own identity) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	policy, err := policyFor(e, own)
	if err != nil {
		return err
	}
	message, err := openMessage(e, own, policy)
	if err != nil {
		return err
	}
	conn, err := uacp.Dial(ctx, address)
	if err != nil {
		return spoken(err)
	}
	defer conn.Close()
	if end, ok := ctx.Deadline(); ok {
		conn.SetDeadline(end)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := conn.Write(message); err != nil {
		return fmt.Errorf("ask for a secure channel: %w", err)
	}
	answer, err := conn.Receive()
	switch {
	case err != nil:
		return spoken(err)
	case len(answer) < 4 || string(answer[:3]) != "OPN":
		return fmt.Errorf("ask for a secure channel: the answer is %q", answer[:min(3, len(answer))])
	}
	return opened(answer, policy)
}

// opened reads the answer to the first message: some servers put their refusal into it.
func opened(answer []byte, policy *uapolicy.EncryptionAlgorithm) error {
	const front = 12 // kind, size and channel
	var h uasc.AsymmetricSecurityHeader
	if len(answer) < front {
		return errors.New("ask for a secure channel: the answer is cut off")
	}
	n, err := h.Decode(answer[front:])
	if err != nil {
		return fmt.Errorf("ask for a secure channel: decode the answer: %w", err)
	}
	body := answer[front+n:]
	if h.SecurityPolicyURI != ua.SecurityPolicyURINone {
		if body, err = policy.Decrypt(body); err != nil {
			return fmt.Errorf("ask for a secure channel: decrypt the answer: %w", err)
		}
	}
	const sequence = 8
	if len(body) < sequence {
		return errors.New("ask for a secure channel: the answer is cut off")
	}
	w := &wire{b: body[sequence:]}
	w.nodeID(false) // which answer it is does not matter: each begins with the same header
	w.time()
	w.u32()
	result := ua.StatusCode(w.u32())
	if w.err != nil {
		return fmt.Errorf("ask for a secure channel: %w", w.err)
	}
	if result != ua.StatusOK {
		return &word{status: result}
	}
	return nil
}

// spoken finds the server's word in an error.
func spoken(err error) error {
	var said *uacp.Error
	if errors.As(err, &said) {
		return &word{status: ua.StatusCode(said.ErrorCode), text: oneLine(said.Reason)}
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errHungUp
	}
	return err
}

// oneLine is somebody else's text as a line of ours can carry it.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == unicode.ReplacementChar {
			return ' '
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > 200 {
		s = string(r[:200])
	}
	return s
}

// policyFor signs with our key and encrypts for the endpoint's server.
func policyFor(e *ua.EndpointDescription, own identity) (*uapolicy.EncryptionAlgorithm, error) {
	certs, err := x509.ParseCertificates(e.ServerCertificate)
	if err != nil || len(certs) == 0 {
		return nil, fmt.Errorf("read the server's certificate: %w", err)
	}
	key, ok := certs[0].PublicKey.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("the server's certificate has a key of the kind %s", certs[0].PublicKeyAlgorithm)
	}
	policy, err := uapolicy.Asymmetric(e.SecurityPolicyURI, own.key, key)
	if err != nil {
		return nil, fmt.Errorf("prepare security policy %s: %w", shortPolicy(e.SecurityPolicyURI), err)
	}
	return policy, nil
}

// openMessage is the first message of a secure channel.
func openMessage(e *ua.EndpointDescription, own identity, policy *uapolicy.EncryptionAlgorithm) ([]byte, error) {
	nonce, err := policy.MakeNonce()
	if err != nil {
		return nil, err
	}
	m := &uasc.Message{
		MessageHeader: &uasc.MessageHeader{
			Header:                   uasc.NewHeader(uasc.MessageTypeOpenSecureChannel, uasc.ChunkTypeFinal, 0),
			AsymmetricSecurityHeader: uasc.NewAsymmetricSecurityHeader(e.SecurityPolicyURI, own.der, uapolicy.Thumbprint(e.ServerCertificate)),
			SequenceHeader:           uasc.NewSequenceHeader(1, 1),
		},
		TypeID: ua.NewFourByteExpandedNodeID(0, id.OpenSecureChannelRequest_Encoding_DefaultBinary),
		Service: &ua.OpenSecureChannelRequest{
			RequestHeader: &ua.RequestHeader{AuthenticationToken: ua.NewTwoByteNodeID(0), Timestamp: time.Now(),
				AdditionalHeader: ua.NewExtensionObject(nil)},
			RequestType: ua.SecurityTokenRequestTypeIssue, SecurityMode: e.SecurityMode, ClientNonce: nonce, RequestedLifetime: 60_000,
		},
	}
	plain, err := m.Encode()
	if err != nil {
		return nil, fmt.Errorf("encode a request for a secure channel: %w", err)
	}
	return seal(plain, 12+m.AsymmetricSecurityHeader.Len(), policy)
}

// seal pads, signs and encrypts a message behind its open headers, as OPC 10000-6 6.7.2 has it.
func seal(b []byte, open int, policy *uapolicy.EncryptionAlgorithm) ([]byte, error) {
	block, signature := policy.PlaintextBlockSize(), policy.SignatureLength()
	sizes := 1
	if policy.RemoteSignatureLength() > 256 {
		sizes = 2 // the length of the padding needs a second byte with keys of more than 2048 bits
	}
	padding := (block - (len(b)-open+signature+sizes)%block) % block
	for range padding + 1 {
		b = append(b, byte(padding))
	}
	if sizes == 2 {
		b = append(b, byte(padding>>8))
	}
	sealed := (len(b) - open + signature) / block * policy.BlockSize()
	binary.LittleEndian.PutUint32(b[4:], uint32(open+sealed))
	signed, err := policy.Signature(b)
	if err != nil {
		return nil, fmt.Errorf("sign a request for a secure channel: %w", err)
	}
	secret, err := policy.Encrypt(append(b[open:len(b):len(b)], signed...))
	if err != nil {
		return nil, fmt.Errorf("encrypt a request for a secure channel: %w", err)
	}
	return append(b[:open:open], secret...), nil
}
