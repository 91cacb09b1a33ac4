package realparts

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// SFTPOptions says how a server is set up. The zero value lets its user read and write.
type SFTPOptions struct {
	// ReadOnly refuses every change, as a server does whose user may only read.
	ReadOnly bool
}

// SFTPServer is an OpenSSH server with SFTP only, under a test's control. Its user is the one who runs the test, and so are its
// files: paths are this computer's.
type SFTPServer struct {
	*Process
	Port int
	// User logs in with the private key in KeyFile. Fingerprint is that of the server's ed25519 key.
	User, KeyFile, Fingerprint string
}

// SFTP starts a server on a free loopback port.
func SFTP(t testing.TB, o SFTPOptions) *SFTPServer {
	t.Helper()
	program := Need(t, "sshd", "openssh-server", "/usr/sbin")
	dir := t.TempDir()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 { // root's server wants this folder of its own
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := &SFTPServer{Port: FreePort(t), User: me.Username, KeyFile: filepath.Join(dir, "user.key")}
	host := sshKey(t, filepath.Join(dir, "host.key"))
	s.Fingerprint = ssh.FingerprintSHA256(host)
	authorized := WriteFile(t, filepath.Join(dir, "authorized_keys"), string(ssh.MarshalAuthorizedKey(sshKey(t, s.KeyFile))))
	flag := ""
	if o.ReadOnly {
		flag = " -R"
	}
	conf := WriteFile(t, filepath.Join(dir, "sshd_config"), fmt.Sprintf(`Port %d
ListenAddress 127.0.0.1
HostKey %s
AuthorizedKeysFile %s
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin yes
MaxStartups 100
Subsystem sftp internal-sftp%s
ForceCommand internal-sftp%s
`, s.Port, filepath.Join(dir, "host.key"), authorized, flag, flag))
	s.Process = &Process{
		Name:    "sshd",
		Command: func() *exec.Cmd { return exec.Command(program, "-D", "-e", "-f", conf) },
		Ready:   Listening(s.Port),
	}
	s.Start(t)
	return s
}

// Kill sends sig to the server and to those that serve a connection, and waits until they are gone.
func (s *SFTPServer) Kill(sig syscall.Signal) {
	pids := children(s.PID())
	for _, pid := range pids { // the one that serves runs with fewer rights than its parent
		pids = append(pids, children(pid)...)
	}
	s.Signal(sig)
	for _, pid := range pids { // they hold the server's output open, which its end waits for
		syscall.Kill(pid, sig)
	}
	s.Process.Kill(sig)
	for _, pid := range pids {
		waitGone(pid, time.Minute)
	}
}

// sshKey makes a key pair, writes the private key and returns the public one.
func sshKey(t testing.TB, path string) ssh.PublicKey {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
