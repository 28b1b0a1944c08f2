package notationtest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"io"
	"math/big"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/notaryproject/tspclient-go"
)

// TSA is a timestamping authority. It is a Timestamper for notation-go and an
// http.Handler for everyone else.
type TSA struct {
	// Certificate is from NewTSA.
	Certificate *Certificate
	// Time is what it says the time is; zero is now.
	Time time.Time
	// Accuracy in whole seconds; zero says none.
	Accuracy time.Duration
	// Extra are certificates that a token brings along for nothing.
	Extra []*x509.Certificate
}

// The identifiers of RFC 5652 (CMS), RFC 5035 (signing certificate), RFC 3161
// and of the algorithms that a token is made of.
const (
	idSignedData           = "1.2.840.113549.1.7.2"
	idContentType          = "1.2.840.113549.1.9.3"
	idMessageDigest        = "1.2.840.113549.1.9.4"
	idTSTInfo              = "1.2.840.113549.1.9.16.1.4"
	idSigningCertificateV2 = "1.2.840.113549.1.9.16.2.47"
	idSHA256               = "2.16.840.1.101.3.4.2.1"
	idSHA256WithRSA        = "1.2.840.113549.1.1.11"
	idECDSAWithSHA256      = "1.2.840.10045.4.3.2"
	idTimestamping         = "1.3.6.1.5.5.7.3.8"
	idExtKeyUsage          = "2.5.29.37"
	idTestPolicy           = "1.3.6.1.4.1.99999.1"
)

func oid(dotted string) asn1.ObjectIdentifier {
	var id asn1.ObjectIdentifier
	for part := range strings.SplitSeq(dotted, ".") {
		id = append(id, must(strconv.Atoi(part)))
	}
	return id
}

type attribute struct {
	Type   asn1.ObjectIdentifier
	Values asn1.RawValue `asn1:"set"`
}

type issuerAndSerial struct {
	Issuer       asn1.RawValue
	SerialNumber *big.Int
}

type signerInfo struct {
	Version            int
	SID                issuerAndSerial
	DigestAlgorithm    pkix.AlgorithmIdentifier
	SignedAttributes   []attribute `asn1:"set,tag:0"`
	SignatureAlgorithm pkix.AlgorithmIdentifier
	Signature          []byte
}

type encapsulated struct {
	ContentType asn1.ObjectIdentifier
	Content     []byte `asn1:"explicit,tag:0"`
}

type signedData struct {
	Version          int
	DigestAlgorithms []pkix.AlgorithmIdentifier `asn1:"set"`
	Content          encapsulated
	Certificates     asn1.RawValue
	SignerInfos      []signerInfo `asn1:"set"`
}

type contentInfo struct {
	ContentType asn1.ObjectIdentifier
	Content     asn1.RawValue
}

// Token stamps the content: an RFC 3161 TimeStampToken with its whole chain.
func (t *TSA) Token(content []byte) []byte {
	sum := sha256.Sum256(content)
	return t.token(tspclient.MessageImprint{
		HashAlgorithm: pkix.AlgorithmIdentifier{Algorithm: oid(idSHA256), Parameters: asn1.NullRawValue},
		HashedMessage: sum[:],
	}, nil)
}

func (t *TSA) token(imprint tspclient.MessageImprint, nonce *big.Int) []byte {
	at := t.Time
	if at.IsZero() {
		at = time.Now()
	}
	info := must(asn1.Marshal(tspclient.TSTInfo{
		Version:        1,
		Policy:         oid(idTestPolicy),
		MessageImprint: imprint,
		SerialNumber:   must(rand.Int(rand.Reader, big.NewInt(1<<62))),
		GenTime:        at.UTC().Truncate(time.Second),
		Accuracy:       tspclient.Accuracy{Seconds: int(t.Accuracy / time.Second)},
		Nonce:          nonce,
	}))

	infoSum := sha256.Sum256(info)
	certSum := sha256.Sum256(t.Certificate.Raw)
	// RFC 5035: SigningCertificateV2 { certs { { certHash } } }, SHA-256 by default.
	signingCertificate := struct {
		Certificates []struct{ Hash []byte }
	}{[]struct{ Hash []byte }{{certSum[:]}}}
	attributes := []attribute{
		newAttribute(oid(idContentType), oid(idTSTInfo)),
		newAttribute(oid(idMessageDigest), infoSum[:]),
		newAttribute(oid(idSigningCertificateV2), signingCertificate),
	}
	toSign := sha256.Sum256(must(asn1.MarshalWithParams(attributes, "set")))

	algorithm := pkix.AlgorithmIdentifier{Algorithm: oid(idSHA256WithRSA), Parameters: asn1.NullRawValue}
	if _, ok := t.Certificate.Key.(*ecdsa.PrivateKey); ok {
		algorithm = pkix.AlgorithmIdentifier{Algorithm: oid(idECDSAWithSHA256)}
	}
	var certificates []byte
	for _, c := range append(t.Certificate.Chain(), t.Extra...) {
		certificates = append(certificates, c.Raw...)
	}
	digestAlgorithm := pkix.AlgorithmIdentifier{Algorithm: oid(idSHA256), Parameters: asn1.NullRawValue}
	signed := must(asn1.Marshal(signedData{
		Version:          3,
		DigestAlgorithms: []pkix.AlgorithmIdentifier{digestAlgorithm},
		Content:          encapsulated{oid(idTSTInfo), info},
		Certificates:     asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: certificates},
		SignerInfos: []signerInfo{{
			Version: 1,
			SID: issuerAndSerial{
				Issuer:       asn1.RawValue{FullBytes: t.Certificate.RawIssuer},
				SerialNumber: t.Certificate.SerialNumber,
			},
			DigestAlgorithm:    digestAlgorithm,
			SignedAttributes:   attributes,
			SignatureAlgorithm: algorithm,
			Signature:          must(t.Certificate.Key.Sign(rand.Reader, toSign[:], crypto.SHA256)),
		}},
	}))
	return must(asn1.Marshal(contentInfo{
		ContentType: oid(idSignedData),
		Content:     asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: signed},
	}))
}

func newAttribute(id asn1.ObjectIdentifier, value any) attribute {
	return attribute{id, asn1.RawValue{Tag: asn1.TagSet, IsCompound: true, Bytes: must(asn1.Marshal(value))}}
}

// Timestamp answers a request as a tspclient.Timestamper does.
func (t *TSA) Timestamp(_ context.Context, request *tspclient.Request) (*tspclient.Response, error) {
	if err := request.Validate(); err != nil {
		return nil, err
	}
	return &tspclient.Response{
		TimestampToken: asn1.RawValue{FullBytes: t.token(request.MessageImprint, request.Nonce)},
	}, nil
}

// ServeHTTP answers as RFC 3161 section 3.4 has it.
func (t *TSA) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<16))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var request tspclient.Request
	if err := request.UnmarshalBinary(bytes.TrimSpace(body)); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	response, err := t.Timestamp(r.Context(), &request)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/timestamp-reply")
	_, _ = w.Write(must(response.MarshalBinary()))
}
