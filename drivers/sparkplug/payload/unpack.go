package payload

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"fmt"
	"io"
)

// compressed is the UUID by which a message says that another one is packed in its body.
const compressed = "SPBV1.0_COMPRESSED"

// Read decodes a message and, when it only carries another one in compressed form, that one. most bounds the bytes of what
// was compressed.
func Read(b []byte, most int) (Payload, error) {
	p, err := Decode(b)
	if err != nil || p.UUID != compressed {
		return p, err
	}
	inner, err := unpack(p.Body, most)
	if err != nil {
		return Payload{}, fmt.Errorf("unpack a compressed message: %w", err)
	}
	return Decode(inner)
}

func unpack(body []byte, most int) ([]byte, error) {
	var r io.Reader
	var err error
	if bytes.HasPrefix(body, []byte{0x1F, 0x8B}) {
		r, err = gzip.NewReader(bytes.NewReader(body))
	} else {
		r, err = zlib.NewReader(bytes.NewReader(body))
	}
	if err != nil {
		return nil, err
	}
	out, err := io.ReadAll(io.LimitReader(r, int64(most)+1))
	if err == nil && len(out) > most {
		err = fmt.Errorf("it has more than %d bytes", most)
	}
	return out, err
}
