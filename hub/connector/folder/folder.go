// Package folder writes and renames files so that a power cut takes neither them nor their names back.
//
// It is for connectors to which the place of a file says what was done: handed over, copied, answered. It promises that what it
// returned from is on the disk, as far as the system can say so. It never deletes, and knows nothing of what the files hold.
package folder

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Write makes or replaces a file and brings it and its name down to the disk: else the name of a later file could be known after
// a power cut, and this one's not.
func Write(path string, data []byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return sync(filepath.Dir(path))
}

// Rename gives a file another name, and replaces what has it. After an error it may have either.
func Rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	folders := []string{filepath.Dir(to)}
	if old := filepath.Dir(from); old != folders[0] {
		folders = append(folders, old)
	}
	for _, folder := range folders {
		if err := sync(folder); err != nil {
			return err
		}
	}
	return nil
}

// Exists reports whether something has the name, a link that leads nowhere as well.
func Exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// sync brings a folder's names down to the disk, where the system has a word for it.
func sync(folder string) error {
	dir, err := os.Open(folder)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && filepath.Separator == '/' {
		return err
	}
	return nil
}
