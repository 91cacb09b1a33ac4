package uaserver_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gopcua/opcua"
	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/cmd/demo/plant/uaserver"
)

const uri = "urn:linekeeper:demo:plant"

// folder keeps one server certificate for all tests.
var folder string

func TestMain(m *testing.M) {
	log.SetOutput(io.Discard) // the library writes there
	var err error
	if folder, err = os.MkdirTemp("", "uaserver"); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(folder)
	os.Exit(code)
}

func start(t *testing.T) *uaserver.Server {
	t.Helper()
	s, err := uaserver.Start(t.Context(), uaserver.Config{Dir: folder, URI: uri, User: "agent", Password: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	s.AddTag("press1.Good", uint32(0))
	s.AddTag("press1.Order", "")
	return s
}

// identity is the certificate of all clients, since making one takes long.
var identity = sync.OnceValue(func() []opcua.Option {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	name := &url.URL{Scheme: "urn", Opaque: "test:client"}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "client"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		URIs: []*url.URL{name}, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment | x509.KeyUsageKeyEncipherment | x509.KeyUsageDataEncipherment}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return []opcua.Option{opcua.PrivateKey(key), opcua.Certificate(der), opcua.ApplicationURI(name.String())}
})

func dial(t *testing.T, s *uaserver.Server, user, password string, who []opcua.Option) (*opcua.Client, error) {
	t.Helper()
	endpoints, err := opcua.GetEndpoints(t.Context(), s.Endpoint())
	if err != nil {
		t.Fatal(err)
	}
	e, err := opcua.SelectEndpoint(endpoints, "Basic256Sha256", ua.MessageSecurityModeSignAndEncrypt)
	if err != nil {
		t.Fatal(err)
	}
	if string(e.ServerCertificate) != string(s.Certificate()) {
		t.Error("the endpoint shows another certificate")
	}
	options := append([]opcua.Option{opcua.AutoReconnect(false), opcua.SecurityFromEndpoint(e, ua.UserTokenTypeUserName), opcua.AuthUsername(user, password)}, who...)
	c, err := opcua.NewClient(s.Endpoint(), options...)
	if err != nil {
		t.Fatal(err)
	}
	return c, c.Connect(t.Context())
}

func connect(t *testing.T, s *uaserver.Server, who []opcua.Option) *opcua.Client {
	t.Helper()
	c, err := dial(t, s, "agent", "secret", who)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(context.Background()) })
	return c
}

func send[R ua.Response](t *testing.T, c *opcua.Client, req ua.Request) R {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var answer R
	err := c.Send(ctx, req, func(r ua.Response) error {
		a, ok := r.(R)
		if !ok {
			return fmt.Errorf("answer is a %T", r)
		}
		answer = a
		return nil
	})
	if err != nil {
		t.Fatalf("%T: %v", req, err)
	}
	return answer
}

// subscribe makes a subscription of both tags: client handle 1 is Good, 2 is Order.
func subscribe(t *testing.T, c *opcua.Client, queue uint32) uint32 {
	t.Helper()
	sub := send[*ua.CreateSubscriptionResponse](t, c, &ua.CreateSubscriptionRequest{RequestedPublishingInterval: 20, RequestedMaxKeepAliveCount: 20, RequestedLifetimeCount: 10000,
		MaxNotificationsPerPublish: 7, PublishingEnabled: true})
	var items []*ua.MonitoredItemCreateRequest
	for i, name := range []string{"press1.Good", "press1.Order", "nothing"} {
		items = append(items, &ua.MonitoredItemCreateRequest{MonitoringMode: ua.MonitoringModeReporting,
			ItemToMonitor:       &ua.ReadValueID{NodeID: ua.NewStringNodeID(1, name), AttributeID: ua.AttributeIDValue, DataEncoding: &ua.QualifiedName{}},
			RequestedParameters: &ua.MonitoringParameters{ClientHandle: uint32(i + 1), QueueSize: queue, DiscardOldest: true}})
	}
	made := send[*ua.CreateMonitoredItemsResponse](t, c, &ua.CreateMonitoredItemsRequest{SubscriptionID: sub.SubscriptionID, ItemsToCreate: items})
	if made.Results[0].StatusCode != ua.StatusOK || made.Results[1].StatusCode != ua.StatusOK || made.Results[2].StatusCode != ua.StatusBadNodeIDUnknown {
		t.Fatalf("items: %v %v %v", made.Results[0].StatusCode, made.Results[1].StatusCode, made.Results[2].StatusCode)
	}
	return sub.SubscriptionID
}

// values reads the notifications of a message as "handle=value".
func values(m *ua.NotificationMessage) (all []string) {
	for _, n := range m.NotificationData {
		for _, i := range n.Value.(*ua.DataChangeNotification).MonitoredItems {
			mark := ""
			if uint32(i.Value.Status)&0x480 == 0x480 {
				mark = "!"
			}
			all = append(all, fmt.Sprintf("%d=%v%s", i.ClientHandle, i.Value.Value.Value(), mark))
		}
	}
	return all
}

func publish(t *testing.T, c *opcua.Client, acks ...*ua.SubscriptionAcknowledgement) *ua.PublishResponse {
	t.Helper()
	return send[*ua.PublishResponse](t, c, &ua.PublishRequest{SubscriptionAcknowledgements: acks})
}

func TestEveryChangeArrivesInOrder(t *testing.T) {
	s := start(t)
	c := connect(t, s, identity())
	if s.Watched("press1.Good") {
		t.Error("watched before anybody came")
	}
	id := subscribe(t, c, 1000)
	if !s.Watched("press1.Good") {
		t.Error("not watched")
	}
	want := []string{"1=0", "2="}
	for i := range 30 {
		if i%10 == 0 {
			s.Set("press1.Order", fmt.Sprintf("A%d", i))
			want = append(want, fmt.Sprintf("2=A%d", i))
		}
		s.Set("press1.Good", uint32(i+1))
		want = append(want, fmt.Sprintf("1=%d", i+1))
	}
	var got []string
	var acks []*ua.SubscriptionAcknowledgement
	next := uint32(1)
	for len(got) < len(want) {
		r := publish(t, c, acks...)
		if r.NotificationMessage.SequenceNumber != next {
			t.Fatalf("sequence number %d, want %d", r.NotificationMessage.SequenceNumber, next)
		}
		got = append(got, values(r.NotificationMessage)...)
		acks = nil
		if len(r.NotificationMessage.NotificationData) > 0 {
			acks = append(acks, &ua.SubscriptionAcknowledgement{SubscriptionID: id, SequenceNumber: next})
			next++
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if r := publish(t, c, acks...); len(r.NotificationMessage.NotificationData) != 0 || r.NotificationMessage.SequenceNumber != next || r.Results[0] != ua.StatusOK {
		t.Errorf("want a keep-alive with the next number %d, got %d %v", next, r.NotificationMessage.SequenceNumber, values(r.NotificationMessage))
	}
	if n := s.Unsent(); n != 0 {
		t.Errorf("%d values are said to be unsent", n)
	}
}

func TestKilledClientTakesItsSubscriptionOverAndMissesNothing(t *testing.T) {
	s := start(t)
	who := identity()
	first := connect(t, s, who)
	sub := subscribe(t, first, 1000)
	s.Set("press1.Good", uint32(1))
	lost := publish(t, first) // received, and not acknowledged before the client dies
	first.DetachSession(t.Context())
	first.Close(t.Context())
	for i := range 20 {
		s.Set("press1.Good", uint32(i+2))
	}
	second := connect(t, s, who)
	moved := send[*ua.TransferSubscriptionsResponse](t, second, &ua.TransferSubscriptionsRequest{SubscriptionIDs: []uint32{sub, 4711}})
	if moved.Results[0].StatusCode != ua.StatusOK || !slices.Equal(moved.Results[0].AvailableSequenceNumbers, []uint32{1}) || moved.Results[1].StatusCode != ua.StatusBadSubscriptionIDInvalid {
		t.Fatalf("transfer: %+v %+v", moved.Results[0], moved.Results[1])
	}
	again := send[*ua.RepublishResponse](t, second, &ua.RepublishRequest{SubscriptionID: sub, RetransmitSequenceNumber: 1})
	if got, want := values(again.NotificationMessage), values(lost.NotificationMessage); !slices.Equal(got, want) || len(got) == 0 {
		t.Errorf("republished %v, want %v", got, want)
	}
	err := second.Send(t.Context(), &ua.RepublishRequest{SubscriptionID: sub, RetransmitSequenceNumber: 2}, func(ua.Response) error { return nil })
	if err != ua.StatusBadMessageNotAvailable {
		t.Errorf("republish of a message that was not sent yet: %v", err)
	}
	got := values(again.NotificationMessage)
	for !slices.Contains(got, "1=21") {
		got = append(got, values(publish(t, second).NotificationMessage)...)
	}
	want := []string{"1=0", "2="}
	for i := range 21 {
		want = append(want, fmt.Sprintf("1=%d", i+1))
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestFullQueueDropsItsOldestAndSaysSo(t *testing.T) {
	s := start(t)
	c := connect(t, s, identity())
	subscribe(t, c, 3)
	for i := range 10 {
		s.Set("press1.Good", uint32(i+1))
	}
	if got, want := values(publish(t, c).NotificationMessage), []string{"2=", "1=8!", "1=9", "1=10"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestWrongPasswordAndWritingAreRefused(t *testing.T) {
	s := start(t)
	who := identity()
	for _, password := range []string{"Secret", ""} {
		if _, err := dial(t, s, "agent", password, who); err == nil {
			t.Errorf("password %q let a client in", password)
		}
	}
	c := connect(t, s, who)
	node := ua.NewStringNodeID(1, "press1.Good")
	w := send[*ua.WriteResponse](t, c, &ua.WriteRequest{NodesToWrite: []*ua.WriteValue{{NodeID: node, AttributeID: ua.AttributeIDValue,
		Value: &ua.DataValue{EncodingMask: ua.DataValueValue, Value: ua.MustVariant(uint32(99))}}}})
	if w.Results[0] != ua.StatusBadNotWritable {
		t.Errorf("write: %v", w.Results[0])
	}
	s.Set("press1.Good", uint32(7))
	if v, err := c.Node(node).Value(t.Context()); err != nil || v.Value() != uint32(7) {
		t.Errorf("read %v %v, want 7", v, err)
	}
}

func TestTagsCanBeBrowsedAndTheNamespaceIsNamed(t *testing.T) {
	s := start(t)
	c := connect(t, s, identity())
	names, err := c.NamespaceArray(t.Context())
	if err != nil || len(names) != 2 || names[1] != uri {
		t.Fatalf("namespaces %v %v", names, err)
	}
	refs, err := c.Node(ua.NewNumericNodeID(1, id.ObjectsFolder)).ReferencedNodes(t.Context(), id.HasComponent, ua.BrowseDirectionForward, ua.NodeClassAll, true)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, r := range refs {
		found = append(found, r.ID.String())
	}
	if got := strings.Join(found, " "); got != "ns=1;s=press1.Good ns=1;s=press1.Order" {
		t.Errorf("browsed %q", got)
	}
}

func TestCertificateStaysTheSameOverARestart(t *testing.T) {
	cfg := uaserver.Config{Dir: t.TempDir(), URI: uri, User: "agent", Password: "secret"}
	var certs []string
	for range 2 {
		s, err := uaserver.Start(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		certs = append(certs, string(s.Certificate()))
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if certs[0] != certs[1] {
		t.Error("another certificate after a restart")
	}
}

func TestAbandonedSubscriptionEndsAfterItsLifetime(t *testing.T) {
	s := start(t)
	c := connect(t, s, identity())
	sub := send[*ua.CreateSubscriptionResponse](t, c, &ua.CreateSubscriptionRequest{RequestedPublishingInterval: 20, RequestedMaxKeepAliveCount: 1, RequestedLifetimeCount: 3, PublishingEnabled: true})
	realparts.Eventually(t, 10*time.Second, "subscription ends", func() error {
		err := c.Send(t.Context(), &ua.RepublishRequest{SubscriptionID: sub.SubscriptionID + 1000}, func(ua.Response) error { return nil })
		if err != ua.StatusBadSubscriptionIDInvalid {
			return fmt.Errorf("unknown subscription: %w", err)
		}
		err = c.Send(t.Context(), &ua.SetPublishingModeRequest{SubscriptionIDs: []uint32{sub.SubscriptionID}, PublishingEnabled: true}, func(r ua.Response) error {
			return r.(*ua.SetPublishingModeResponse).Results[0]
		})
		if err != ua.StatusBadSubscriptionIDInvalid {
			return fmt.Errorf("still there: %w", err)
		}
		return nil
	})
}
