package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// store is a file system: this computer's, or that of an SFTP server. Errors wrap fs.ErrNotExist and fs.ErrPermission.
type store interface {
	// list names what lies in a folder.
	list(dir string) ([]entry, error)
	stat(path string) (entry, error)
	open(path string) (io.ReadCloser, error)
	// rename replaces what has the new name.
	rename(from, to string) error
	remove(path string) error
	// mkdir makes a folder and those above it.
	mkdir(dir string) error
	// write makes a file with this content, on the disk when it returns.
	write(path string, content []byte) error
	// sync makes the renames in a folder durable, where the file system can.
	sync(dir string) error
	join(parts ...string) string
	// lost reports whether an error means that the connection is gone.
	lost(err error) bool
	close()
}

type entry struct {
	name  string
	size  int64
	mtime time.Time
	dir   bool
}

func (e entry) same(o entry) bool { return e.size == o.size && e.mtime.Equal(o.mtime) }

func entryOf(info fs.FileInfo) entry {
	return entry{name: info.Name(), size: info.Size(), mtime: info.ModTime(), dir: info.IsDir()}
}

// local is this computer's file system.
type local struct{}

func (local) list(dir string) ([]entry, error) {
	all, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	out := make([]entry, 0, len(all))
	for _, d := range all {
		info, err := d.Info()
		if err != nil {
			continue // vanished in between
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			if info, err = os.Stat(filepath.Join(dir, d.Name())); err != nil {
				continue
			}
		}
		if info.IsDir() || info.Mode().IsRegular() {
			e := entryOf(info)
			e.name = d.Name()
			out = append(out, e)
		}
	}
	return out, nil
}

func (local) stat(path string) (entry, error) {
	info, err := os.Stat(path)
	if err != nil {
		return entry{}, err
	}
	return entryOf(info), nil
}

func (local) open(path string) (io.ReadCloser, error) { return os.Open(path) }

// rename copies when the new name lies on another volume: the copy is complete and on the disk before the original goes.
func (l local) rename(from, to string) error {
	err := os.Rename(from, to)
	if err == nil || !crossesVolumes(err) {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	part := to + ".lk.part"
	if err := writeAll(part, in); err != nil {
		os.Remove(part)
		return fmt.Errorf("copy to another volume: %w", err)
	}
	if info, err := in.Stat(); err == nil {
		os.Chtimes(part, time.Time{}, info.ModTime()) // a convenience for the person who looks for the file
	}
	if err := os.Rename(part, to); err != nil {
		os.Remove(part)
		return err
	}
	if err := l.sync(filepath.Dir(to)); err != nil {
		return err
	}
	return os.Remove(from)
}

func writeAll(path string, in io.Reader) (err error) {
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Sync()
}

func (local) remove(path string) error { return os.Remove(path) }

func (local) mkdir(dir string) error { return os.MkdirAll(dir, 0o755) }

func (local) write(path string, content []byte) (err error) {
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if _, err := out.Write(content); err != nil {
		return err
	}
	return out.Sync()
}

func (local) sync(dir string) error { return syncFolder(dir) }

func (local) join(parts ...string) string {
	path := ""
	for _, p := range parts {
		if filepath.IsAbs(p) {
			path = p
		} else {
			path = filepath.Join(path, p)
		}
	}
	return path
}

func (local) lost(error) bool { return false }
func (local) close()          {}

// link holds the one connection to the store, made when it is needed and again when it was lost.
type link struct {
	dial func(ctx context.Context) (store, error)

	mu  sync.Mutex
	now store
}

func (l *link) get(ctx context.Context) (store, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now != nil {
		return l.now, nil
	}
	s, err := l.dial(ctx)
	if err != nil {
		return nil, err
	}
	l.now = s
	return s, nil
}

// drop closes a store that was lost; a newer one stays.
func (l *link) drop(s store) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s != nil && l.now == s {
		s.close()
		l.now = nil
	}
}

func (l *link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now != nil {
		l.now.close()
		l.now = nil
	}
}
