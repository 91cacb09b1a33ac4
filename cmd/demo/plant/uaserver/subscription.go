package uaserver

import (
	"context"
	"slices"
	"time"

	"github.com/gopcua/opcua/ua"
	"github.com/gopcua/opcua/uasc"
)

const (
	maxQueue    = 100_000 // values that an item keeps
	maxSent     = 100_000 // messages that a subscription keeps for Republish
	minInterval = 20 * time.Millisecond
	// overflow marks a value behind which others were dropped: InfoType DataValue, bit Overflow.
	overflow = ua.StatusCode(0x0480)
)

// subscription collects values for a client.
type subscription struct {
	id                  uint32
	user                string
	session             *session // nil while nobody owns it
	interval            time.Duration
	keepAlive, lifetime uint32 // in intervals
	perMessage          int
	enabled             bool

	items map[uint32]*item
	queue []queued
	// sent are the messages that were not acknowledged.
	sent []message
	seq  uint32 // of the last message

	due      time.Time
	late     bool   // it was due and had no publish request
	silent   uint32 // intervals since the last message
	starving uint32 // intervals without a publish request
}

type item struct {
	id, handle uint32
	sub        *subscription
	tag        *tag
	limit      int
	queued     int
}

type queued struct {
	item  *item
	value *ua.DataValue
}

type message struct {
	notification *ua.NotificationMessage
	values       int
}

// outgoing is an answer that is to be sent when the lock is free again.
type outgoing struct {
	channel *uasc.SecureChannel
	reqID   uint32
	answer  ua.Response
}

// enqueue adds a value; a full queue drops its oldest value and marks the one behind it.
func (sub *subscription) enqueue(i *item, v *ua.DataValue) {
	sub.queue = append(sub.queue, queued{i, v})
	if i.queued++; i.queued <= i.limit {
		return
	}
	i.queued--
	first := slices.IndexFunc(sub.queue, func(q queued) bool { return q.item == i })
	sub.queue = slices.Delete(sub.queue, first, first+1)
	if next := slices.IndexFunc(sub.queue, func(q queued) bool { return q.item == i }); next >= 0 {
		marked := *sub.queue[next].value
		marked.Status |= overflow
		marked.EncodingMask |= ua.DataValueStatusCode
		sub.queue[next].value = &marked
	}
}

func (s *Server) createSubscription(ss *session, r *ua.CreateSubscriptionRequest, _ uint32) (ua.Response, error) {
	s.lastSub++
	keepAlive := max(r.RequestedMaxKeepAliveCount, 1)
	sub := &subscription{
		id: s.lastSub, user: ss.user, session: ss, interval: max(time.Duration(r.RequestedPublishingInterval*float64(time.Millisecond)), minInterval),
		keepAlive: keepAlive, lifetime: max(r.RequestedLifetimeCount, 3*keepAlive), perMessage: int(r.MaxNotificationsPerPublish),
		enabled: r.PublishingEnabled, items: map[uint32]*item{}, silent: keepAlive, // the first answer comes at once
	}
	sub.due = time.Now().Add(sub.interval)
	s.subs[sub.id] = sub
	return &ua.CreateSubscriptionResponse{ResponseHeader: header(r.RequestHeader.RequestHandle, ua.StatusOK), SubscriptionID: sub.id,
		RevisedPublishingInterval: float64(sub.interval) / float64(time.Millisecond), RevisedLifetimeCount: sub.lifetime, RevisedMaxKeepAliveCount: keepAlive}, nil
}

func (s *Server) deleteSubscription(sub *subscription) {
	for _, i := range sub.items {
		delete(i.tag.items, i.id)
	}
	delete(s.subs, sub.id)
}

// owned finds a subscription of the session.
func (s *Server) owned(ss *session, id uint32) (*subscription, ua.StatusCode) {
	sub := s.subs[id]
	if sub == nil || sub.session != ss {
		return nil, ua.StatusBadSubscriptionIDInvalid
	}
	return sub, ua.StatusOK
}

func (s *Server) deleteSubscriptions(ss *session, r *ua.DeleteSubscriptionsRequest, _ uint32) (ua.Response, error) {
	results := make([]ua.StatusCode, len(r.SubscriptionIDs))
	for i, id := range r.SubscriptionIDs {
		sub, status := s.owned(ss, id)
		if results[i] = status; sub != nil {
			s.deleteSubscription(sub)
		}
	}
	return &ua.DeleteSubscriptionsResponse{ResponseHeader: header(r.RequestHeader.RequestHandle, ua.StatusOK), Results: results, DiagnosticInfos: []*ua.DiagnosticInfo{}}, nil
}

func (s *Server) setPublishingMode(ss *session, r *ua.SetPublishingModeRequest, _ uint32) (ua.Response, error) {
	results := make([]ua.StatusCode, len(r.SubscriptionIDs))
	for i, id := range r.SubscriptionIDs {
		sub, status := s.owned(ss, id)
		if results[i] = status; sub != nil {
			sub.enabled = r.PublishingEnabled
		}
	}
	return &ua.SetPublishingModeResponse{ResponseHeader: header(r.RequestHeader.RequestHandle, ua.StatusOK), Results: results, DiagnosticInfos: []*ua.DiagnosticInfo{}}, nil
}

// transferSubscriptions gives subscriptions of the same user to this session.
func (s *Server) transferSubscriptions(ss *session, r *ua.TransferSubscriptionsRequest, _ uint32) (ua.Response, error) {
	results := make([]*ua.TransferResult, len(r.SubscriptionIDs))
	for i, id := range r.SubscriptionIDs {
		sub := s.subs[id]
		switch {
		case sub == nil:
			results[i] = &ua.TransferResult{StatusCode: ua.StatusBadSubscriptionIDInvalid, AvailableSequenceNumbers: []uint32{}}
			continue
		case sub.user != ss.user:
			results[i] = &ua.TransferResult{StatusCode: ua.StatusBadUserAccessDenied, AvailableSequenceNumbers: []uint32{}}
			continue
		}
		sub.session, sub.starving = ss, 0
		if r.SendInitialValues {
			for _, it := range sub.items {
				sub.enqueue(it, it.tag.value)
			}
		}
		results[i] = &ua.TransferResult{AvailableSequenceNumbers: sub.available()}
	}
	return &ua.TransferSubscriptionsResponse{ResponseHeader: header(r.RequestHeader.RequestHandle, ua.StatusOK), Results: results, DiagnosticInfos: []*ua.DiagnosticInfo{}}, nil
}

func (sub *subscription) available() []uint32 {
	numbers := make([]uint32, len(sub.sent))
	for i, m := range sub.sent {
		numbers[i] = m.notification.SequenceNumber
	}
	return numbers
}

func (sub *subscription) find(seq uint32) int {
	return slices.IndexFunc(sub.sent, func(m message) bool { return m.notification.SequenceNumber == seq })
}

func (s *Server) republish(ss *session, r *ua.RepublishRequest, _ uint32) (ua.Response, error) {
	sub, status := s.owned(ss, r.SubscriptionID)
	if sub == nil {
		return nil, status
	}
	sub.starving = 0
	i := sub.find(r.RetransmitSequenceNumber)
	if i < 0 {
		return nil, ua.StatusBadMessageNotAvailable
	}
	return &ua.RepublishResponse{ResponseHeader: header(r.RequestHeader.RequestHandle, ua.StatusOK), NotificationMessage: sub.sent[i].notification}, nil
}

func (s *Server) createItems(ss *session, r *ua.CreateMonitoredItemsRequest, _ uint32) (ua.Response, error) {
	sub, status := s.owned(ss, r.SubscriptionID)
	if sub == nil {
		return nil, status
	}
	results := make([]*ua.MonitoredItemCreateResult, len(r.ItemsToCreate))
	for i, req := range r.ItemsToCreate {
		results[i] = s.createItem(sub, req)
	}
	return &ua.CreateMonitoredItemsResponse{ResponseHeader: header(r.RequestHeader.RequestHandle, ua.StatusOK), Results: results, DiagnosticInfos: []*ua.DiagnosticInfo{}}, nil
}

func (s *Server) createItem(sub *subscription, r *ua.MonitoredItemCreateRequest) *ua.MonitoredItemCreateResult {
	refused := func(status ua.StatusCode) *ua.MonitoredItemCreateResult {
		return &ua.MonitoredItemCreateResult{StatusCode: status, FilterResult: ua.NewExtensionObject(nil)}
	}
	t := s.tags[r.ItemToMonitor.NodeID.String()]
	if t == nil {
		return refused(ua.StatusBadNodeIDUnknown)
	}
	if r.ItemToMonitor.AttributeID != ua.AttributeIDValue {
		return refused(ua.StatusBadAttributeIDInvalid)
	}
	if f := r.RequestedParameters.Filter; f != nil && f.Value != nil {
		if d, ok := f.Value.(*ua.DataChangeFilter); !ok || d.DeadbandType != 0 {
			return refused(ua.StatusBadMonitoredItemFilterUnsupported)
		}
	}
	s.lastItem++
	i := &item{id: s.lastItem, handle: r.RequestedParameters.ClientHandle, sub: sub, tag: t, limit: int(min(max(r.RequestedParameters.QueueSize, 1), maxQueue))}
	sub.items[i.id], t.items[i.id], t.seen = i, i, true
	sub.enqueue(i, t.value)
	return &ua.MonitoredItemCreateResult{MonitoredItemID: i.id, RevisedSamplingInterval: 0, RevisedQueueSize: uint32(i.limit), FilterResult: ua.NewExtensionObject(nil)}
}

func (s *Server) deleteItems(ss *session, r *ua.DeleteMonitoredItemsRequest, _ uint32) (ua.Response, error) {
	sub, status := s.owned(ss, r.SubscriptionID)
	if sub == nil {
		return nil, status
	}
	results := make([]ua.StatusCode, len(r.MonitoredItemIDs))
	for n, id := range r.MonitoredItemIDs {
		i := sub.items[id]
		if i == nil {
			results[n] = ua.StatusBadMonitoredItemIDInvalid
			continue
		}
		delete(sub.items, id)
		delete(i.tag.items, id)
		sub.queue = slices.DeleteFunc(sub.queue, func(q queued) bool { return q.item == i })
	}
	return &ua.DeleteMonitoredItemsResponse{ResponseHeader: header(r.RequestHeader.RequestHandle, ua.StatusOK), Results: results, DiagnosticInfos: []*ua.DiagnosticInfo{}}, nil
}

// takePublishRequest keeps a publish request until there is something to publish.
func (s *Server) takePublishRequest(ss *session, r *ua.PublishRequest, reqID uint32) (ua.Response, error) {
	if len(ss.requests) >= maxRequests {
		return nil, ua.StatusBadTooManyPublishRequests
	}
	p := publishRequest{reqID: reqID, handle: r.RequestHeader.RequestHandle, results: []ua.StatusCode{}}
	for _, ack := range r.SubscriptionAcknowledgements {
		p.results = append(p.results, s.acknowledge(ss, ack))
	}
	has := false
	for _, sub := range s.subs {
		if sub.session == ss {
			has = true
			sub.starving = 0
		}
	}
	if !has {
		return nil, ua.StatusBadNoSubscription
	}
	ss.requests = append(ss.requests, p)
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return nil, nil
}

func (s *Server) acknowledge(ss *session, ack *ua.SubscriptionAcknowledgement) ua.StatusCode {
	sub, status := s.owned(ss, ack.SubscriptionID)
	if sub == nil {
		return status
	}
	i := sub.find(ack.SequenceNumber)
	if i < 0 {
		return ua.StatusBadSequenceNumberUnknown
	}
	sub.sent = slices.Delete(sub.sent, i, i+1)
	return ua.StatusOK
}

// publish answers publish requests when subscriptions are due, until ctx ends.
func (s *Server) publish(ctx context.Context) {
	tick := time.NewTicker(minInterval / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-tick.C:
		}
		for _, o := range s.collect(time.Now()) {
			// A channel that is gone loses the message; the client fetches it with Republish.
			_ = o.channel.SendResponseWithContext(ctx, o.reqID, o.answer)
		}
	}
}

// collect makes the answers that are due now.
func (s *Server) collect(now time.Time) (all []outgoing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ss := range s.sessions {
		if now.Sub(ss.heard) > ss.timeout {
			s.endSession(ss, false)
		}
	}
	for _, sub := range s.subs {
		if due := !now.Before(sub.due); due {
			sub.due = now.Add(sub.interval)
			sub.silent++
		} else if !sub.late || sub.session == nil || len(sub.session.requests) == 0 {
			continue
		}
		all = append(all, sub.answers()...)
		if sub.starving > sub.lifetime {
			s.deleteSubscription(sub)
		}
	}
	return all
}

// answers takes publish requests for what the subscription has to say.
func (sub *subscription) answers() (all []outgoing) {
	data := sub.enabled && len(sub.queue) > 0
	for data || sub.silent >= sub.keepAlive {
		ss := sub.session
		if ss == nil || len(ss.requests) == 0 {
			sub.late = true
			sub.starving++
			return all
		}
		p := ss.requests[0]
		ss.requests = ss.requests[1:]
		sub.late, sub.silent, sub.starving = false, 0, 0
		m := &ua.NotificationMessage{SequenceNumber: following(sub.seq), PublishTime: time.Now(), NotificationData: []*ua.ExtensionObject{}}
		if data {
			sub.fill(m)
		}
		data = sub.enabled && len(sub.queue) > 0
		all = append(all, outgoing{ss.channel, p.reqID, &ua.PublishResponse{
			ResponseHeader: header(p.handle, ua.StatusOK), SubscriptionID: sub.id, AvailableSequenceNumbers: sub.available(),
			MoreNotifications: data, NotificationMessage: m, Results: p.results, DiagnosticInfos: []*ua.DiagnosticInfo{},
		}})
	}
	sub.late = false
	if sub.session == nil || len(sub.session.requests) == 0 {
		sub.starving++
	}
	return all
}

// fill moves values from the queue into a message and keeps the message for Republish.
func (sub *subscription) fill(m *ua.NotificationMessage) {
	n := len(sub.queue)
	if sub.perMessage > 0 {
		n = min(n, sub.perMessage)
	}
	data := &ua.DataChangeNotification{DiagnosticInfos: []*ua.DiagnosticInfo{}}
	for _, q := range sub.queue[:n] {
		q.item.queued--
		data.MonitoredItems = append(data.MonitoredItems, &ua.MonitoredItemNotification{ClientHandle: q.item.handle, Value: q.value})
	}
	sub.queue = slices.Delete(sub.queue, 0, n)
	e := ua.NewExtensionObject(data)
	e.UpdateMask()
	m.NotificationData = append(m.NotificationData, e)
	sub.seq = m.SequenceNumber
	sub.sent = append(sub.sent, message{m, n})
	if len(sub.sent) > maxSent {
		sub.sent = slices.Delete(sub.sent, 0, 1)
	}
}

// following is the number after seq: 0 is left out.
func following(seq uint32) uint32 {
	if seq++; seq == 0 {
		return 1
	}
	return seq
}
