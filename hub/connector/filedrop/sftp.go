package filedrop

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector/secret"
	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

// SFTP is how a server is reached, and by which key it is known.
type SFTP struct {
	Address string `yaml:"address"` // host or host:port
	User    string `yaml:"user"`
	// PasswordFile or KeyFile (OpenSSH or PEM) says who we are; PassphraseFile opens the key.
	PasswordFile   string `yaml:"password_file"`
	KeyFile        string `yaml:"key_file"`
	PassphraseFile string `yaml:"passphrase_file"`
	// HostKey are fingerprints such as SHA256:...; several while a server changes its key.
	HostKey []string `yaml:"host_key"`
}

func (c *SFTP) check() error {
	if c.Address == "" || c.User == "" {
		return wrong("sftp: address or user is empty; name both")
	}
	if (c.PasswordFile == "") == (c.KeyFile == "") {
		return wrong("sftp: name either password_file or key_file")
	}
	if len(c.HostKey) == 0 {
		return wrong("sftp.host_key is empty; ask the server's administrator for its fingerprint (ssh-keygen -lf prints it)")
	}
	for _, k := range c.HostKey {
		if !strings.HasPrefix(k, "SHA256:") || len(k) != len("SHA256:")+43 {
			return wrong("sftp.host_key %q is no fingerprint such as SHA256:... with 43 characters (ssh-keygen -lf prints it)", k)
		}
	}
	return nil
}

// remote is the file system of an SFTP server. It connects when it is needed, and again when the connection is gone.
type remote struct {
	cfg     SFTP
	timeout time.Duration
	auth    []ssh.AuthMethod

	mu     sync.Mutex // one exchange at a time
	conn   *ssh.Client
	client *sftp.Client
	posix  bool // renames replace
	fsync  bool
}

func newRemote(cfg SFTP, timeout time.Duration) (*remote, error) {
	if _, _, err := net.SplitHostPort(cfg.Address); err != nil {
		cfg.Address = net.JoinHostPort(strings.Trim(cfg.Address, "[]"), "22")
	}
	r := &remote{cfg: cfg, timeout: timeout}
	if cfg.PasswordFile != "" {
		password, err := secret.FirstLine(cfg.PasswordFile)
		if err != nil {
			return nil, wrong("read sftp.password_file: %w", err)
		}
		r.auth = []ssh.AuthMethod{ssh.Password(password), ssh.KeyboardInteractive(func(_, _ string, questions []string, _ []bool) ([]string, error) {
			return slices.Repeat([]string{password}, len(questions)), nil
		})}
		return r, nil
	}
	signer, err := cfg.signer()
	if err != nil {
		return nil, err
	}
	r.auth = []ssh.AuthMethod{ssh.PublicKeys(signer)}
	return r, nil
}

func (c *SFTP) signer() (ssh.Signer, error) {
	raw, err := os.ReadFile(c.KeyFile)
	if err != nil {
		return nil, wrong("read sftp.key_file: %w; make a key with ssh-keygen, and give its .pub file to the server's administrator", err)
	}
	var signer ssh.Signer
	if c.PassphraseFile != "" {
		phrase, perr := os.ReadFile(c.PassphraseFile)
		if perr != nil {
			return nil, wrong("read sftp.passphrase_file: %w", perr)
		}
		signer, err = ssh.ParsePrivateKeyWithPassphrase(raw, []byte(strings.TrimRight(string(phrase), "\r\n")))
	} else {
		signer, err = ssh.ParsePrivateKey(raw)
	}
	if err != nil {
		return nil, wrong("sftp.key_file %q cannot be used: %w; name a private key in OpenSSH or PEM form, and passphrase_file if it has one", c.KeyFile, err)
	}
	return signer, nil
}

// hostKeyFamilies are asked for one after the other: a server has several keys and shows the one that is asked for.
var hostKeyFamilies = [][]string{nil, {ssh.KeyAlgoED25519}, {ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521}, {ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}}

// errHostKey is of a server that shows another key than the configured ones.
var errHostKey = errors.New("host key")

// dial connects; a server whose key is not the configured one is left before anything secret is said.
func (r *remote) dial() error {
	var first error
	for _, family := range hostKeyFamilies {
		conn, err := r.connect(family)
		if err == nil {
			return r.open(conn)
		}
		if !errors.Is(err, errHostKey) {
			if first != nil { // it has no key of this family
				continue
			}
			return err
		}
		if first == nil {
			first = err
		}
	}
	return first
}

func (r *remote) connect(family []string) (*ssh.Client, error) {
	ctx, cancel := context.WithTimeout(context.Background(), r.timeout) // the connection outlives the call that needs it first
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", r.cfg.Address)
	if err != nil {
		return nil, fmt.Errorf("connect to SFTP server %s: %w", r.cfg.Address, err)
	}
	conn.SetDeadline(time.Now().Add(r.timeout))
	var shown error
	inner, channels, requests, err := ssh.NewClientConn(conn, r.cfg.Address, &ssh.ClientConfig{User: r.cfg.User, Auth: r.auth, HostKeyAlgorithms: family,
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			shown = r.cfg.known(key)
			return shown
		}})
	if err != nil {
		conn.Close()
		if shown != nil {
			return nil, shown
		}
		return nil, fmt.Errorf("log in to SFTP server %s as %q: %w", r.cfg.Address, r.cfg.User, err)
	}
	conn.SetDeadline(time.Time{})
	return ssh.NewClient(inner, channels, requests), nil
}

func (c *SFTP) known(key ssh.PublicKey) error {
	print := ssh.FingerprintSHA256(key)
	if slices.Contains(c.HostKey, print) {
		return nil
	}
	return fmt.Errorf("%w: SFTP server %s shows the %s key %s instead of %s: it was set up anew, or somebody stands in between; ask its administrator, then correct host_key",
		errHostKey, c.Address, key.Type(), print, strings.Join(c.HostKey, " or "))
}

func (r *remote) open(conn *ssh.Client) error {
	watch := time.AfterFunc(r.timeout, func() { conn.Close() })
	defer watch.Stop()
	client, err := sftp.NewClient(conn)
	if err != nil {
		conn.Close()
		return fmt.Errorf("server %s has no SFTP: %w; let its administrator allow the subsystem sftp for user %q", r.cfg.Address, err, r.cfg.User)
	}
	r.conn, r.client = conn, client
	_, r.posix = client.HasExtension("posix-rename@openssh.com")
	_, r.fsync = client.HasExtension("fsync@openssh.com")
	return nil
}

// do makes one exchange. A connection that does not answer in time, or whose error is not the server's own about a file, is given up.
func (r *remote) do(what, name string, work func(c *sftp.Client) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.client == nil {
		if err := r.dial(); err != nil {
			return err
		}
	}
	conn := r.conn
	watch := time.AfterFunc(r.timeout, func() { conn.Close() })
	err := work(r.client)
	watch.Stop()
	if err == nil {
		return nil
	}
	var status *sftp.StatusError
	var large *tooLarge
	if !errors.As(err, &status) && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) && !errors.As(err, &large) {
		r.drop()
	}
	return fmt.Errorf("%s %s on SFTP server %s: %w", what, name, r.cfg.Address, err)
}

func (r *remote) drop() {
	if r.conn != nil {
		r.conn.Close()
		r.client.Close()
		r.conn, r.client = nil, nil
	}
}

func (r *remote) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop()
	return nil
}

func (r *remote) join(folder, name string) string { return path.Join(folder, name) }

func (r *remote) list(folder string) (all []entry, err error) {
	err = r.do("read folder", folder, func(c *sftp.Client) error {
		found, err := c.ReadDir(folder)
		for _, f := range found {
			if f.Mode().IsRegular() {
				all = append(all, entry{f.Name(), f.Size(), f.ModTime()})
			}
		}
		return err
	})
	return all, err
}

func (r *remote) read(name string) (data []byte, err error) {
	err = r.do("read", name, func(c *sftp.Client) error {
		f, err := c.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		data, err = whole(f, name)
		return err
	})
	return data, err
}

func (r *remote) write(name string, data []byte) error {
	return r.do("write", name, func(c *sftp.Client) error {
		f, err := c.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
		if err != nil {
			return err
		}
		if _, err = f.Write(data); err == nil && r.fsync {
			err = f.Sync()
		}
		return errors.Join(err, f.Close())
	})
}

func (r *remote) rename(from, to string) error {
	return r.do("rename", from, func(c *sftp.Client) error {
		if r.posix {
			return c.PosixRename(from, to)
		}
		return c.Rename(from, to)
	})
}

func (r *remote) exists(name string) (is bool, err error) {
	err = r.do("look at", name, func(c *sftp.Client) error {
		_, err := c.Lstat(name)
		if is = err == nil; errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	return is, err
}
