package files

import (
	"fmt"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/agent/signal/drivertest"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

// sender lays files into a folder for the suite.
type sender struct {
	t      testing.TB
	dir    string
	server *realparts.SFTPServer // nil: the folder is read directly
	keep   bool
	next   int
	files  int
}

func (s *sender) Section() string {
	section := fmt.Sprintf("feeds:\n  - tag: rows\n    folder: %q\n    format: csv\n    scan: 20ms\n    settle: 30ms\n    batch: 100\n    keep: %v\n", s.dir, s.keep)
	if s.server != nil {
		section = sftpSection(s.server) + section
	}
	return section
}

func sftpSection(s *realparts.SFTPServer) string {
	return fmt.Sprintf("sftp:\n  address: 127.0.0.1:%d\n  user: %s\n  key_file: %q\n  host_key: [%q]\n", s.Port, s.User, s.KeyFile, s.Fingerprint)
}

func (s *sender) Produce(n int) {
	s.files++
	putFile(s.t, s.dir, fmt.Sprintf("rows-%06d.csv", s.files), rows(s.next+1, s.next+n))
	s.next += n
}

func (s *sender) Spoil() {
	s.files++
	putFile(s.t, s.dir, fmt.Sprintf("rows-%06d.csv", s.files), "n,text\nonly one field\n")
}

func (s *sender) Number(g signal.Signal) (int, bool) {
	m, ok := g.Value.(map[string]any)
	if !ok {
		return 0, false
	}
	text, _ := m["n"].(string)
	n, err := strconv.Atoi(text)
	return n, err == nil
}

func (s *sender) Restart() {
	if s.server == nil {
		return // a folder has no server
	}
	s.server.Kill(syscall.SIGTERM)
	if err := s.server.Run(); err != nil {
		s.t.Fatalf("start sshd again: %v", err)
	}
}

func TestFolderPassesTheDriversSuite(t *testing.T) {
	drivertest.Run(t, drivertest.Options{Kind: Kind, Start: func(t testing.TB) drivertest.Source { return &sender{t: t, dir: t.TempDir()} }})
}

func TestFolderThatIsOnlyReadPassesTheDriversSuite(t *testing.T) {
	drivertest.Run(t, drivertest.Options{Kind: Kind, Start: func(t testing.TB) drivertest.Source { return &sender{t: t, dir: t.TempDir(), keep: true} }})
}

func TestSFTPPassesTheDriversSuite(t *testing.T) {
	drivertest.Run(t, drivertest.Options{Kind: Kind, Start: func(t testing.TB) drivertest.Source {
		dir := filepath.Join(t.TempDir(), "from mes")
		if err := (local{}).mkdir(dir); err != nil {
			t.Fatal(err)
		}
		return &sender{t: t, dir: dir, server: realparts.SFTP(t, realparts.SFTPOptions{})}
	}})
}

func TestTheSampleIsAConfigurationAndNamesEveryKey(t *testing.T) {
	p := newPlant(t)
	if _, err := Kind.New(p.env(), decodeYAML(sample)); err != nil {
		t.Error(err)
	}
	for _, key := range keysOf(reflect.TypeFor[Config]()) {
		if !regexp.MustCompile(`\b` + key + `:`).MatchString(sample) {
			t.Errorf("the sample does not explain %q", key)
		}
	}
}

// keysOf lists the keys of a section and all below it.
func keysOf(t reflect.Type) []string {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	var out []string
	for i := 0; t.Kind() == reflect.Struct && i < t.NumField(); i++ {
		f := t.Field(i)
		key, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if key != "" && key != "-" {
			out = append(out, key)
		}
		if key != "-" {
			out = append(out, keysOf(f.Type)...)
		}
	}
	return out
}
