package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/gopcua/opcua"
	"github.com/gopcua/opcua/ua"
)

// count subscribes to all tags and counts their values, with as many publish requests under way as the agent has. It prints one
// line of JSON: {"values": ..., "seconds": ...}.
func count(ctx context.Context, o options) error {
	c, err := connect(ctx, o)
	if err != nil {
		return err
	}
	if err := subscribe(ctx, c, o.items); err != nil {
		return err
	}
	var values atomic.Int64
	const requests = 3
	ctx, cancel := context.WithTimeout(ctx, o.length)
	defer cancel()
	acks := make(chan *ua.SubscriptionAcknowledgement, 100)
	failed := make(chan error, requests)
	begin := time.Now()
	for range requests {
		go func() { failed <- publish(ctx, c, acks, &values) }()
	}
	for range requests {
		if e := <-failed; e != nil && ctx.Err() == nil {
			err = e
		}
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"values": values.Load(), "seconds": time.Since(begin).Seconds()})
}

func publish(ctx context.Context, c *opcua.Client, acks chan *ua.SubscriptionAcknowledgement, values *atomic.Int64) error {
	for ctx.Err() == nil {
		req := &ua.PublishRequest{}
		for range len(acks) {
			req.SubscriptionAcknowledgements = append(req.SubscriptionAcknowledgements, <-acks)
		}
		err := c.Send(ctx, req, func(r ua.Response) error {
			res, ok := r.(*ua.PublishResponse)
			if !ok {
				return fmt.Errorf("answer is a %T", r)
			}
			for _, n := range res.NotificationMessage.NotificationData {
				if d, ok := n.Value.(*ua.DataChangeNotification); ok {
					values.Add(int64(len(d.MonitoredItems)))
				}
			}
			select {
			case acks <- &ua.SubscriptionAcknowledgement{SubscriptionID: res.SubscriptionID, SequenceNumber: res.NotificationMessage.SequenceNumber}:
			default:
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func connect(ctx context.Context, o options) (*opcua.Client, error) {
	dir, err := os.MkdirTemp("", "opcuaload")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	cert, key, err := certificate(dir, "urn:linekeeper:counter")
	if err != nil {
		return nil, err
	}
	trusted, err := os.ReadFile(filepath.Join(o.dir, "cert.der"))
	if err != nil {
		return nil, err
	}
	endpoints, err := opcua.GetEndpoints(ctx, o.endpoint)
	if err != nil {
		return nil, err
	}
	e, err := opcua.SelectEndpoint(endpoints, "Basic256Sha256", ua.MessageSecurityModeSignAndEncrypt)
	if err != nil {
		return nil, err
	}
	if string(e.ServerCertificate) != string(trusted) {
		return nil, errors.New("the server has another certificate")
	}
	c, err := opcua.NewClient(o.endpoint, opcua.AutoReconnect(false), opcua.SecurityFromEndpoint(e, ua.UserTokenTypeUserName),
		opcua.AuthUsername(user, password), opcua.PrivateKey(key), opcua.Certificate(cert), opcua.ApplicationURI("urn:linekeeper:counter"),
		opcua.RequestTimeout(time.Minute))
	if err != nil {
		return nil, err
	}
	return c, c.Connect(ctx)
}

func subscribe(ctx context.Context, c *opcua.Client, items int) error {
	var sub uint32
	err := c.Send(ctx, &ua.CreateSubscriptionRequest{RequestedPublishingInterval: 100, RequestedMaxKeepAliveCount: 20,
		RequestedLifetimeCount: 1000, PublishingEnabled: true}, func(r ua.Response) error {
		res, ok := r.(*ua.CreateSubscriptionResponse)
		if !ok {
			return fmt.Errorf("answer is a %T", r)
		}
		sub = res.SubscriptionID
		return nil
	})
	if err != nil {
		return err
	}
	for at := 0; at < items; at += 1000 {
		req := &ua.CreateMonitoredItemsRequest{SubscriptionID: sub, TimestampsToReturn: ua.TimestampsToReturnBoth}
		for i := at; i < min(at+1000, items); i++ {
			req.ItemsToCreate = append(req.ItemsToCreate, &ua.MonitoredItemCreateRequest{MonitoringMode: ua.MonitoringModeReporting,
				ItemToMonitor:       &ua.ReadValueID{NodeID: ua.NewStringNodeID(1, tag(i)), AttributeID: ua.AttributeIDValue, DataEncoding: &ua.QualifiedName{}},
				RequestedParameters: &ua.MonitoringParameters{ClientHandle: uint32(i + 1), QueueSize: 10, DiscardOldest: true}})
		}
		if err := c.Send(ctx, req, func(ua.Response) error { return nil }); err != nil {
			return err
		}
	}
	return nil
}
