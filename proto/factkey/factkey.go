// Package factkey mints and writes down the key that makes a fact take effect once.
//
// It owns one thing: the way from a source position ("counter, plant ulm, source press1, epoch 1, up to 1250") to a
// 16-byte key and its two written forms, 16 upper-case base32 characters for the shortest reference field an ERP has and a
// version-8 UUID for the others. It promises that equal positions give equal keys on every machine and in every release,
// and that no two different lists of parts share a position. It never looks at a clock and never draws a random number
// except in Random.
package factkey

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"strings"
)

// Key is the first 16 bytes of the SHA-256 of a position.
type Key [16]byte

var encoding = base32.StdEncoding.WithPadding(base32.NoPadding)

// Position joins parts to the readable text that a key is made from. Separators and escapes inside a part are escaped, so
// that ("a|b") and ("a", "b") differ.
func Position(parts ...string) string {
	n := 0
	for _, p := range parts {
		n += len(p) + 1
	}
	return string(AppendPosition(make([]byte, 0, n), parts...))
}

// AppendPosition appends what Position returns to b.
func AppendPosition(b []byte, parts ...string) []byte {
	for i, p := range parts {
		if i > 0 {
			b = append(b, '|')
		}
		for j := 0; j < len(p); j++ {
			if p[j] == '|' || p[j] == '\\' {
				b = append(b, '\\')
			}
			b = append(b, p[j])
		}
	}
	return b
}

// Of returns the key of a position as Position wrote it.
func Of(position string) Key { return OfBytes([]byte(position)) }

// OfBytes is Of for a position that AppendPosition wrote.
func OfBytes(position []byte) Key {
	sum := sha256.Sum256(position)
	return Key(sum[:16])
}

// Random returns a key for a fact whose source guarantees no position of its own. It is to be drawn in the transaction
// that stores the fact.
func Random() Key {
	var k Key
	rand.Read(k[:]) // never fails: crypto/rand ends the process instead
	return k
}

// FromBytes returns the key that travelled as b; it refuses any length but 16.
func FromBytes(b []byte) (Key, error) {
	if len(b) != 16 {
		return Key{}, fmt.Errorf("fact key has %d bytes, want 16", len(b))
	}
	return Key(b), nil
}

// Parse reads either written form, in any case: base32 gives only the 10 bytes it carries, and ok tells which.
func Parse(s string) (prefix []byte, err error) {
	switch len(s) {
	case 16:
		b, err := encoding.DecodeString(strings.ToUpper(s))
		if err != nil {
			return nil, fmt.Errorf("fact key %q is not base32: %w", s, err)
		}
		return b, nil
	case 36:
		// The version and variant bits of the UUID replace six bits of the hash, all of them outside the base32 form's
		// first 48 bits; what can be compared is those.
		b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
		if err != nil || len(b) != 16 {
			return nil, fmt.Errorf("fact key %q is not a UUID", s)
		}
		return b[:6], nil
	}
	return nil, fmt.Errorf("fact key %q is neither 16 base32 characters nor a UUID", s)
}

// String is the 16-character form: the first 80 bits in upper-case base32. Hub and ERP know a fact by it.
func (k Key) String() string {
	var text [16]byte
	encoding.Encode(text[:], k[:10])
	return string(text[:])
}

// UUID is the same hash as a version-8 UUID (RFC 9562).
func (k Key) UUID() string {
	u := k
	u[6] = u[6]&0x0f | 0x80
	u[8] = u[8]&0x3f | 0x80
	h := hex.EncodeToString(u[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// IsZero reports a key that was never set.
func (k Key) IsZero() bool { return k == Key{} }
