package opcua

import (
	"context"
	"fmt"
	"time"

	"github.com/gopcua/opcua/ua"
)

// link is one secure channel with an active session.
type link struct {
	client *client
	// resumed is true when the session is the one from before.
	resumed bool
}

// close ends the channel and leaves the session to be taken over by the next one.
func (l *link) close(ctx context.Context) {
	l.client.Close(ctx)
}

// leave ends the session; its subscription lives on for the next start.
func (l *link) leave(ctx context.Context) {
	_, err := call[*ua.CloseSessionResponse](ctx, l.client, time.Second, &ua.CloseSessionRequest{DeleteSubscriptions: false})
	_ = err // the server's timeout ends a session that could not be closed
	l.close(ctx)
}

// call sends a request and waits for its answer for at most d. Answers with values come as *late too, undecoded.
func call[T ua.Response](ctx context.Context, c *client, d time.Duration, req ua.Request) (T, error) {
	if d > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d)
		defer cancel()
	}
	var answer T
	err := c.Send(ctx, req, func(v ua.Response) (err error) {
		answer, err = asAnswer[T](req, v)
		return err
	})
	return answer, err
}

// asAnswer is an answer as the type that belongs to its request.
func asAnswer[T ua.Response](req ua.Request, v ua.Response) (answer T, err error) {
	if a, ok := v.(T); ok {
		return a, nil
	}
	a, ok := v.(*late)
	if !ok {
		return answer, fmt.Errorf("decode the answer to %T: it is a %T", req, v)
	}
	return typed[T](a)
}

func (l *link) publish(ctx context.Context, acks []*ua.SubscriptionAcknowledgement) (*publishAnswer, error) {
	res, err := call[*late](ctx, l.client, 0, &ua.PublishRequest{SubscriptionAcknowledgements: acks})
	if err != nil {
		return nil, err
	}
	return decodePublish(res.body)
}

func (l *link) republish(ctx context.Context, subscription, seq uint32) (*message, error) {
	res, err := call[*late](ctx, l.client, callTimeout,
		&ua.RepublishRequest{SubscriptionID: subscription, RetransmitSequenceNumber: seq})
	if err != nil {
		return nil, err
	}
	return decodeRepublish(res.body)
}

// touch is a call that names the subscription: it starts the server's lifetime counters anew.
func (l *link) touch(ctx context.Context, subscription uint32) error {
	res, err := call[*ua.SetPublishingModeResponse](ctx, l.client, callTimeout,
		&ua.SetPublishingModeRequest{PublishingEnabled: true, SubscriptionIDs: []uint32{subscription}})
	if err != nil {
		return err
	}
	if len(res.Results) == 1 && res.Results[0] != ua.StatusOK {
		return res.Results[0]
	}
	return nil
}

func (l *link) createItems(ctx context.Context, subscription uint32, items []*ua.MonitoredItemCreateRequest) ([]*ua.MonitoredItemCreateResult, error) {
	res, err := call[*ua.CreateMonitoredItemsResponse](ctx, l.client, callTimeout, &ua.CreateMonitoredItemsRequest{
		SubscriptionID: subscription, TimestampsToReturn: ua.TimestampsToReturnBoth, ItemsToCreate: items})
	if err != nil {
		return nil, err
	}
	if len(res.Results) != len(items) {
		return nil, fmt.Errorf("create monitored items: %d answers to %d items", len(res.Results), len(items))
	}
	return res.Results, nil
}

func (l *link) deleteItems(ctx context.Context, subscription uint32, ids []uint32) error {
	_, err := call[*ua.DeleteMonitoredItemsResponse](ctx, l.client, callTimeout,
		&ua.DeleteMonitoredItemsRequest{SubscriptionID: subscription, MonitoredItemIDs: ids})
	return err
}

func (l *link) createSubscription(ctx context.Context, req *ua.CreateSubscriptionRequest) (*ua.CreateSubscriptionResponse, error) {
	return call[*ua.CreateSubscriptionResponse](ctx, l.client, callTimeout, req)
}

func (l *link) transfer(ctx context.Context, subscription uint32) ([]uint32, error) {
	res, err := call[*ua.TransferSubscriptionsResponse](ctx, l.client, callTimeout,
		&ua.TransferSubscriptionsRequest{SubscriptionIDs: []uint32{subscription}})
	if err != nil {
		return nil, err
	}
	if len(res.Results) != 1 {
		return nil, fmt.Errorf("transfer the subscription: %d answers", len(res.Results))
	}
	if code := res.Results[0].StatusCode; code != ua.StatusOK && code != ua.StatusBadNothingToDo {
		return nil, code
	}
	return res.Results[0].AvailableSequenceNumbers, nil
}

// read reads attributes, at most size in one call, and in smaller ones where the server finds that too many. Each node has its
// own status in the answer; only a fault of the connection is an error.
func (l *link) read(ctx context.Context, nodes []*ua.ReadValueID, size int) ([]*ua.DataValue, error) {
	values := make([]*ua.DataValue, 0, len(nodes))
	if size < 1 {
		size = max(1, len(nodes))
	}
	for len(values) < len(nodes) {
		n := min(size, len(nodes)-len(values))
		res, err := call[*ua.ReadResponse](ctx, l.client, callTimeout, &ua.ReadRequest{
			TimestampsToReturn: ua.TimestampsToReturnBoth, NodesToRead: nodes[len(values) : len(values)+n]})
		if tooMuch(err) && n > 1 {
			size = max(1, n/2)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read %d attributes: %w", n, err)
		}
		if len(res.Results) != n {
			return nil, fmt.Errorf("read %d attributes: %d answers", n, len(res.Results))
		}
		values = append(values, res.Results...)
	}
	return values, nil
}

// write writes attributes, all in one call, and returns the status of each.
func (l *link) write(ctx context.Context, nodes []*ua.WriteValue) ([]ua.StatusCode, error) {
	res, err := call[*ua.WriteResponse](ctx, l.client, callTimeout, &ua.WriteRequest{NodesToWrite: nodes})
	if err != nil {
		return nil, fmt.Errorf("write %d nodes: %w", len(nodes), err)
	}
	if len(res.Results) != len(nodes) {
		return nil, fmt.Errorf("write %d nodes: %d answers", len(nodes), len(res.Results))
	}
	return res.Results, nil
}

// method calls one method. An error leaves open whether the method ran; a status in the answer is the server's word.
func (l *link) method(ctx context.Context, object, method *ua.NodeID, arguments []*ua.Variant) (*ua.CallMethodResult, error) {
	res, err := call[*ua.CallResponse](ctx, l.client, callTimeout, &ua.CallRequest{MethodsToCall: []*ua.CallMethodRequest{
		{ObjectID: object, MethodID: method, InputArguments: arguments}}})
	if err != nil {
		return nil, fmt.Errorf("call method %s of %s: %w", method, object, err)
	}
	if len(res.Results) != 1 {
		return nil, fmt.Errorf("call method %s of %s: %d answers", method, object, len(res.Results))
	}
	return res.Results[0], nil
}
