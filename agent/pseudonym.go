package agent

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// pseudonymKey reads the plant's secret for pseudonyms, and makes one when there is none.
func (a *Agent) pseudonymKey() ([]byte, error) {
	const least = 16
	path := a.cfg.PseudonymKeyFile
	key, err := os.ReadFile(path)
	switch {
	case err == nil && len(key) < least:
		return nil, fmt.Errorf("%w: pseudonym_key_file %q has %d bytes, fewer than %d: it is too easy to guess (remove it to have a new one made)", ErrConfig, path, len(key), least)
	case err == nil:
		return key, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("read the secret for pseudonyms: %w", err)
	}
	key = []byte(rand.Text() + rand.Text())
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the secret for pseudonyms: %w", err)
	}
	if err := writeSecret(path, key); err != nil {
		return nil, fmt.Errorf("make the secret for pseudonyms: %w", err)
	}
	a.log.Warn("a new secret for pseudonyms was made: keep a copy in a safe place, and give it to the plant's other agents", "file", path)
	return key, nil
}

// writeSecret writes a file that only its owner can read, whole or not at all.
func writeSecret(path string, body []byte) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(body)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
