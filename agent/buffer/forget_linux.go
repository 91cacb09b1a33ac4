package buffer

import "golang.org/x/sys/unix"

// letGo tells the system that a mapped part of a file need not stay in this process's memory. The file and the system's cache of
// it are untouched; what is read again is mapped again. It is a hint only.
func letGo(data uintptr, size int64) {
	_, _, _ = unix.Syscall(unix.SYS_MADVISE, data, uintptr(size), unix.MADV_DONTNEED)
}
