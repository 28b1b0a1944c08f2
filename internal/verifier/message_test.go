package verifier_test

import (
	"context"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
	"pgregory.net/rapid"

	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/verifier/verifiertest"
)

func TestTheDenialReadsAsInTheDesign(t *testing.T) {
	store := &verifiertest.Store{}
	subject := store.Tag(image, digestA)
	chain := verifier.NewChain([]verifier.Policy{{
		Name: "production", Owner: "platform@example.com",
		Require: verifier.Any{verifiertest.Check("wabbit", "w"), verifiertest.Check("ci", "c")},
	}}, store, verifier.NewMemory(1<<20))
	v, err := chain.Verify(t.Context(), verifier.Request{Image: subject.Reference})
	if err != nil {
		t.Fatal(err)
	}
	want := image + " (" + digestA.Encoded()[:12] + "): no signature found; policy production wants wabbit or ci. Sign this digest, or ask platform@example.com"
	if v.Message() != want {
		t.Errorf("got  %s\nwant %s", v.Message(), want)
	}
	if v.Remedy() != "Sign this digest" {
		t.Errorf("remedy %q", v.Remedy())
	}
}

func TestAMessageIsBoundedPrintableAndNamesTheImage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.Custom(func(t *rapid.T) string {
			return strings.Repeat(rapid.String().Draw(t, "part"), rapid.IntRange(1, 60).Draw(t, "times"))
		})
		path := rapid.StringMatching(`[a-z0-9]{1,60}(/[a-z0-9]{1,60}){0,3}`).Draw(t, "path")
		ref, err := verifier.ParseReference("registry.example.com/" + path + "@" + digest.FromString(path).String())
		if err != nil {
			t.Fatal(err)
		}
		store := &verifiertest.Store{}
		subject := verifier.Subject{Reference: ref, Digest: ref.Digest}
		store.Attach(subject, verifiertest.Statement{Reason: verifier.ReasonSignatureInvalid, Message: text.Draw(t, "cause"), Signer: "x"})
		chain := verifier.NewChain([]verifier.Policy{{
			Name: text.Draw(t, "name"), Owner: text.Draw(t, "owner"), HelpURL: text.Draw(t, "help"),
			Require: verifiertest.Check(text.Draw(t, "check"), "w"),
		}}, store, verifier.NewMemory(1<<20))
		v, err := chain.Verify(context.Background(), verifier.Request{Image: ref})
		if err != nil {
			t.Fatal(err)
		}
		m := v.Message()
		if len(m) > 240 || !utf8.ValidString(m) {
			t.Errorf("%d bytes: %q", len(m), m)
		}
		if strings.ContainsAny(m, "\n\r\x00\x1b\u2028") {
			t.Errorf("forgeable: %q", m)
		}
		if !strings.HasPrefix(m, "registry.example.com/") || !strings.Contains(m, "("+ref.Digest.Encoded()[:12]+"): ") {
			t.Errorf("does not name the image and digest: %q", m)
		}
	})
}

func TestAMessageOfAnyLengthFits(t *testing.T) {
	ref, err := verifier.ParseReference("registry.example.com/cart@" + digest.FromString("cart").String())
	if err != nil {
		t.Fatal(err)
	}
	for length := range 600 {
		store := &verifiertest.Store{}
		store.Attach(verifier.Subject{Reference: ref, Digest: ref.Digest}, verifiertest.Statement{
			Reason: verifier.ReasonSignatureInvalid, Message: strings.Repeat("x", length), Signer: "x",
		})
		chain := verifier.NewChain([]verifier.Policy{{Name: "p", Require: verifiertest.Check("c", "w")}}, store, verifier.NewMemory(1<<20))
		v, err := chain.Verify(context.Background(), verifier.Request{Image: ref})
		if err != nil {
			t.Fatal(err)
		}
		if got := len(v.Message()); got > 240 || length > 240 && got < 230 {
			t.Fatalf("a cause of %d bytes makes a message of %d", length, got)
		}
	}
}
