package sparkplug

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/drivers/mqttlink"
)

// stateTopic is where a host says whether it is online. All that it says on one connection carries the time of the
// connection, as its will does: nodes believe no will that is older than what was said last.
type stateTopic struct {
	host    *Host
	since   int64
	silent  bool // nothing is said
	session *mqttlink.Session

	mu     sync.Mutex
	known  bool
	online bool
	said   time.Time // when it was last said that the host is online
}

func (h *Host) stateTopic() string { return stateTopicOf(h.StateFormat, h.ID) }

func stateTopicOf(format, id string) string {
	if format == format22 {
		return "STATE/" + id
	}
	return namespace + "/STATE/" + id
}

func (t *stateTopic) about(topic string) bool {
	return !t.silent && topic == t.host.stateTopic()
}

func (t *stateTopic) will() *mqttlink.Publication {
	if t.silent {
		return nil
	}
	p := t.publication(false)
	return &p
}

func (t *stateTopic) publication(online bool) mqttlink.Publication {
	text := []byte("OFFLINE")
	switch {
	case t.host.StateFormat == format30:
		text = fmt.Appendf(nil, `{"online":%t,"timestamp":%d}`, online, t.since)
	case online:
		text = []byte("ONLINE")
	}
	return mqttlink.Publication{Topic: t.host.stateTopic(), Payload: text, QoS: 1, Retain: true}
}

// say tells a change.
func (t *stateTopic) say(ctx context.Context, online bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.silent || t.known && t.online == online {
		return nil
	}
	err := publish(ctx, t.session, t.publication(online))
	var refused *mqttlink.Refused
	if errors.As(err, &refused) {
		t.known, t.online = true, online // to say it again would help nobody
		return err
	}
	if online && err == nil {
		t.said = time.Now()
	}
	// An OFFLINE without an answer was most likely heard: while the window is full answers are not read.
	t.known, t.online = err == nil || !online, online
	return err
}

// saidOnline is when nodes were last told that the host is online; zero when they were not, or were told otherwise since.
func (t *stateTopic) saidOnline() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.online {
		return time.Time{}
	}
	return t.said
}

// saidOffline reports whether nodes were told that the host is offline.
func (t *stateTopic) saidOffline() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.silent && t.known && !t.online
}

// deny makes the next say tell what is so once more; false when there is nothing to tell.
func (t *stateTopic) deny() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.known || !t.online {
		return false
	}
	t.known = false
	return true
}

// readState reads what a host says of itself; timestamp is 0 in the older format.
func readState(format string, b []byte) (online bool, timestamp int64, ok bool) {
	if format == format22 {
		return string(b) == "ONLINE", 0, string(b) == "ONLINE" || string(b) == "OFFLINE"
	}
	var s struct {
		Online    *bool `json:"online"`
		Timestamp int64 `json:"timestamp"`
	}
	if err := json.Unmarshal(b, &s); err != nil || s.Online == nil {
		return false, 0, false
	}
	return *s.Online, s.Timestamp, true
}
