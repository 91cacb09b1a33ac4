package opcua

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

const (
	// inlineTable is how large a table may be that travels in each cursor. A larger one, of several thousand items, would be most of
	// what is written to the disk: it lies in a file, and the cursor says which.
	inlineTable = 48 << 10
	// keptTables is how many of these files are kept: older cursors, of a restored copy, name older ones.
	keptTables = 8
)

// tableFolder is where a source's tables lie.
func tableFolder(dir string) string { return filepath.Join(dir, "items") }

// keepTable makes a table durable in a file named by its content, and returns that name.
func keepTable(dir string, table []byte) (name []byte, err error) {
	sum := sha256.Sum256(table)
	folder := tableFolder(dir)
	path := filepath.Join(folder, hex.EncodeToString(sum[:])+".table")
	if b, err := os.ReadFile(path); err == nil && sha256.Sum256(b) == sum {
		return sum[:], nil
	}
	if err := os.MkdirAll(folder, 0o750); err != nil {
		return nil, fmt.Errorf("keep the item table: %w", err)
	}
	if err := writeDurably(path, table); err != nil {
		return nil, fmt.Errorf("keep the item table: %w", err)
	}
	sweepTables(folder)
	return sum[:], nil
}

// writeDurably replaces a file so that after a power cut there is the old one or the new one.
func writeDurably(path string, content []byte) error {
	f, err := os.Create(path + ".new")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// sweepTables removes the oldest tables.
func sweepTables(folder string) {
	paths, err := filepath.Glob(filepath.Join(folder, "*.table"))
	if err != nil || len(paths) <= keptTables {
		return
	}
	age := func(path string) int64 {
		info, err := os.Stat(path)
		if err != nil {
			return 0
		}
		return info.ModTime().UnixNano()
	}
	slices.SortFunc(paths, func(a, b string) int { return int(max(-1, min(1, age(b)-age(a)))) })
	for _, path := range paths[keptTables:] {
		os.Remove(path)
	}
}

// findTable reads the table that a cursor names.
func findTable(dir string, name []byte) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(tableFolder(dir), hex.EncodeToString(name)+".table"))
	if err != nil {
		return nil, fmt.Errorf("decode the cursor: its item table: %w", err)
	}
	if sum := sha256.Sum256(b); string(sum[:]) != string(name) {
		return nil, errors.New("decode the cursor: its item table is damaged")
	}
	return b, nil
}
