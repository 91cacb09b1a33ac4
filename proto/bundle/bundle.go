// Package bundle is the file in which records travel between a plant and its hub where no line does: on a stick, by hand.
//
// It owns the format: a header, records in the order of their numbers, and a seal over all of it, signed where the sender
// has a certificate. It promises that a file which was cut off, changed or joined from two is refused before anything of it
// is used. It never looks into a record and never decides whether a bundle may be taken.
//
// # Format
//
//	linekeeper bundle 1\n
//	header as JSON\n
//	records: uvarint number less the one before (the first less 0, so never 0), uvarint length, bytes
//	0
//	seal as JSON\n: the SHA-256 of all that stands before it, the number of records, signature and certificate
//
// Bundles of facts are chained: each names the one made before it.
package bundle

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"time"
)

const (
	magic     = "linekeeper bundle 1\n"
	maxHeader = 64 << 10
	maxRecord = 32 << 20
)

// The kinds of bundles.
const (
	Facts  = "facts"  // records of an agent's business buffer, to the hub
	Answer = "answer" // what the hub holds, and deliveries, to the agent
)

// Errors that callers may look for.
var (
	// ErrNotABundle says that the file is something else, or of a newer format.
	ErrNotABundle = errors.New("it is no bundle")
	// ErrBroken says that the bundle was cut off or changed.
	ErrBroken = errors.New("the bundle is broken")
	// ErrUnsigned says that there is no signature.
	ErrUnsigned = errors.New("the bundle is not signed")
	// ErrForged says that the signature is not of whom it should be.
	ErrForged = errors.New("the signature does not hold")
)

// Header says what a bundle is.
type Header struct {
	Kind       string    `json:"kind"`
	Plant      string    `json:"plant"`
	Agent      string    `json:"agent"`
	Generation string    `json:"generation"` // of the agent's business buffer
	Number     uint64    `json:"number"`     // of the agent's bundles; an answer has that of the bundle it answers
	MadeAt     time.Time `json:"made_at"`
	// Previous is the SHA-256 of the bundle made before; an answer names the one it answers.
	Previous string `json:"previous,omitempty"`
	// First and Last are the numbers of the records; Last is First-1 when there is none.
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
	// Acked is up to where, as the sender knows, the hub holds all records of the generation.
	Acked uint64 `json:"acked"`
	// DeliveryEpoch and DeliverySeq are the position of deliveries: in facts what the agent has stored, in an answer the epoch
	// of those that it brings as records.
	DeliveryEpoch string `json:"delivery_epoch,omitempty"`
	DeliverySeq   int64  `json:"delivery_seq,omitempty"`
}

// seal is the end of a bundle.
type seal struct {
	SHA256      string   `json:"sha256"`
	Records     uint64   `json:"records"`
	Signature   []byte   `json:"signature,omitempty"`
	Certificate [][]byte `json:"certificate,omitempty"` // DER, the sender's own first
}

// Writer writes one bundle. Close must be called for it to be one.
type Writer struct {
	to      *bufio.Writer
	sum     hash.Hash
	prev    uint64
	records uint64
}

// NewWriter writes the header.
func NewWriter(to io.Writer, h Header) (*Writer, error) {
	text, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("encode bundle header: %w", err)
	}
	w := &Writer{sum: sha256.New()}
	w.to = bufio.NewWriterSize(io.MultiWriter(to, w.sum), 1<<16)
	_, err = fmt.Fprintf(w.to, "%s%s\n", magic, text)
	return w, err
}

// Add writes a record. Numbers must ascend.
func (w *Writer) Add(number uint64, body []byte) error {
	if number <= w.prev {
		return fmt.Errorf("add record %d to bundle: it comes after %d", number, w.prev)
	}
	var head []byte
	head = binary.AppendUvarint(head, number-w.prev)
	head = binary.AppendUvarint(head, uint64(len(body)))
	w.prev, w.records = number, w.records+1
	if _, err := w.to.Write(head); err != nil {
		return err
	}
	_, err := w.to.Write(body)
	return err
}

// Close seals the bundle, with a signature when there is a certificate, and returns its SHA-256 in hexadecimal.
func (w *Writer) Close(sign *tls.Certificate) (sum string, err error) {
	if err := w.to.WriteByte(0); err != nil {
		return "", err
	}
	if err := w.to.Flush(); err != nil {
		return "", err
	}
	s := seal{SHA256: hex.EncodeToString(w.sum.Sum(nil)), Records: w.records}
	if sign != nil {
		if s.Signature, err = signature(sign.PrivateKey, s.SHA256); err != nil {
			return "", err
		}
		s.Certificate = sign.Certificate
	}
	text, err := json.Marshal(s)
	if err != nil {
		return "", err
	}
	if _, err := w.to.Write(append(text, '\n')); err != nil {
		return "", err
	}
	return s.SHA256, w.to.Flush()
}

func signed(sum string) []byte { return []byte("linekeeper bundle seal\n" + sum) }

func signature(key crypto.PrivateKey, sum string) ([]byte, error) {
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("sign bundle: a key of type %T can not sign", key)
	}
	if _, ok := signer.Public().(ed25519.PublicKey); ok {
		return signer.Sign(rand.Reader, signed(sum), crypto.Hash(0))
	}
	digest := sha256.Sum256(signed(sum))
	return signer.Sign(rand.Reader, digest[:], crypto.SHA256)
}

// Bundle is a file whose seal holds.
type Bundle struct {
	Header
	SHA256  string
	Records uint64
	file    io.ReaderAt
	size    int64
	body    int64 // where the records begin
	seal    seal
}

// Open reads a file from end to end and checks its seal, but not the signature: see VerifyAgent and VerifyHub. The error
// wraps ErrNotABundle or ErrBroken where it is the file's.
func Open(file io.ReaderAt, size int64) (*Bundle, error) {
	b := &Bundle{file: file, size: size}
	sum := sha256.New()
	r := &counted{r: bufio.NewReaderSize(io.NewSectionReader(file, 0, size), 1<<16), sum: sum}
	if err := b.readHeader(r); err != nil {
		return nil, err
	}
	b.body = r.n
	first, last := uint64(0), uint64(0)
	err := eachRecord(r, func(number uint64, _ []byte) error {
		if b.Records++; b.Records == 1 {
			first = number
		}
		last = number
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBroken, err)
	}
	b.SHA256 = hex.EncodeToString(sum.Sum(nil))
	if err := b.readSeal(r); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBroken, err)
	}
	if b.Kind == Facts && b.Records > 0 && (first < b.First || last != b.Last) {
		return nil, fmt.Errorf("%w: it has records %d to %d, its header says %d to %d", ErrBroken, first, last, b.First, b.Last)
	}
	return b, nil
}

func (b *Bundle) readHeader(r *counted) error {
	start := make([]byte, len(magic))
	if _, err := io.ReadFull(r, start); err != nil || string(start) != magic {
		return ErrNotABundle
	}
	line, err := r.line()
	if err != nil {
		return fmt.Errorf("%w: header: %w", ErrBroken, err)
	}
	if err := json.Unmarshal(line, &b.Header); err != nil {
		return fmt.Errorf("%w: header: %w", ErrBroken, err)
	}
	if b.Kind != Facts && b.Kind != Answer {
		return fmt.Errorf("%w that this program knows: its kind is %q; install a newer program", ErrNotABundle, b.Kind)
	}
	return nil
}

func (b *Bundle) readSeal(r *counted) error {
	r.sum = nil
	line, err := r.line()
	if err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	if err := json.Unmarshal(line, &b.seal); err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	if b.seal.SHA256 != b.SHA256 || b.seal.Records != b.Records {
		return errors.New("its content is not what was sealed")
	}
	if _, err := r.ReadByte(); err != io.EOF {
		return errors.New("there is more behind its seal")
	}
	return nil
}

// Each calls fn with each record, in order. The body holds only during the call. It fails when the file has changed since it
// was opened, which shows only at the end.
func (b *Bundle) Each(fn func(number uint64, body []byte) error) error {
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(b.file, 0, b.body)); err != nil {
		return err
	}
	r := &counted{r: bufio.NewReaderSize(io.NewSectionReader(b.file, b.body, b.size-b.body), 1<<16), sum: sum}
	if err := eachRecord(r, fn); err != nil {
		return err
	}
	if hex.EncodeToString(sum.Sum(nil)) != b.SHA256 {
		return fmt.Errorf("%w: it changed while it was read", ErrBroken)
	}
	return nil
}

// VerifyAgent says that the bundle was signed by the agent that it names, with a certificate of the authority that was good
// when the bundle was made.
func (b *Bundle) VerifyAgent(authority *x509.CertPool) error {
	cert, err := b.verify(authority)
	if err != nil {
		return err
	}
	for _, u := range cert.URIs {
		if u.Scheme == "linekeeper" && u.Host == b.Plant && u.Path == "/"+b.Agent {
			return nil
		}
	}
	return fmt.Errorf("%w: it is of %q, the bundle is of \"%s/%s\"", ErrForged, cert.Subject.CommonName, b.Plant, b.Agent)
}

// VerifyHub says that the bundle was signed by a hub, which is whoever the authority gave a certificate for servers.
func (b *Bundle) VerifyHub(authority *x509.CertPool) error {
	cert, err := b.verify(authority)
	if err != nil {
		return err
	}
	for _, use := range cert.ExtKeyUsage {
		if use == x509.ExtKeyUsageServerAuth {
			return nil
		}
	}
	return fmt.Errorf("%w: it is of %q, which is no hub", ErrForged, cert.Subject.CommonName)
}

func (b *Bundle) verify(authority *x509.CertPool) (*x509.Certificate, error) {
	if len(b.seal.Signature) == 0 || len(b.seal.Certificate) == 0 {
		return nil, ErrUnsigned
	}
	cert, err := x509.ParseCertificate(b.seal.Certificate[0])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrForged, err)
	}
	between := x509.NewCertPool()
	for _, der := range b.seal.Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			between.AddCert(c)
		}
	}
	o := x509.VerifyOptions{Roots: authority, Intermediates: between, CurrentTime: b.MadeAt, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	if _, err := cert.Verify(o); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrForged, err)
	}
	var algorithm x509.SignatureAlgorithm
	switch cert.PublicKey.(type) {
	case *ecdsa.PublicKey:
		algorithm = x509.ECDSAWithSHA256
	case *rsa.PublicKey:
		algorithm = x509.SHA256WithRSA
	case ed25519.PublicKey:
		algorithm = x509.PureEd25519
	}
	if err := cert.CheckSignature(algorithm, signed(b.SHA256), b.seal.Signature); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrForged, err)
	}
	return cert, nil
}

// eachRecord reads records up to and with the 0 that ends them.
func eachRecord(r *counted, fn func(number uint64, body []byte) error) error {
	var body bytes.Buffer
	for number := uint64(0); ; {
		step, err := binary.ReadUvarint(r)
		if err != nil {
			return fmt.Errorf("after record %d: %w", number, noEOF(err))
		}
		if step == 0 {
			return nil
		}
		if step > math.MaxUint64-number {
			return fmt.Errorf("record %d is followed by one of a number too large", number)
		}
		number += step
		size, err := binary.ReadUvarint(r)
		if err != nil {
			return fmt.Errorf("record %d: %w", number, noEOF(err))
		}
		if size > maxRecord {
			return fmt.Errorf("record %d has %d bytes", number, size)
		}
		body.Reset()
		if _, err := io.CopyN(&body, r, int64(size)); err != nil { // grows with what is there, not with what is said
			return fmt.Errorf("record %d: %w", number, noEOF(err))
		}
		if err := fn(number, body.Bytes()); err != nil {
			return err
		}
	}
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// counted reads, counts and sums.
type counted struct {
	r   *bufio.Reader
	sum hash.Hash
	n   int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.took(p[:n])
	return n, err
}

func (c *counted) ReadByte() (byte, error) {
	b, err := c.r.ReadByte()
	if err == nil {
		c.took([]byte{b})
	}
	return b, err
}

func (c *counted) took(p []byte) {
	c.n += int64(len(p))
	if c.sum != nil {
		c.sum.Write(p)
	}
}

func (c *counted) line() ([]byte, error) {
	var line []byte
	for len(line) < maxHeader {
		b, err := c.ReadByte()
		if err != nil {
			return nil, noEOF(err)
		}
		if b == '\n' {
			return line, nil
		}
		line = append(line, b)
	}
	return nil, fmt.Errorf("line of more than %d bytes", maxHeader)
}
