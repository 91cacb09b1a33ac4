package ingest

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/store"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
	"github.com/linekeeper/linekeeper/proto/sabotage"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// identity reads plant and agent from the certificate that the connection was made with.
func identity(ctx context.Context) (plant, agent string, err error) {
	p, _ := peer.FromContext(ctx)
	if p == nil {
		return "", "", errors.New("connection has no peer")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.VerifiedChains) == 0 {
		return "", "", errors.New("connection brought no verified client certificate")
	}
	return certificateIdentity(info.State.VerifiedChains[0][0])
}

func certificateIdentity(c *x509.Certificate) (plant, agent string, err error) {
	for _, u := range c.URIs {
		if u.Scheme != "linekeeper" {
			continue
		}
		if agent = strings.TrimPrefix(u.Path, "/"); u.Host != "" && agent != "" {
			return u.Host, agent, nil
		}
	}
	return "", "", fmt.Errorf("certificate of %q names no agent: want a URI linekeeper://plant/agent", c.Subject.CommonName)
}

// greet answers the hello. It returns a session that has the identity, a refusal to send, or the stream's error.
func (s *Server) greet(stream grpc.BidiStreamingServer[pb.Up, pb.Down]) (*session, *pb.Refusal, error) {
	up, err := stream.Recv()
	if err != nil {
		return nil, nil, err
	}
	hello := up.GetHello()
	if hello == nil {
		return nil, nil, status.Error(codes.InvalidArgument, "the first message is not a hello")
	}
	if r := s.admit(stream.Context(), hello); r != nil {
		return nil, r, nil
	}
	ss := newSession(s, stream, hello)
	if wait := s.door.admit(ss.name, time.Now()); wait > 0 {
		r := refuse(pb.Refusal_CODE_BUSY, "many agents say hello at once", "it comes back by itself when it is its turn")
		r.RetryAfter = durationpb.New(wait)
		return nil, r, nil
	}
	if err := s.claim(ss); errors.Is(err, errInUse) {
		return nil, refuse(pb.Refusal_CODE_IDENTITY_IN_USE, fmt.Sprintf("agent %q is connected already as another process", ss.name),
			"stop one of the two; a copied machine needs a name and a certificate of its own"), nil
	} else if err != nil {
		return nil, nil, err
	}
	ack, err := ss.compare(hello)
	if err == nil {
		err = stream.Send(&pb.Down{Kind: &pb.Down_HelloAck{HelloAck: ack}})
		if err == nil {
			return ss, nil, nil
		}
		s.leave(ss)
		return nil, nil, err
	}
	s.o.Logger.Error("cannot answer hello", "agent", ss.name, "error", err)
	s.leave(ss)
	return nil, storeRefusal(err), nil
}

func refuse(code pb.Refusal_Code, reason, nextStep string) *pb.Refusal {
	return &pb.Refusal{Code: code, Reason: reason, NextStep: nextStep}
}

func storeRefusal(error) *pb.Refusal {
	return refuse(pb.Refusal_CODE_HUB_STORE, "the hub cannot store now", "it is sent again by itself; the hub's log says why")
}

// admit decides whether the agent may speak at all.
func (s *Server) admit(ctx context.Context, h *pb.Hello) *pb.Refusal {
	plant, agent, err := identity(ctx)
	switch {
	case err != nil:
		return refuse(pb.Refusal_CODE_IDENTITY_MISMATCH, err.Error(), "enrol the agent again")
	case h.GetProtocol() != Protocol:
		return refuse(pb.Refusal_CODE_PROTOCOL_VERSION, fmt.Sprintf("agent speaks version %d of the uplink, hub speaks %d", h.GetProtocol(), Protocol),
			"update the hub first, then the agent")
	case plant != h.GetPlant() || agent != h.GetAgent():
		return refuse(pb.Refusal_CODE_IDENTITY_MISMATCH,
			fmt.Sprintf("certificate is of \"%s/%s\", hello says \"%s/%s\"", plant, agent, h.GetPlant(), h.GetAgent()),
			"correct plant and agent in the agent's configuration, or enrol it again")
	case !s.o.Directory.Known(plant, agent):
		return refuse(pb.Refusal_CODE_UNKNOWN_AGENT, fmt.Sprintf("agent \"%s/%s\" is not configured at the hub", plant, agent),
			"add it to the hub's configuration")
	}
	return nil
}

// compare finds out where both sides stand and makes the answer.
func (ss *session) compare(h *pb.Hello) (*pb.HelloAck, error) {
	ack := &pb.HelloAck{HubVersion: ss.server.o.Version, Window: int32(ss.server.o.Window)}
	err := ss.server.o.Store.Update(ss.ctx, func(tx *store.Tx) error {
		ack.Streams, ack.NewGenerationRequired = nil, false
		a, err := tx.AgentByName(h.GetPlant(), h.GetAgent())
		if err != nil {
			return err
		}
		ss.agentID = a.ID
		if err := tx.Connect(a.ID, h.GetAgentVersion(), h.GetInstance()); err != nil {
			return err
		}
		for _, p := range h.GetStreams() {
			if err := ss.comparePosition(tx, p, ack); err != nil {
				return err
			}
		}
		ack.DeliveryEpoch, err = ss.compareDeliveries(tx, a, h)
		ack.HubTime = timestamppb.New(tx.Now())
		return err
	})
	if err != nil {
		return nil, err
	}
	marks, err := ss.server.o.Store.Marks(ss.ctx, ss.agentID)
	if err != nil {
		return nil, fmt.Errorf("read marks of agent %q: %w", ss.name, err)
	}
	for _, m := range marks {
		ack.Marks = append(ack.Marks, &pb.SourceMark{Source: m.Source, Tag: m.Tag, Epoch: m.Epoch, CounterTo: m.CounterTo})
	}
	return ack, nil
}

func (ss *session) comparePosition(tx *store.Tx, p *pb.StreamPosition, ack *pb.HelloAck) error {
	held, err := tx.Position(ss.agentID, store.Stream(p.GetStream()), p.GetGeneration())
	if err != nil {
		return err
	}
	business := p.GetStream() == pb.Stream_STREAM_BUSINESS
	if business {
		ss.next[p.GetGeneration()] = max(held.Seq, p.GetAckedSeq()) + 1
	}
	if held.Seq == 0 {
		return nil
	}
	ack.Streams = append(ack.Streams, &pb.StreamPosition{
		Stream: p.GetStream(), Generation: p.GetGeneration(), LastSeq: held.Seq, AckedSeq: held.Seq,
	})
	switch {
	case held.Seq > p.GetLastSeq() && !sabotage.Rule(5):
		// Readings count as well: an agent that was restored may have stored new facts enough before it came here.
		ack.NewGenerationRequired = true
		return tx.RaiseAlarm(ss.name, "went_back_in_time",
			fmt.Sprintf("the hub holds record %d, the agent's buffer ends at %d: it was restored from an older copy", held.Seq, p.GetLastSeq()),
			"Nothing is lost and nothing counts twice. Find out who restored the plant computer and when.")
	case business && held.Seq < p.GetAckedSeq():
		return ss.lost(tx, p.GetGeneration(), held.Seq+1, p.GetAckedSeq(), "hub_went_back_in_time",
			fmt.Sprintf("the agent knows that record %d was stored, the hub ends at %d: the hub was restored from an older copy", p.GetAckedSeq(), held.Seq),
			fmt.Sprintf("Facts %d to %d are gone at both ends: compare the tally with the sources and book the difference by hand.", held.Seq+1, p.GetAckedSeq()))
	}
	return nil
}

// lost notes that records are gone at both ends: an alarm tells it, or the discrepancy that it becomes.
func (ss *session) lost(tx *store.Tx, generation string, first, last uint64, code, reason, nextStep string) error {
	_, agent, _ := strings.Cut(ss.name, "/")
	return tx.AddGap(store.Gap{Plant: ss.plant, Agent: agent, AgentID: ss.agentID, Generation: generation, First: first, Last: last, Code: code, Reason: reason}, nextStep, ss.server.o.Judge)
}

// compareDeliveries decides from where to send down. An agent that names our epoch is believed, and has stored what it says, if
// the acknowledgement of it was lost; one that has another or none, or one ahead of what it can have of us (then we
// went back in time, and our numbers mean something else since), gets everything it needs.
func (ss *session) compareDeliveries(tx *store.Tx, a store.Agent, h *pb.Hello) (epoch string, err error) {
	ss.sent, ss.all = h.GetDeliverySeq(), true
	switch {
	case h.GetDeliveryEpoch() != a.DeliveryEpoch:
		ss.sent, ss.all = 0, false
	case h.GetDeliverySeq() > a.DeliveryLast || h.GetDeliverySeq() > ss.server.handed(a.ID):
		ss.sent, ss.all = 0, false
		return tx.NewDeliveryEpoch(a.ID)
	case h.GetDeliverySeq() > a.DeliveryStored:
		err = tx.MarkStored(a.ID, h.GetDeliverySeq())
	}
	return a.DeliveryEpoch, err
}
