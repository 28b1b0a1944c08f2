package watch

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/client-go/rest"
)

// reviewer is an API server as far as it says what who shows a token may do. Tokens:
//
//	all       lists pods everywhere
//	shop      lists pods of the namespace shop
//	denied    is allowed to, and denied it, by two authorizers
//	stranger  is nobody's
//	unheard   may not even ask
//	broken    makes it fail, with an answer that allows
//	silent    has it answer as it does to what is no review
type reviewer struct {
	*httptest.Server

	mu           sync.Mutex // guards all below
	asked        int
	certificates int
	headers      []string
}

func newReviewer(t *testing.T) *reviewer {
	t.Helper()
	r := &reviewer{}
	r.Server = httptest.NewUnstartedServer(http.HandlerFunc(r.review))
	r.TLS = &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequestClientCert}
	r.StartTLS()
	t.Cleanup(r.Close)
	return r
}

func (r *reviewer) review(w http.ResponseWriter, q *http.Request) {
	r.mu.Lock()
	r.asked++
	r.certificates += len(q.TLS.PeerCertificates)
	r.headers = append(r.headers, q.Header.Get("Authorization"))
	r.mu.Unlock()
	var review authorizationv1.SelfSubjectAccessReview
	if err := json.NewDecoder(q.Body).Decode(&review); err != nil || q.URL.Path != "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews" {
		http.Error(w, "no review", http.StatusBadRequest)
		return
	}
	status, namespace := http.StatusCreated, review.Spec.ResourceAttributes.Namespace
	switch strings.TrimPrefix(q.Header.Get("Authorization"), "Bearer ") {
	case "all":
		review.Status.Allowed = true
	case "shop":
		review.Status.Allowed = namespace == "shop"
	case "denied":
		review.Status.Allowed, review.Status.Denied = true, true
	case "unheard":
		status = http.StatusForbidden
	case "broken":
		status, review.Status.Allowed = http.StatusInternalServerError, true
	case "silent":
		status, review.Status.Allowed = http.StatusOK, true
	default:
		status = http.StatusUnauthorized
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(review)
}

// own is a certificate that names the watcher itself.
func own(t *testing.T) (certificate, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

// access asks the reviewer. The process has credentials of its own, as a pod has.
func (r *reviewer) access(t *testing.T) *Access {
	t.Helper()
	certificate, key := own(t)
	a, err := NewAccess(&rest.Config{
		Host: r.URL, BearerToken: "the watcher's own",
		TLSClientConfig: rest.TLSClientConfig{
			CAData:   pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.Certificate().Raw}),
			CertData: certificate, KeyData: key,
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestL25_WhoMaySeeWhatTheAPIServerSays: nothing but its plain yes lets anybody see a
// namespace.
func TestL25_WhoMaySeeWhatTheAPIServerSays(t *testing.T) {
	r := newReviewer(t)
	a := r.access(t)
	for range 2 { // the second time from memory
		for token, want := range map[string]string{
			"all": "pay shop", "shop": "shop", "denied": "", "stranger": "nobody", "unheard": "nobody", "broken": "error", "silent": "error",
		} {
			allowed, err := a.Allowed(t.Context(), token, []string{"pay", "shop"})
			var seen []string
			switch {
			case errors.Is(err, ErrAnonymous):
				seen = []string{"nobody"}
			case err != nil:
				seen = []string{"error"}
			default:
				for _, namespace := range []string{"pay", "shop"} {
					if allowed(namespace) {
						seen = append(seen, namespace)
					}
				}
				if token != "all" && allowed("not asked about") {
					t.Errorf("%s: a namespace that was not asked about", token)
				}
			}
			if got := strings.Join(seen, " "); got != want || err != nil && allowed != nil {
				t.Errorf("%s sees %q, want %q", token, got, want)
			}
		}
	}
	if r.certificates > 0 {
		t.Error("the watcher's own certificate vouches for others")
	}
	for _, header := range r.headers {
		if strings.Contains(header, "own") {
			t.Errorf("asked as %q", header)
		}
	}
}

// TestWhatIsNoTokenIsNotSent: it could be a line of another header.
func TestWhatIsNoTokenIsNotSent(t *testing.T) {
	r := newReviewer(t)
	a := r.access(t)
	for _, token := range []string{"", " ", "all\r\nX-Remote-User: admin", "all\n", "a b", "tök", "\x7f", strings.Repeat("a", maxToken+1)} {
		if _, err := a.Allowed(t.Context(), token, []string{"shop"}); !errors.Is(err, ErrAnonymous) {
			t.Errorf("%.40q: %v", token, err)
		}
	}
	if r.asked > 0 {
		t.Errorf("the API server was asked %d times", r.asked)
	}
}
