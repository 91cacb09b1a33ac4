package sparkplug

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// Values that had come when the agent was stopped while its buffer took none are kept in a file of the source, and handed on
// first thing after the next start: nobody but their node has them, and it believes that they arrived.

const maxPending = 64 << 20 // bytes of that file

// nameTypes tells gob what a signal's value can be.
var nameTypes = sync.OnceFunc(func() {
	for _, v := range []any{json.Number(""), time.Time{}, []any{}, map[string]any{}} {
		gob.Register(v)
	}
})

// keepPending writes the file, durably.
func keepPending(path string, list []signal.Signal) error {
	nameTypes()
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(list); err != nil {
		return fmt.Errorf("keep values that wait for the buffer: %w", err)
	}
	if b.Len() > maxPending {
		return fmt.Errorf("keep values that wait for the buffer: they have %d bytes, more than %d", b.Len(), maxPending)
	}
	if err := replaceFile(path, b.Bytes()); err != nil {
		return fmt.Errorf("keep values that wait for the buffer: %w", err)
	}
	return nil
}

// readPending reads the file; nil when there is none.
func readPending(path string) (list []signal.Signal, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		nameTypes()
		err = gob.NewDecoder(bytes.NewReader(b)).Decode(&list)
	}
	if err != nil {
		return nil, fmt.Errorf("read values that waited for the buffer from %q: %w", path, err)
	}
	for i := range list {
		list[i].Value = restored(list[i].Value)
	}
	return list, nil
}

// restored gives empty lists back, which gob reads as none.
func restored(v any) any {
	switch v := v.(type) {
	case []byte:
		if v == nil {
			return []byte{}
		}
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = restored(v[i])
		}
		return out
	case map[string]any:
		for k := range v {
			v[k] = restored(v[k])
		}
	}
	return v
}

// replaceFile writes a file so that after a power cut it is the old one or the new one.
func replaceFile(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
