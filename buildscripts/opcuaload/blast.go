package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
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

// blaster answers each publish request at once with a message that has a value of each item. The message is encoded once and then
// only patched, so that the server takes little of the processor that the client needs.
type blaster struct {
	mu      sync.Mutex
	handles []uint32
	message []byte // a DataChangeNotification
	count   uint32
	seq     uint32
}

// perValue is the length of one value: handle, mask, type, number, and two times.
const perValue = 4 + 1 + 1 + 4 + 8 + 8

func blast(ctx context.Context, o options) error {
	cert, key, err := certificate(o.dir, "urn:linekeeper:blast")
	if err != nil {
		return err
	}
	s := server.New(server.EndPoint("127.0.0.1", o.port), server.Certificate(cert), server.PrivateKey(key),
		server.EnableSecurity("Basic256Sha256", ua.MessageSecurityModeSignAndEncrypt), server.EnableAuthMode(ua.UserTokenTypeUserName))
	server.NewNodeNameSpace(s, namespace)
	b := &blaster{}
	for typeID, h := range map[uint16]func(ua.Request) (ua.Response, error){
		id.CreateSubscriptionRequest_Encoding_DefaultBinary: func(r ua.Request) (ua.Response, error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.handles, b.message, b.seq = nil, nil, 0
			return &ua.CreateSubscriptionResponse{ResponseHeader: answerTo(r), SubscriptionID: 7, RevisedPublishingInterval: 100,
				RevisedLifetimeCount: 100_000, RevisedMaxKeepAliveCount: 20}, nil
		},
		id.CreateMonitoredItemsRequest_Encoding_DefaultBinary: b.createItems,
		id.PublishRequest_Encoding_DefaultBinary:              b.publish,
		id.RepublishRequest_Encoding_DefaultBinary: func(ua.Request) (ua.Response, error) {
			return nil, ua.StatusBadMessageNotAvailable
		},
	} {
		s.RegisterHandler(typeID, func(_ *uasc.SecureChannel, r ua.Request, _ uint32) (ua.Response, error) { return h(r) })
	}
	if err := s.Start(ctx); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func answerTo(r ua.Request) *ua.ResponseHeader {
	return &ua.ResponseHeader{Timestamp: time.Now(), RequestHandle: r.Header().RequestHandle, ServiceDiagnostics: &ua.DiagnosticInfo{},
		StringTable: []string{}, AdditionalHeader: ua.NewExtensionObject(nil)}
}

func (b *blaster) createItems(r ua.Request) (ua.Response, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	res := &ua.CreateMonitoredItemsResponse{ResponseHeader: answerTo(r)}
	for _, item := range r.(*ua.CreateMonitoredItemsRequest).ItemsToCreate {
		b.handles = append(b.handles, item.RequestedParameters.ClientHandle)
		res.Results = append(res.Results, &ua.MonitoredItemCreateResult{MonitoredItemID: uint32(len(b.handles)),
			RevisedSamplingInterval: item.RequestedParameters.SamplingInterval, RevisedQueueSize: item.RequestedParameters.QueueSize,
			FilterResult: ua.NewExtensionObject(nil)})
	}
	return res, nil
}

// encoded is sent as it is.
type encoded []byte

func (e encoded) Encode() ([]byte, error) { return e, nil }

func (b *blaster) publish(r ua.Request) (ua.Response, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.message) != 8+perValue*len(b.handles) {
		b.build()
	}
	b.count++
	b.seq++
	now := time.Now().UTC()
	ticks := uint64(now.Unix()*1e7 + int64(now.Nanosecond()/100) + 116444736000000000)
	for i := range b.handles {
		at := b.message[4+i*perValue+6:]
		binary.LittleEndian.PutUint32(at, b.count)
		binary.LittleEndian.PutUint64(at[4:], ticks)
		binary.LittleEndian.PutUint64(at[12:], ticks)
	}
	return &ua.PublishResponse{ResponseHeader: answerTo(r), SubscriptionID: 7, AvailableSequenceNumbers: []uint32{b.seq}, MoreNotifications: true,
		NotificationMessage: &ua.NotificationMessage{SequenceNumber: b.seq, PublishTime: now, NotificationData: []*ua.ExtensionObject{{
			TypeID:       ua.NewFourByteExpandedNodeID(0, id.DataChangeNotification_Encoding_DefaultBinary),
			EncodingMask: ua.ExtensionObjectBinary, Value: encoded(append([]byte{}, b.message...))}}},
		Results: make([]ua.StatusCode, len(r.(*ua.PublishRequest).SubscriptionAcknowledgements)), DiagnosticInfos: []*ua.DiagnosticInfo{}}, nil
}

func (b *blaster) build() {
	b.message = binary.LittleEndian.AppendUint32(nil, uint32(len(b.handles)))
	for _, h := range b.handles {
		b.message = binary.LittleEndian.AppendUint32(b.message, h)
		b.message = append(b.message, ua.DataValueValue|ua.DataValueSourceTimestamp|ua.DataValueServerTimestamp, byte(ua.TypeIDUint32))
		b.message = append(b.message, make([]byte, 4+8+8)...)
	}
	b.message = append(b.message, 0, 0, 0, 0)
}

// certificate makes an application certificate and leaves it in dir as cert.der.
func certificate(dir, applicationURI string) (der []byte, key *rsa.PrivateKey, err error) {
	if key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		return nil, nil, err
	}
	uri, err := url.Parse(applicationURI)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "load"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment | x509.KeyUsageKeyEncipherment | x509.KeyUsageDataEncipherment,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true,
		URIs: []*url.URL{uri}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	if der, err = x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key); err != nil {
		return nil, nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "cert.der"), der, 0o644); err != nil {
		return nil, nil, fmt.Errorf("keep the certificate: %w", err)
	}
	return der, key, nil
}
