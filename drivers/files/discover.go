package files

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/payload"
)

// discover looks at a file or folder of this computer, or asks an SFTP server (sftp://user@host:port/folder) for its key.
func discover(ctx context.Context, env signal.Env, address string) ([]signal.Offer, error) {
	if strings.HasPrefix(address, "sftp://") {
		return discoverSFTP(ctx, address)
	}
	where := strings.TrimPrefix(address, "file://")
	if !filepath.IsAbs(where) {
		where = filepath.Join(env.ConfigDir, where)
	}
	info, err := os.Stat(where)
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w (a folder, a file, or sftp://user@host/folder)", address, err)
	}
	if !info.IsDir() {
		f, err := sniffFile(where)
		if err != nil {
			return nil, err
		}
		return []signal.Offer{f.offer(filepath.Dir(where))}, nil
	}
	return discoverFolder(where)
}

func discoverFolder(dir string) ([]signal.Offer, error) {
	entries, err := local{}.list(dir)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(entries, func(a, b entry) int { return b.mtime.Compare(a.mtime) })
	seen := map[string]bool{}
	var offers []signal.Offer
	for _, e := range entries {
		glob := extension(e.name)
		if e.dir || seen[glob] || anyGlob(incomplete, e.name) || len(offers) >= 10 {
			continue
		}
		seen[glob] = true
		if s, err := sniffFile(filepath.Join(dir, e.name)); err == nil {
			offers = append(offers, s.offer(dir))
		}
	}
	if len(offers) == 0 {
		offers = []signal.Offer{(&sniffed{name: "*", format: "csv", notes: []string{"there is no file in it yet: correct format and files"}}).offer(dir)}
	}
	return offers, nil
}

// sniffed is what a file looks like.
type sniffed struct {
	name, format string
	lines        []string // of the format's section
	about        string
	notes        []string
}

func sniffFile(path string) (*sniffed, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	head := make([]byte, 64<<10)
	n, err := f.Read(head)
	if err != nil && n == 0 {
		return nil, fmt.Errorf("look into %s: %w", path, err)
	}
	if end := bytes.LastIndexByte(head[:n], '\n'); n == len(head) && end > 0 {
		n = end + 1 // not in the middle of a character
	}
	return sniff(filepath.Base(path), head[:n]), nil
}

// sniff guesses the format of a text from its beginning.
func sniff(name string, head []byte) *sniffed {
	s := &sniffed{name: name}
	var text bytes.Buffer
	text.ReadFrom(payload.XMLText(bytes.NewReader(head), ""))
	begin := strings.TrimSpace(text.String())
	switch {
	case strings.HasPrefix(begin, "<"):
		s.format, s.about = "xml", "XML"
		if strings.Contains(begin, "B2MML") || regexp.MustCompile(`<([\w-]+:)?(\w*(ProductionPerformance|OperationsPerformance|WorkPerformance|ConfirmBOD|OperationsResponse|ProductionResponse))\b`).MatchString(begin) {
			s.format, s.about = "b2mml", "B2MML"
		}
	case strings.HasPrefix(begin, "{") && strings.Contains(begin, "}\n{"), strings.HasSuffix(name, ".jsonl"), strings.HasSuffix(name, ".ndjson"):
		s.format, s.about = "jsonl", "JSON, one value on each line"
	case strings.HasPrefix(begin, "{"), strings.HasPrefix(begin, "["):
		s.format, s.about = "json", "JSON"
	default:
		s.csv(head)
	}
	return s
}

func (s *sniffed) csv(head []byte) {
	s.format, s.about = "csv", "CSV"
	encoding := "auto"
	if !bytes.HasPrefix(head, []byte{0xFF, 0xFE}) && !bytes.HasPrefix(head, []byte{0xFE, 0xFF}) && bytes.ContainsFunc(head, func(r rune) bool { return r == '\uFFFD' }) {
		encoding = "windows-1252"
		s.lines = append(s.lines, "encoding: windows-1252")
		s.notes = append(s.notes, "the file is no UTF-8; windows-1252 is a guess: compare umlauts and accents")
	}
	r := payload.CSV(bytes.NewReader(head), payload.CSVOptions{Encoding: encoding})
	first, err := r.Next()
	m, ok := first.Value.(map[string]any)
	if err != nil || !ok || len(m) < 2 {
		s.notes = append(s.notes, "no delimiter was found: for fields of fixed width set format: fixed and place the columns")
		return
	}
	comma := false
	var columns []string
	for _, e := range fieldEntries("", m) {
		if text := e.Value; looksLike(text) == "number" {
			comma = comma || strings.Contains(text, ",")
			columns = append(columns, fmt.Sprintf("  # - {name: %q, type: number}   # such as %s", e.Name, text))
		}
	}
	if comma {
		s.lines = append(s.lines, `decimal: ","`)
	}
	if columns != nil {
		s.lines = append(s.lines, append([]string{"# columns:   # take the sign off for those that are quantities; order numbers stay text"}, columns...)...)
	}
	s.about = fmt.Sprintf("CSV with %d columns", len(m))
}

func (s *sniffed) offer(dir string) signal.Offer {
	glob := extension(s.name)
	var b strings.Builder
	fmt.Fprintf(&b, "feeds:\n  - tag: %s\n    folder: %q\n    files: [%q]\n    format: %s\n", tagFor(s.format), dir, glob, s.format)
	if len(s.lines) > 0 {
		b.WriteString("    " + s.format + ":\n")
		onlyComments := true
		for _, l := range s.lines {
			onlyComments = onlyComments && strings.HasPrefix(strings.TrimSpace(l), "#")
		}
		if onlyComments {
			b.WriteString("      encoding: auto\n")
		}
		for _, l := range s.lines {
			b.WriteString("      " + l + "\n")
		}
	}
	notes := append([]string{"taken files are moved to processing, done and error below the folder; for a folder that may only be read set keep: true"}, s.notes...)
	return signal.Offer{Title: fmt.Sprintf("%s, files %s: %s", dir, glob, s.about), Secure: true, Section: b.String(), Notes: notes}
}

func tagFor(format string) string {
	if format == "b2mml" {
		return "performance"
	}
	return "records"
}

// discoverSFTP asks for the server's key and says nothing secret.
func discoverSFTP(ctx context.Context, address string) ([]signal.Offer, error) {
	u, err := url.Parse(address)
	if err != nil || u.Hostname() == "" {
		return nil, fmt.Errorf("address %q is not like sftp://user@host/folder", address)
	}
	c := &SFTP{Address: u.Host, User: u.User.Username()}
	if u.Port() == "" {
		c.Address += ":22"
	}
	setDefault(&c.User, "linekeeper")
	_, err = c.connect(ctx, nil, []string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256})
	var own *problemError
	if !errors.As(err, &own) || own.problem.Code != "host_key_unknown" {
		return nil, fmt.Errorf("ask %s for its key: %w", c.Address, err)
	}
	print := regexp.MustCompile(`SHA256:[A-Za-z0-9+/]{43}`).FindString(own.problem.Reason)
	folder := u.Path
	setDefault(&folder, ".")
	section := fmt.Sprintf("sftp:\n  address: %q\n  user: %q\n  key_file: sftp.key\n  host_key: [%q]\nfeeds:\n  - tag: records\n    folder: %q\n    format: csv\n", c.Address, c.User, print, folder)
	return []signal.Offer{{Title: fmt.Sprintf("SFTP server %s with the key %s", c.Address, print), Secure: true, Section: section,
		Notes: []string{"compare the fingerprint with what the server's administrator says before it is trusted", "make a key with: ssh-keygen -t ed25519 -N '' -f sftp.key, and give sftp.key.pub to the administrator",
			"correct format and files of the feed"}}}, nil
}
