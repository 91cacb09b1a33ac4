package buffer

import "os"

// Disk is what the buffer asks of the disk beside reading and writing, which bbolt does on the files themselves. A test puts
// in one that fails, runs full or forgets; see package faultdisk. Its methods may be called from any goroutine.
type Disk interface {
	// BeforeWrite is asked before pages are written to a file that then ends at about end bytes. An error is taken as that
	// of the write, and nothing is written.
	BeforeWrite(path string, end int64) error
	// Sync makes the content of an open file durable.
	Sync(f *os.File) error
	// SyncDir makes the names in a folder durable: files that were made, renamed or removed.
	SyncDir(dir string) error
	Rename(from, to string) error
	Remove(path string) error
	Truncate(path string, size int64) error
	// Free returns the bytes that this user may still write to the folder's disk.
	Free(dir string) (int64, error)
}

// systemDisk is the disk as the operating system gives it.
type systemDisk struct{}

func (systemDisk) BeforeWrite(string, int64) error        { return nil }
func (systemDisk) Sync(f *os.File) error                  { return syncData(f) }
func (systemDisk) SyncDir(dir string) error               { return syncDir(dir) }
func (systemDisk) Rename(from, to string) error           { return os.Rename(from, to) }
func (systemDisk) Remove(path string) error               { return os.Remove(path) }
func (systemDisk) Truncate(path string, size int64) error { return os.Truncate(path, size) }
func (systemDisk) Free(dir string) (int64, error)         { return freeDisk(dir) }
