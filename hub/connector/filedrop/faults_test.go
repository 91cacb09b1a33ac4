package filedrop

import (
	"errors"
	"math/rand"
	"sync"

	"github.com/linekeeper/linekeeper/hub/connector/connectortest"
)

// errLine is what a line says that broke.
var errLine = errors.New("the connection to the server is gone")

// shaky stands between a connector and its store and makes exchanges go wrong. It implements connectortest.Faults. What has no
// meaning for files (a web page, a status) is an exchange whose answer or whose request is lost.
type shaky struct {
	mu       sync.Mutex
	armed    connectortest.Fault
	nth      int
	fired    bool
	delayed  []func()
	lossy    *rand.Rand
	replies  float64
	requests float64
}

func (s *shaky) Arm(f connectortest.Fault, nth int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.armed, s.nth, s.fired = f, nth, false
}

func (s *shaky) Fired() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.armed = ""
	return s.fired
}

func (s *shaky) Deliver() {
	s.mu.Lock()
	all := s.delayed
	s.delayed = nil
	s.mu.Unlock()
	for _, do := range all {
		do()
	}
}

func (s *shaky) Lossy(seed int64, replies, requests float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lossy, s.replies, s.requests = rand.New(rand.NewSource(seed)), replies, requests
}

func (s *shaky) next() connectortest.Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.armed != "" {
		if s.nth--; s.nth == 0 {
			f := s.armed
			s.armed, s.fired = "", true
			return f
		}
	}
	if s.lossy != nil {
		switch x := s.lossy.Float64(); {
		case x < s.replies:
			return connectortest.LoseReply
		case x < s.replies+s.requests:
			return connectortest.LoseRequest
		}
	}
	return ""
}

// exchange makes one, or what is left of it; half is what a broken line leaves of it.
func (s *shaky) exchange(do func() error, half func()) error {
	switch s.next() {
	case "":
		return do()
	case connectortest.HalfReply:
		half()
		return errLine
	case connectortest.LoseReply, connectortest.WebPageAfter, connectortest.EmptyReply:
		do()
		return errLine
	case connectortest.DelayRequest:
		s.mu.Lock()
		defer s.mu.Unlock()
		s.delayed = append(s.delayed, func() { do() })
		return errLine
	case connectortest.SendTwice:
		do()
		return do()
	}
	return errLine
}

// behind is a store whose exchanges pass through shaky.
type behind struct {
	*shaky
	store
}

func (b behind) list(folder string) (all []entry, err error) {
	err = b.exchange(func() error { all, err = b.store.list(folder); return err }, func() {})
	return all, err
}

func (b behind) read(path string) (data []byte, err error) {
	err = b.exchange(func() error { data, err = b.store.read(path); return err }, func() {})
	return data, err
}

func (b behind) write(path string, data []byte) error {
	return b.exchange(func() error { return b.store.write(path, data) }, func() { b.store.write(path, data[:len(data)/2]) })
}

func (b behind) rename(from, to string) error {
	do := func() error { return b.store.rename(from, to) }
	return b.exchange(do, func() { do() })
}

func (b behind) exists(path string) (is bool, err error) {
	err = b.exchange(func() error { is, err = b.store.exists(path); return err }, func() {})
	return is, err
}
