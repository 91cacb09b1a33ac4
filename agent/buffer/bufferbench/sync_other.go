//go:build !linux

package bufferbench

import "os"

func dataSync(f *os.File) error { return f.Sync() }
