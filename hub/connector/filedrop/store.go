package filedrop

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector/folder"
)

// maxFile bounds a file that is read, in bytes.
const maxFile = 64 << 20

// entry is a file of a folder.
type entry struct {
	name string
	size int64
	at   time.Time
}

// store is where files are exchanged. Errors wrap fs.ErrNotExist for what is not there; all others leave open what happened.
type store interface {
	// list returns the files of a folder, not its folders.
	list(folder string) ([]entry, error)
	read(path string) ([]byte, error)
	// write makes or replaces a file and brings it down to the disk.
	write(path string, data []byte) error
	// rename gives a file another name, and replaces what has it.
	rename(from, to string) error
	exists(path string) (bool, error)
	join(folder, name string) string
	close() error
}

// disk is the file system of this computer.
type disk struct{}

func (disk) close() error                    { return nil }
func (disk) join(folder, name string) string { return filepath.Join(folder, name) }

func (disk) list(folder string) ([]entry, error) {
	found, err := os.ReadDir(folder)
	if err != nil {
		return nil, fmt.Errorf("read folder %s: %w", folder, err)
	}
	var all []entry
	for _, f := range found {
		info, err := f.Info()
		if errors.Is(err, fs.ErrNotExist) { // it went meanwhile
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read folder %s: %w", folder, err)
		}
		if info.Mode().IsRegular() {
			all = append(all, entry{f.Name(), info.Size(), info.ModTime()})
		}
	}
	return all, nil
}

func (disk) read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return whole(f, path)
}

func whole(from io.Reader, path string) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(from, maxFile+1))
	if err == nil && len(data) > maxFile {
		return nil, &tooLarge{path}
	}
	return data, err
}

// tooLarge is a file that is not read.
type tooLarge struct{ path string }

func (e *tooLarge) Error() string {
	return fmt.Sprintf("file %s is larger than %d MiB: let it be written in parts", e.path, maxFile>>20)
}

func (disk) write(path string, data []byte) error { return folder.Write(path, data) }
func (disk) rename(from, to string) error         { return folder.Rename(from, to) }
func (disk) exists(path string) (bool, error)     { return folder.Exists(path) }
