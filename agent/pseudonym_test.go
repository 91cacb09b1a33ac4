package agent

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/agent/translate"
)

// The plant's secret is made once, only its owner can read it, and it stays: pseudonyms are the same after a restart. Neither the
// buffers nor any other file of the data folder hold what was pseudonymised.
func TestSecretForPseudonymsIsMadeOnceAndTheBadgeIsNowhereOnDisk(t *testing.T) {
	const badge = "BADGE-4711-MEIER"
	dir := t.TempDir()
	fs := fakes{"one": &fake{run: func(ctx context.Context, _ []byte, emit signal.Emit) error {
		s := row(1)
		s.Value = map[string]any{"order": "WO-1", "item": "FG", "good": signal.Number("1"), "who": badge}
		bad := signal.Signal{Tag: "rows", Position: "rows|2", Payload: []byte(`{"who": "` + badge + `"}`), Value: map[string]any{"who": badge, "good": "many"}}
		broken := signal.Signal{Tag: "rows", Payload: []byte(`{"who": "` + badge), Problem: &signal.Problem{Code: "bad_json", Item: "rows", Reason: "after " + badge, NextStep: "look"}}
		if err := emit(ctx, signal.Batch{Signals: []signal.Signal{s, bad, broken}}); err != nil {
			t.Errorf("emit: %v", err)
		}
		<-ctx.Done()
		return nil
	}}}
	cfg := testConfig(dir, fs)
	cfg.Rules[0].Fields["person"], cfg.Rules[0].Pseudonymise = "payload.who", []string{"payload.who"}
	cfg.Rules = append(cfg.Rules, translate.Rule{Name: "all", Rule: "reading", Source: "one", Tag: "*"})
	key := filepath.Join(cfg.DataDir, "pseudonym.key")
	var secrets [2][]byte
	for i := range secrets {
		a := start(t, cfg, fs)
		eventually(t, "the rows to be taken", func() error {
			if n := a.source("one").Signals; n < 3 {
				return errors.New("not yet")
			}
			return nil
		})
		a.stop()
		var err error
		if secrets[i], err = os.ReadFile(key); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(secrets[0], secrets[1]) || len(secrets[0]) < 32 {
		t.Errorf("the secrets are %q", secrets)
	}
	if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the secret's file is %v, %v", info.Mode(), err)
	}
	found := 0
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte("MEIER")) {
			t.Errorf("%s holds the badge", path)
		}
		if bytes.Contains(b, []byte("P-")) && bytes.Contains(b, []byte("withheld")) {
			found++
		}
		return err
	})
	if err != nil || found == 0 {
		t.Errorf("no file holds the pseudonym and the message that is withheld: %v", err)
	}
}

func TestSecretThatIsTooShortIsRefused(t *testing.T) {
	cfg := testConfig(t.TempDir(), fakes{"one": &fake{}})
	cfg.Rules[0].Pseudonymise = []string{"payload.who"}
	cfg.PseudonymKeyFile = filepath.Join(t.TempDir(), "short.key")
	if err := os.WriteFile(cfg.PseudonymKeyFile, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := New(cfg, Options{Logger: newDiscard(), Kinds: fakes{"one": &fake{}}.kinds()})
	if !errors.Is(err, ErrConfig) {
		t.Errorf("a secret of 6 bytes gives %v", err)
	}
}
