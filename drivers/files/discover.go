package files

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"

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
		where = filepath.Dir(where)
	}
	s := &source{env: env, config: Config{Root: where}, zone: env.Zone}
	if s.zone == nil {
		s.zone = time.UTC
	}
	groups, folders, err := s.look(local{}, "")
	if err != nil {
		return nil, err
	}
	var kinds []string
	for _, g := range groups {
		kinds = append(kinds, fmt.Sprintf("%s (%s)", g.Name, g.Type))
	}
	if len(kinds) == 0 {
		kinds = []string{"no files yet"}
	}
	title := fmt.Sprintf("%s: %s", where, strings.Join(kinds, ", "))
	if len(folders) > 0 {
		title += fmt.Sprintf(", %d folders", len(folders))
	}
	return []signal.Offer{{Title: title, Secure: true, Section: fmt.Sprintf("root: %q\n", where),
		Notes: []string{"taken files are moved to processing, done and error below their folder; for a folder that may only be read set keep: true in its feed"}}}, nil
}

// sniffed is what a file looks like.
type sniffed struct {
	name, format, about string
	encoding            string // of CSV; empty when it is what the text itself says
	decimal             string
	numbers             []string // columns that hold quantities, to judge by their name and value
	notes               []string
}

var b2mmlRoot = regexp.MustCompile(`<([\w-]+:)?\w*(ProductionPerformance|OperationsPerformance|WorkPerformance|ConfirmBOD|OperationsResponse|ProductionResponse|WorkResponse|JobResponse)\b`)

// sniff guesses the format of a text from its beginning.
func sniff(name string, head []byte) *sniffed {
	s := &sniffed{name: name}
	text, _ := io.ReadAll(payload.XMLText(bytes.NewReader(head), "")) // bytes can be read
	begin := strings.TrimSpace(string(text))
	switch {
	case strings.HasPrefix(begin, "<"):
		s.format, s.about = "xml", "XML"
		if strings.Contains(strings.ToUpper(begin), "B2MML") || b2mmlRoot.MatchString(begin) {
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

var (
	plainNumber = regexp.MustCompile(`^-?(0|[1-9]\d{0,9})([.,]\d+)?$`)
	quantity    = regexp.MustCompile(`(?i)qty|quant|menge|good|yield|gut|scrap|ausschuss|reject|rework|nacharbeit|count|pieces|parts|st(ü|ue)ck|weight|gewicht|amount`)
)

func (s *sniffed) csv(head []byte) {
	s.format, s.about = "csv", "CSV"
	utf16 := bytes.HasPrefix(head, []byte{0xFF, 0xFE}) || bytes.HasPrefix(head, []byte{0xFE, 0xFF})
	if !utf16 && bytes.ContainsFunc(head, func(r rune) bool { return r == '\uFFFD' }) {
		s.encoding = "windows-1252"
		s.notes = append(s.notes, "the file is no UTF-8; windows-1252 is a guess: compare umlauts and accents")
	}
	first, err := payload.CSV(bytes.NewReader(head), payload.CSVOptions{Encoding: s.encoding}).Next()
	m, ok := first.Value.(map[string]any)
	if err != nil || !ok || len(m) < 2 {
		s.about = "text"
		s.notes = append(s.notes, "no delimiter was found: for fields of fixed width set format: fixed and place the columns")
		return
	}
	for _, e := range fieldEntries("", m) {
		if plainNumber.MatchString(e.Value) && (quantity.MatchString(e.Name) || strings.ContainsAny(e.Value, ".,")) {
			s.numbers = append(s.numbers, e.Name)
			if strings.Contains(e.Value, ",") {
				s.decimal = ","
			}
		}
	}
	s.about = fmt.Sprintf("CSV with %d columns", len(m))
}

// feed is the element of feeds that would take files like this one.
func (s *sniffed) feed(dir string) string {
	tag := path.Base(dir)
	if tag == "." || tag == "/" {
		tag = map[bool]string{true: "performance", false: "records"}[s.format == "b2mml"]
	}
	var b strings.Builder
	fmt.Fprintf(&b, "tag: %q\nfolder: %q\nfiles: [%q]\nformat: %s\n", tag, dir, extension(s.name), s.format)
	if s.encoding != "" || s.decimal != "" || len(s.numbers) > 0 {
		b.WriteString("csv:\n")
		if s.encoding != "" {
			fmt.Fprintf(&b, "  encoding: %s\n", s.encoding)
		}
		if s.decimal != "" {
			fmt.Fprintf(&b, "  decimal: %q\n", s.decimal)
		}
		if len(s.numbers) > 0 {
			b.WriteString("  columns:   # the others stay text\n")
		}
		for _, n := range s.numbers {
			fmt.Fprintf(&b, "    - {name: %q, type: number}\n", n)
		}
	}
	for _, n := range s.notes {
		b.WriteString("# " + n + "\n")
	}
	return b.String()
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
	section := fmt.Sprintf("sftp:\n  address: %q\n  user: %q\n  key_file: sftp.key\n  host_key: [%q]\nroot: %q\n", c.Address, c.User, print, folder)
	return []signal.Offer{{Title: fmt.Sprintf("SFTP server %s with the key %s", c.Address, print), Secure: true, Section: section,
		Notes: []string{"compare the fingerprint with what the server's administrator says before it is trusted", "make a key with: ssh-keygen -t ed25519 -N '' -f sftp.key, and give sftp.key.pub to the administrator"}}}, nil
}
