package faultvfs

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// SQLite knows a VFS as tables of functions and a file as memory that begins with such a table; this file is that side. In
// the memory of a file stands what cFile says, and behind it the file of the system's VFS.

type (
	cVFS    = sqlite3.Tsqlite3_vfs
	methods = sqlite3.Tsqlite3_io_methods
)

type cFile struct {
	methods uintptr
	handle  uintptr // of objects; 0 for a temporary file, which no power cut leaves
}

const realFile = unsafe.Sizeof(cFile{}) // where the system's file begins

// registration is an FS as SQLite knows it.
type registration struct {
	name  string
	cName uintptr
	vfs   uintptr // memory of SQLite's; 0 when it is not registered
	real  uintptr
	id    uintptr
}

// open is one file that is open.
type open struct {
	fs    *FS
	file  *file
	names bool // its first sync makes the names of its folder stable
}

var objects = struct {
	sync.RWMutex
	next uintptr
	all  map[uintptr]any
}{all: map[uintptr]any{}}

func keep(v any) uintptr {
	objects.Lock()
	defer objects.Unlock()
	objects.next++
	objects.all[objects.next] = v
	return objects.next
}

func kept(handle uintptr) any {
	objects.RLock()
	defer objects.RUnlock()
	return objects.all[handle]
}

func forget(handle uintptr) {
	objects.Lock()
	defer objects.Unlock()
	delete(objects.all, handle)
}

// at sees memory of SQLite's as a T.
func at[T any](p uintptr) *T { return *(**T)(unsafe.Pointer(&p)) }

// address is how SQLite refers to a function.
func address[F any](fn F) uintptr { return *(*uintptr)(unsafe.Pointer(&fn)) }

// function is what an address of SQLite's refers to.
func function[F any](p uintptr) F {
	s := struct{ p uintptr }{p}
	return *(*F)(unsafe.Pointer(&s))
}

func realMethods(pFile uintptr) *methods { return at[methods](at[cFile](pFile + realFile).methods) }

func vfsOf(pVfs uintptr) *FS { return kept(at[cVFS](pVfs).FpAppData).(*FS) }

// openOf returns nil for a temporary file.
func openOf(pFile uintptr) *open {
	o, _ := kept(at[cFile](pFile).handle).(*open)
	return o
}

func (f *FS) register() error {
	tls := libc.NewTLS()
	defer tls.Close()
	real := sqlite3.Xsqlite3_vfs_find(tls, 0)
	if real == 0 {
		return errors.New("SQLite has none of its own")
	}
	f.vfs.real, f.vfs.id = real, keep(f)
	f.vfs.name = fmt.Sprintf("fault%d", f.vfs.id)
	name, err := libc.CString(f.vfs.name)
	if err != nil {
		return err
	}
	f.vfs.cName, f.vfs.vfs = name, sqlite3.Xsqlite3_malloc(tls, int32(unsafe.Sizeof(cVFS{})))
	if f.vfs.vfs == 0 {
		return errors.New("SQLite has no memory left")
	}
	vfs := at[cVFS](f.vfs.vfs)
	*vfs = *at[cVFS](real)
	vfs.FpNext, vfs.FzName, vfs.FpAppData = 0, name, f.vfs.id
	vfs.FszOsFile += int32(realFile)
	vfs.FxOpen = address(vfsOpen)
	vfs.FxDelete = address(vfsDelete)
	vfs.FxAccess = address(vfsAccess)
	vfs.FxFullPathname = address(vfsFullPathname)
	if rc := sqlite3.Xsqlite3_vfs_register(tls, f.vfs.vfs, 0); rc != sqlite3.SQLITE_OK {
		return fmt.Errorf("SQLite says %d", rc)
	}
	return nil
}

func (f *FS) unregister() error {
	tls := libc.NewTLS()
	defer tls.Close()
	if f.vfs.vfs == 0 {
		return nil
	}
	rc := sqlite3.Xsqlite3_vfs_unregister(tls, f.vfs.vfs)
	libc.Xfree(tls, f.vfs.cName)
	forget(f.vfs.id)
	sqlite3.Xsqlite3_free(tls, f.vfs.vfs)
	f.vfs.vfs = 0
	if rc != sqlite3.SQLITE_OK {
		return fmt.Errorf("unregister SQLite VFS %q: SQLite says %d", f.vfs.name, rc)
	}
	return nil
}

func vfsOpen(tls *libc.TLS, pVfs, zName, pFile uintptr, flags int32, pOutFlags uintptr) int32 {
	f := vfsOf(pVfs)
	real := at[cVFS](f.vfs.real)
	c := at[cFile](pFile)
	*c = cFile{}
	at[cFile](pFile + realFile).methods = 0
	const tracked = sqlite3.SQLITE_OPEN_MAIN_DB | sqlite3.SQLITE_OPEN_WAL | sqlite3.SQLITE_OPEN_MAIN_JOURNAL
	track := zName != 0 && flags&tracked != 0
	made := false
	path := ""
	if track {
		path = libc.GoString(zName)
		_, err := os.Lstat(path)
		made = err != nil
	}
	type openFunc = func(*libc.TLS, uintptr, uintptr, uintptr, int32, uintptr) int32
	rc := function[openFunc](real.FxOpen)(tls, f.vfs.real, zName, pFile+realFile, flags, pOutFlags)
	if at[cFile](pFile+realFile).methods == 0 {
		return rc
	}
	c.methods = uintptr(unsafe.Pointer(&ioMethods))
	if rc != sqlite3.SQLITE_OK || !track {
		return rc
	}
	file, err := f.opened(path, made)
	if err != nil {
		function[func(*libc.TLS, uintptr) int32](realMethods(pFile).FxClose)(tls, pFile+realFile)
		c.methods = 0
		return sqlite3.SQLITE_CANTOPEN
	}
	c.handle = keep(&open{fs: f, file: file, names: made && flags&sqlite3.SQLITE_OPEN_MAIN_DB == 0})
	return rc
}

func vfsDelete(tls *libc.TLS, pVfs, zName uintptr, syncDir int32) int32 {
	f := vfsOf(pVfs)
	path := libc.GoString(zName)
	if code := f.ask(Delete, path); code != OK {
		return int32(code)
	}
	realSync := syncDir
	if !f.isReal() {
		realSync = 0
	}
	rc := function[func(*libc.TLS, uintptr, uintptr, int32) int32](at[cVFS](f.vfs.real).FxDelete)(tls, f.vfs.real, zName, realSync)
	if rc == sqlite3.SQLITE_OK {
		f.deleted(path, syncDir != 0)
	}
	return rc
}

func vfsAccess(tls *libc.TLS, pVfs, zName uintptr, flags int32, pResOut uintptr) int32 {
	real := vfsOf(pVfs).vfs.real
	return function[func(*libc.TLS, uintptr, uintptr, int32, uintptr) int32](at[cVFS](real).FxAccess)(tls, real, zName, flags, pResOut)
}

func vfsFullPathname(tls *libc.TLS, pVfs, zName uintptr, nOut int32, zOut uintptr) int32 {
	real := vfsOf(pVfs).vfs.real
	return function[func(*libc.TLS, uintptr, uintptr, int32, uintptr) int32](at[cVFS](real).FxFullPathname)(tls, real, zName, nOut, zOut)
}

// ioMethods is the table of every file. Version 2 has shared memory and no memory-mapped reading.
var ioMethods = methods{
	FiVersion:               2,
	FxClose:                 address(fileClose),
	FxRead:                  address(fileRead),
	FxWrite:                 address(fileWrite),
	FxTruncate:              address(fileTruncate),
	FxSync:                  address(fileSync),
	FxFileSize:              address(fileSize),
	FxLock:                  address(fileLock),
	FxUnlock:                address(fileUnlock),
	FxCheckReservedLock:     address(fileCheckReservedLock),
	FxFileControl:           address(fileControl),
	FxSectorSize:            address(fileSectorSize),
	FxDeviceCharacteristics: address(fileDeviceCharacteristics),
	FxShmMap:                address(fileShmMap),
	FxShmLock:               address(fileShmLock),
	FxShmBarrier:            address(fileShmBarrier),
	FxShmUnmap:              address(fileShmUnmap),
}

func fileClose(tls *libc.TLS, pFile uintptr) int32 {
	c := at[cFile](pFile)
	rc := function[func(*libc.TLS, uintptr) int32](realMethods(pFile).FxClose)(tls, pFile+realFile)
	if c.handle != 0 {
		forget(c.handle)
	}
	*c = cFile{}
	return rc
}

func fileRead(tls *libc.TLS, pFile, buf uintptr, n int32, offset int64) int32 {
	if o := openOf(pFile); o != nil {
		if code := o.fs.ask(Read, o.file.path); code != OK {
			return int32(code)
		}
	}
	return function[func(*libc.TLS, uintptr, uintptr, int32, int64) int32](realMethods(pFile).FxRead)(tls, pFile+realFile, buf, n, offset)
}

func fileWrite(tls *libc.TLS, pFile, buf uintptr, n int32, offset int64) int32 {
	real := func() Code {
		write := function[func(*libc.TLS, uintptr, uintptr, int32, int64) int32](realMethods(pFile).FxWrite)
		return Code(write(tls, pFile+realFile, buf, n, offset))
	}
	o := openOf(pFile)
	if o == nil {
		return int32(real())
	}
	if code := o.fs.ask(Write, o.file.path); code != OK {
		return int32(code)
	}
	if !o.fs.mayWrite(o.file, offset+int64(n)) {
		return sqlite3.SQLITE_FULL
	}
	data := slices.Clone(unsafe.Slice(at[byte](buf), n))
	return int32(o.fs.write(o.file, data, offset, real))
}

func fileTruncate(tls *libc.TLS, pFile uintptr, size int64) int32 {
	real := func() Code {
		return Code(function[func(*libc.TLS, uintptr, int64) int32](realMethods(pFile).FxTruncate)(tls, pFile+realFile, size))
	}
	o := openOf(pFile)
	if o == nil {
		return int32(real())
	}
	if code := o.fs.ask(Truncate, o.file.path); code != OK {
		return int32(code)
	}
	return int32(o.fs.truncate(o.file, size, real))
}

func fileSync(tls *libc.TLS, pFile uintptr, flags int32) int32 {
	real := func() int32 {
		return function[func(*libc.TLS, uintptr, int32) int32](realMethods(pFile).FxSync)(tls, pFile+realFile, flags)
	}
	o := openOf(pFile)
	if o == nil {
		return real()
	}
	if code := o.fs.ask(Sync, o.file.path); code != OK {
		o.fs.drop(o.file)
		return int32(code)
	}
	if o.fs.isReal() {
		if rc := real(); rc != sqlite3.SQLITE_OK {
			return rc
		}
	}
	o.fs.synced(o.file, o.names)
	o.names = false
	return sqlite3.SQLITE_OK
}

func fileSize(tls *libc.TLS, pFile, pSize uintptr) int32 {
	return function[func(*libc.TLS, uintptr, uintptr) int32](realMethods(pFile).FxFileSize)(tls, pFile+realFile, pSize)
}

func fileLock(tls *libc.TLS, pFile uintptr, lock int32) int32 {
	return function[func(*libc.TLS, uintptr, int32) int32](realMethods(pFile).FxLock)(tls, pFile+realFile, lock)
}

func fileUnlock(tls *libc.TLS, pFile uintptr, lock int32) int32 {
	return function[func(*libc.TLS, uintptr, int32) int32](realMethods(pFile).FxUnlock)(tls, pFile+realFile, lock)
}

func fileCheckReservedLock(tls *libc.TLS, pFile, pResOut uintptr) int32 {
	return function[func(*libc.TLS, uintptr, uintptr) int32](realMethods(pFile).FxCheckReservedLock)(tls, pFile+realFile, pResOut)
}

func fileControl(tls *libc.TLS, pFile uintptr, op int32, pArg uintptr) int32 {
	return function[func(*libc.TLS, uintptr, int32, uintptr) int32](realMethods(pFile).FxFileControl)(tls, pFile+realFile, op, pArg)
}

func fileSectorSize(tls *libc.TLS, pFile uintptr) int32 {
	return function[func(*libc.TLS, uintptr) int32](realMethods(pFile).FxSectorSize)(tls, pFile+realFile)
}

func fileDeviceCharacteristics(tls *libc.TLS, pFile uintptr) int32 {
	return function[func(*libc.TLS, uintptr) int32](realMethods(pFile).FxDeviceCharacteristics)(tls, pFile+realFile)
}

func fileShmMap(tls *libc.TLS, pFile uintptr, region, size, extend int32, pp uintptr) int32 {
	type mapFunc = func(*libc.TLS, uintptr, int32, int32, int32, uintptr) int32
	return function[mapFunc](realMethods(pFile).FxShmMap)(tls, pFile+realFile, region, size, extend, pp)
}

func fileShmLock(tls *libc.TLS, pFile uintptr, offset, n, flags int32) int32 {
	return function[func(*libc.TLS, uintptr, int32, int32, int32) int32](realMethods(pFile).FxShmLock)(tls, pFile+realFile, offset, n, flags)
}

func fileShmBarrier(tls *libc.TLS, pFile uintptr) {
	function[func(*libc.TLS, uintptr)](realMethods(pFile).FxShmBarrier)(tls, pFile+realFile)
}

func fileShmUnmap(tls *libc.TLS, pFile uintptr, remove int32) int32 {
	return function[func(*libc.TLS, uintptr, int32) int32](realMethods(pFile).FxShmUnmap)(tls, pFile+realFile, remove)
}
