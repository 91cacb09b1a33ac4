package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// SFTP is how the server is reached, and by which key it is known.
type SFTP struct {
	Address        string   `yaml:"address"` // host or host:port
	User           string   `yaml:"user"`
	PasswordFile   string   `yaml:"password_file"`
	KeyFile        string   `yaml:"key_file"`
	PassphraseFile string   `yaml:"passphrase_file"`
	HostKey        []string `yaml:"host_key"` // SHA256:...; several while a server changes its key
}

func (c *SFTP) fill(env signal.Env) error {
	if c.Address == "" || c.User == "" {
		return errors.New("sftp: address and user are needed")
	}
	if _, _, err := net.SplitHostPort(c.Address); err != nil {
		c.Address = net.JoinHostPort(strings.Trim(c.Address, "[]"), "22")
	}
	if (c.PasswordFile == "") == (c.KeyFile == "") {
		return errors.New("sftp: name either password_file or key_file")
	}
	for _, k := range c.HostKey {
		if !strings.HasPrefix(k, "SHA256:") || len(k) != len("SHA256:")+43 {
			return fmt.Errorf("sftp: host_key %q is no fingerprint such as SHA256:... with 43 characters (ssh-keygen -lf prints it)", k)
		}
	}
	for _, p := range []*string{&c.PasswordFile, &c.KeyFile, &c.PassphraseFile} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(env.ConfigDir, *p)
		}
	}
	return nil
}

// problemError is an error that carries its own explanation.
type problemError struct{ problem signal.Problem }

func (e *problemError) Error() string { return e.problem.Reason }

func problem(code, item, reason, next string) error {
	return &problemError{signal.Problem{Code: code, Item: item, Reason: reason, NextStep: next}}
}

const (
	dialPatience  = 20 * time.Second
	aliveInterval = 15 * time.Second
)

// hostKeyFamilies are asked for one after the other: a server has several keys and shows the one that is asked for.
var hostKeyFamilies = [][]string{nil, {ssh.KeyAlgoED25519}, {ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521}, {ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}}

// dial connects; a server whose key is not the configured one is left before anything secret is said.
func (c *SFTP) dial(ctx context.Context) (store, error) {
	auth, err := c.auth()
	if err != nil {
		return nil, err
	}
	var first *problemError
	for _, family := range hostKeyFamilies {
		client, err := c.connect(ctx, auth, family)
		if err == nil {
			return newRemote(client)
		}
		var p *problemError
		if !errors.As(err, &p) || p.problem.Code != "host_key_unknown" {
			if first != nil { // it has no key of this family
				continue
			}
			return nil, err
		}
		if first == nil {
			first = p
		}
		if len(c.HostKey) == 0 {
			break
		}
	}
	return nil, first
}

func (c *SFTP) auth() ([]ssh.AuthMethod, error) {
	if c.PasswordFile != "" {
		raw, err := os.ReadFile(c.PasswordFile)
		if err != nil {
			return nil, problem("secret_missing", c.PasswordFile, "the password cannot be read: "+err.Error(), "write it into the file, which only the agent may read")
		}
		password := strings.TrimRight(string(raw), "\r\n")
		return []ssh.AuthMethod{ssh.Password(password), ssh.KeyboardInteractive(func(_, _ string, questions []string, _ []bool) ([]string, error) {
			answers := make([]string, len(questions))
			for i := range answers {
				answers[i] = password
			}
			return answers, nil
		})}, nil
	}
	raw, err := os.ReadFile(c.KeyFile)
	if err != nil {
		return nil, problem("secret_missing", c.KeyFile, "the key cannot be read: "+err.Error(), "make one with ssh-keygen, and give its .pub file to the server's administrator")
	}
	var signer ssh.Signer
	if c.PassphraseFile != "" {
		phrase, perr := os.ReadFile(c.PassphraseFile)
		if perr != nil {
			return nil, problem("secret_missing", c.PassphraseFile, "the passphrase cannot be read: "+perr.Error(), "write it into the file, which only the agent may read")
		}
		signer, err = ssh.ParsePrivateKeyWithPassphrase(raw, []byte(strings.TrimRight(string(phrase), "\r\n")))
	} else {
		signer, err = ssh.ParsePrivateKey(raw)
	}
	if err != nil {
		return nil, problem("bad_key", c.KeyFile, "the key cannot be used: "+err.Error(), "name a private key in OpenSSH or PEM form; one with a passphrase needs passphrase_file")
	}
	return []ssh.AuthMethod{ssh.PublicKeys(signer)}, nil
}

func (c *SFTP) connect(ctx context.Context, auth []ssh.AuthMethod, family []string) (*ssh.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, dialPatience)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", c.Address)
	if err != nil {
		return nil, problem("no_connection", c.Address, "no connection to the SFTP server: "+err.Error(), "check that it runs and that this computer and its firewalls let the agent reach it")
	}
	deadline, _ := ctx.Deadline()
	conn.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	var shown error
	known := false
	config := &ssh.ClientConfig{User: c.User, Auth: auth, HostKeyAlgorithms: family, HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
		shown = c.check(key)
		known = shown == nil
		return shown
	}}
	inner, channels, requests, err := ssh.NewClientConn(conn, c.Address, config)
	if err != nil {
		stop()
		conn.Close()
		switch {
		case shown != nil:
			return nil, shown
		case known && (strings.Contains(err.Error(), "unable to authenticate") || strings.Contains(err.Error(), "unexpected message type")):
			return nil, problem("login_refused", c.User, fmt.Sprintf("the SFTP server refuses user %q: %v", c.User, err), "check user and password or key with the server's administrator")
		}
		return nil, problem("no_session", c.Address, "no SSH session: "+err.Error(), "check that the address is that of an SFTP server")
	}
	if !stop() {
		conn.Close()
		return nil, problem("no_session", c.Address, "the SFTP server did not answer in time", "it is tried again by itself")
	}
	conn.SetDeadline(time.Time{})
	return ssh.NewClient(inner, channels, requests), nil
}

func (c *SFTP) check(key ssh.PublicKey) error {
	print := ssh.FingerprintSHA256(key)
	if slices.Contains(c.HostKey, print) {
		return nil
	}
	reason := fmt.Sprintf("the server shows the %s key %s, which the configuration does not name", key.Type(), print)
	next := fmt.Sprintf("ask the server's administrator for its fingerprint; when it is this one, write host_key: [%q]", print)
	if len(c.HostKey) > 0 {
		reason = fmt.Sprintf("the server shows the %s key %s instead of %s: it was set up anew, or somebody stands in between", key.Type(), print, strings.Join(c.HostKey, " or "))
	}
	return problem("host_key_unknown", c.Address, reason, next)
}

// remote is the file system of an SFTP server.
type remote struct {
	ssh    *ssh.Client
	client *sftp.Client
	posix  bool // renames replace
	done   chan struct{}
	ended  sync.WaitGroup
	once   sync.Once
}

func newRemote(conn *ssh.Client) (*remote, error) {
	client, err := sftp.NewClient(conn)
	if err != nil {
		conn.Close()
		return nil, problem("no_sftp", conn.RemoteAddr().String(), "the server has no SFTP: "+err.Error(), "let its administrator allow the subsystem sftp for this user")
	}
	r := &remote{ssh: conn, client: client, done: make(chan struct{})}
	_, r.posix = client.HasExtension("posix-rename@openssh.com")
	r.ended.Add(1)
	go r.watch()
	return r, nil
}

// watch closes a connection that has gone silent: requests on it would wait for ever.
func (r *remote) watch() {
	defer r.ended.Done()
	tick := time.NewTicker(aliveInterval)
	defer tick.Stop()
	for {
		select {
		case <-r.done:
			return
		case <-tick.C:
		}
		dead := time.AfterFunc(aliveInterval, func() { r.ssh.Close() })
		_, _, err := r.ssh.SendRequest("keepalive@openssh.com", true, nil)
		dead.Stop()
		if err != nil {
			r.ssh.Close()
			return
		}
	}
}

func (r *remote) close() {
	r.once.Do(func() {
		close(r.done)
		r.ssh.Close()
		r.client.Close()
		r.client.Wait()
	})
	r.ended.Wait()
}

func (r *remote) list(dir string) ([]entry, error) {
	all, err := r.client.ReadDir(dir)
	if err != nil {
		return nil, wrap("list", dir, err)
	}
	out := make([]entry, 0, len(all))
	for _, info := range all {
		if info.Mode()&fs.ModeSymlink != 0 {
			target, err := r.client.Stat(path.Join(dir, info.Name()))
			if err != nil {
				continue
			}
			e := entryOf(target)
			e.name = info.Name()
			out = append(out, e)
		} else if info.IsDir() || info.Mode().IsRegular() {
			out = append(out, entryOf(info))
		}
	}
	return out, nil
}

// wrap names what was done; the library's own errors do not.
func wrap(what, path string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w", what, path, err)
}

func (r *remote) stat(path string) (entry, error) {
	info, err := r.client.Stat(path)
	if err != nil {
		return entry{}, wrap("look at", path, err)
	}
	return entryOf(info), nil
}

func (r *remote) open(path string) (io.ReadCloser, error) {
	f, err := r.client.Open(path)
	if err != nil {
		return nil, wrap("open", path, err)
	}
	return f, nil
}

func (r *remote) rename(from, to string) error {
	if r.posix {
		return wrap("rename", from, r.client.PosixRename(from, to))
	}
	return wrap("rename", from, r.client.Rename(from, to))
}

func (r *remote) remove(path string) error { return wrap("remove", path, r.client.Remove(path)) }

func (r *remote) mkdir(dir string) error { return wrap("make folder", dir, r.client.MkdirAll(dir)) }

func (r *remote) write(path string, content []byte) error {
	f, err := r.client.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return wrap("write", path, err)
	}
	_, err = f.Write(content)
	if err == nil {
		if _, can := r.client.HasExtension("fsync@openssh.com"); can {
			err = f.Sync()
		}
	}
	return wrap("write", path, errors.Join(err, f.Close()))
}

func (r *remote) sync(string) error { return nil } // SFTP has no word for it

func (r *remote) join(parts ...string) string {
	out := ""
	for _, p := range parts {
		if path.IsAbs(p) {
			out = p
		} else {
			out = path.Join(out, p)
		}
	}
	return out
}

// lost reports every error that is not the server's own answer about a file.
func (r *remote) lost(err error) bool {
	if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, errChanged) {
		return false
	}
	var status *sftp.StatusError
	var own spoolError
	var named *fs.PathError
	switch {
	case errors.As(err, &own), errors.As(err, &named):
		return false
	case errors.As(err, &status):
		return errors.Is(err, sftp.ErrSSHFxConnectionLost) || errors.Is(err, sftp.ErrSSHFxNoConnection)
	}
	return true
}
