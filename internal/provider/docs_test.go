package provider_test

import (
	"bytes"
	"context"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/countersign-dev/countersign/internal/provider"
	"github.com/countersign-dev/countersign/internal/telemetry"
	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/verifier/verifiertest"
)

func readDocs(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("..", "..", "docs", "answers.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// constants reads the values of verifier's constants of the type.
func constants(t *testing.T, typeName string) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", "verifier", "reason.go"), nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if name, ok := spec.Type.(*ast.Ident); ok && name.Name == typeName {
			for _, v := range spec.Values {
				s, err := strconv.Unquote(v.(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				list = append(list, s)
			}
		}
		return true
	})
	if len(list) == 0 {
		t.Fatalf("no constants of type %s", typeName)
	}
	slices.Sort(list)
	return list
}

func TestEveryReasonIsDocumentedWithCauseAndCure(t *testing.T) {
	_, docs, _ := strings.Cut(readDocs(t), "\n## Reasons\n")
	docs, _, _ = strings.Cut(docs, "\n## Deadlines\n")
	admitting, undecided, _ := strings.Cut(docs, "\n### Undecided\n")
	var documented []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\| (.+) \\| (.+) \\|$").FindAllStringSubmatch(docs, -1) {
		documented = append(documented, row[1])
		if len(row[2]) < 10 || len(row[3]) < 10 {
			t.Errorf("%s has no cause or no cure: %q", row[1], row[0])
		}
		under := admitting
		if verifier.Reason(row[1]).Undecided() {
			under = undecided
		}
		if !strings.Contains(under, "| `"+row[1]+"` |") {
			t.Errorf("%s is documented under the wrong heading", row[1])
		}
	}
	slices.Sort(documented)
	if diff := cmp.Diff(constants(t, "Reason"), documented); diff != "" {
		t.Errorf("reasons (-in the code +in docs/answers.md):\n%s", diff)
	}
}

func TestEveryStatusIsDocumented(t *testing.T) {
	_, docs, _ := strings.Cut(readDocs(t), "\n## Statuses\n")
	docs, _, _ = strings.Cut(docs, "\n## ")
	var documented []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([A-Z]+)` \\|").FindAllStringSubmatch(docs, -1) {
		documented = append(documented, row[1])
	}
	slices.Sort(documented)
	if diff := cmp.Diff(constants(t, "Status"), documented); diff != "" {
		t.Errorf("statuses (-in the code +in docs/answers.md):\n%s", diff)
	}
}

// A reason that the door does not list would be counted as "other".
func TestEveryReasonIsCounted(t *testing.T) {
	for _, reason := range constants(t, "Reason") {
		metrics := telemetry.NewMetrics(telemetry.Build{})
		server := newServer(t, provider.Options{Metrics: metrics, Select: answering(verifier.Reason(reason))})
		post(t, server, "/v1/verify", "shop.example.com/cart:1.4")
		text, _ := scrape(t, metrics)
		if !regexp.MustCompile(`(?m)^countersign_keys_total\{endpoint="verify",reason="` + reason + `",status="[A-Z]+"\} 1$`).MatchString(text) {
			t.Errorf("%s is not counted under its name", reason)
		}
	}
}

// answering makes the provider answer with the reason, by the way that it has.
func answering(reason verifier.Reason) func(verifier.Request) (*verifier.Chain, verifier.Verdict) {
	because := &verifier.Error{Reason: reason, Message: "so it is"}
	s := newShop()
	subject := s.store.Tag("shop.example.com/cart:1.4", digestOf("cart"))
	statement := verifiertest.Statement{Subject: subject.Digest, Kind: verifier.KindSignature, Signer: "CN=wabbit"}
	switch {
	case reason.Undecided():
		s.chain = verifier.NewBrokenChain([]verifier.Policy{{Name: "p"}}, because)
	case reason == verifier.ReasonExempted, reason == verifier.ReasonSkipped:
		return func(r verifier.Request) (*verifier.Chain, verifier.Verdict) {
			return nil, verifier.Exempt(r.Image, "p", reason, "so it is")
		}
	case reason == verifier.ReasonPolicyNotFound, reason == verifier.ReasonReferenceInvalid, reason == verifier.ReasonDigestRequired:
		return func(r verifier.Request) (*verifier.Chain, verifier.Verdict) {
			return nil, verifier.Refuse(r.Image.String(), because)
		}
	case reason == verifier.ReasonAuditOnly:
		statement.Logged = "so it is"
	case reason != verifier.ReasonTrusted:
		statement.Reason, statement.Message = reason, "so it is"
	}
	s.store.Attach(subject, statement)
	return s.Select
}

// The documented answer is the golden file: what the page shows is what the
// provider sends for the page's request.
func TestTheDocumentedAnswerIsTheRealOne(t *testing.T) {
	blocks := regexp.MustCompile("(?s)```json\n(.*?)```").FindAllStringSubmatch(readDocs(t), -1)
	if len(blocks) != 4 {
		t.Fatalf("%d JSON blocks; two requests and their answers are wanted", len(blocks))
	}
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(time.Date(2026, 11, 21, 9, 30, 0, 123456789, time.UTC)))
		const mallory, wabbit = "CN=mallory,O=Nobody,ST=WA,C=US", "CN=wabbit-networks.io,O=Notary,ST=WA,C=US"
		s := newShop()
		cart := s.store.Tag("shop.example.com/cart:1.4", digestOf("cart"))
		for _, signer := range []string{mallory, wabbit} {
			candidate := s.store.Sign(verifier.Subject{Digest: cart.Digest}, signer)
			candidate.ArtifactType = notaryType
			s.store.List(cart, candidate, nil)
		}
		s.add("shop.example.com/till:2.0")
		s.chain = verifier.NewChain([]verifier.Policy{{Name: "production", Owner: "platform@example.com", Require: &verifier.Check{
			Name: "wabbit", Scheme: "notation", Kind: verifier.KindSignature,
			Verifier: notary{verifiertest.Verifier{Signers: []string{wabbit}}},
		}}}, s.store, verifier.NewMemory(1<<20))
		unreachable := verifier.NewBrokenChain([]verifier.Policy{{Name: "base"}}, &verifier.Error{
			Reason: verifier.ReasonRegistryUnreachable, Message: "the registry cannot be reached", Remedy: "Check its name and the network",
		})
		server := newServer(t, provider.Options{
			Random: bytes.NewReader([]byte("\x4b\xf9\x2f\x35\x77\xb3\x4d\xa6\xa3\xce\x92\x9d\x0e\x0e\x47\x36\x00\xf0\x67\xaa\x0b\xa9\x02\xb7\x4b\xf9\x2f\x35\x77\xb3\x4d\xa6")),
			Select: func(r verifier.Request) (*verifier.Chain, verifier.Verdict) {
				if r.Image.Registry == "registry.example.com" {
					return unreachable, verifier.Verdict{}
				}
				return s.Select(r)
			},
		})
		for i, path := range []string{"/v1/verify", "/v1/mutate"} {
			recorder := httptest.NewRecorder()
			server.ServeHTTP(recorder, httptest.NewRequest(http.MethodPost, path, strings.NewReader(blocks[2*i][1])))
			var want bytes.Buffer
			if err := json.Compact(&want, []byte(blocks[2*i+1][1])); err != nil {
				t.Fatal(err)
			}
			if got := strings.TrimSuffix(recorder.Body.String(), "\n"); got != want.String() {
				var indented bytes.Buffer
				_ = json.Indent(&indented, []byte(got), "", "  ")
				t.Errorf("%s answers the page's request with\n%s", path, &indented)
			}
		}
	})
}

const notaryType = "application/vnd.cncf.notary.signature"

// notary is a fake that looks as the real one does in answers.
type notary struct{ verifiertest.Verifier }

func (notary) Wants() verifier.Wanted            { return verifier.Wanted{ArtifactTypes: []string{notaryType}} }
func (notary) Handles(c verifier.Candidate) bool { return c.ArtifactType == notaryType }

func (n notary) Verify(ctx context.Context, e verifier.Evidence) []verifier.Finding {
	findings := n.Verifier.Verify(ctx, e)
	for i := range findings {
		findings[i].Claims.Signer.Issuer = "CN=Example CA,O=Notary,ST=WA,C=US"
	}
	return findings
}
