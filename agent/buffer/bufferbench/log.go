package bufferbench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"runtime"
)

const logSegment = 64 << 20

// log is the plain log: length, checksum and bytes of each record, one write and one sync for a group, a new file each
// 64 MiB. It keeps no index, finds no state again and can not be read while it is written: that is the limit, not a rival.
type log struct {
	dir    string
	f      *os.File
	number int
	size   int
	buf    []byte
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func openLog(dir string, shared bool) (store, error) {
	l := &log{dir: dir}
	if err := l.next(); err != nil {
		return nil, err
	}
	if shared {
		return newSharedLog(l), nil
	}
	return l, nil
}

func (l *log) path(number int) string { return fmt.Sprintf("%s/log-%06d", l.dir, number) }

func checkSum(body []byte, sum uint32) error {
	if crc32.Checksum(body, castagnoli) != sum {
		return errors.New("checksum does not match")
	}
	return nil
}

func (l *log) next() error {
	if l.f != nil {
		if err := l.f.Close(); err != nil {
			return err
		}
	}
	l.number++
	f, err := os.Create(l.path(l.number))
	if err != nil {
		return err
	}
	l.f, l.size = f, 0
	d, err := os.Open(l.dir)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	return d.Sync()
}

func (l *log) add(parts ...[]byte) {
	start := len(l.buf)
	l.buf = append(l.buf, 0, 0, 0, 0, 0, 0, 0, 0)
	for _, p := range parts {
		l.buf = append(l.buf, p...)
	}
	body := l.buf[start+8:]
	binary.LittleEndian.PutUint32(l.buf[start:], uint32(len(body)))
	binary.LittleEndian.PutUint32(l.buf[start+4:], crc32.Checksum(body, castagnoli))
}

func (l *log) addCommit(records [][]byte, cursor []byte, key string, state []byte) {
	for _, r := range records {
		l.add(r)
	}
	l.add([]byte("cursor/mes"), cursor)
	l.add([]byte(key), state)
}

func (l *log) flush() error {
	if l.size > logSegment {
		if err := l.next(); err != nil {
			return err
		}
	}
	n, err := l.f.Write(l.buf)
	l.size, l.buf = l.size+n, l.buf[:0]
	if err != nil {
		return err
	}
	return dataSync(l.f)
}

func (l *log) commit(records [][]byte, cursor []byte, key string, state []byte) error {
	l.addCommit(records, cursor, key, state)
	return l.flush()
}

func (l *log) close() error { return l.f.Close() }

// sharedLog puts a group committer before the log, the way the buffer does it: all that waits goes into one write.
type sharedLog struct {
	log   *log
	calls chan call
	ended chan struct{}
}

type call struct {
	records [][]byte
	cursor  []byte
	key     string
	state   []byte
	done    chan error
}

func newSharedLog(l *log) *sharedLog {
	s := &sharedLog{log: l, calls: make(chan call, 1024), ended: make(chan struct{})}
	go s.run()
	return s
}

func (s *sharedLog) run() {
	defer close(s.ended)
	for first := range s.calls {
		group := []call{first}
		for len(s.calls) > 0 {
			for n := len(s.calls); n > 0; n-- {
				group = append(group, <-s.calls)
			}
			runtime.Gosched() // let those run who are about to call, as the buffer does
		}
		for _, c := range group {
			s.log.addCommit(c.records, c.cursor, c.key, c.state)
		}
		err := s.log.flush()
		for _, c := range group {
			c.done <- err
		}
	}
}

func (s *sharedLog) commit(records [][]byte, cursor []byte, key string, state []byte) error {
	c := call{records, cursor, key, state, make(chan error, 1)}
	s.calls <- c
	return <-c.done
}

func (s *sharedLog) close() error {
	close(s.calls)
	<-s.ended
	return s.log.close()
}
