package config

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/verifier/verifiertest"
)

func TestGoodDocuments(t *testing.T) {
	paths, err := filepath.Glob("testdata/good/*.[yj]*")
	if err != nil || len(paths) < 5 {
		t.Fatalf("%v, %v", paths, err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			dir := goodDirectory(t)
			s := newBuilder(viewing()).build(revision{
				documents: Parse(filepath.Join(dir, filepath.Base(path)), []byte(withCertificates(string(data)))),
				sources:   newSources(objectsIn(dir)).with(vaultsIn(dir)), dark: func(*Document) bool { return true },
			})
			for _, p := range s.Problems() {
				t.Error(p)
			}
			if len(s.Policies()) == 0 {
				t.Error("no policies")
			}
		})
	}
}

func TestRegistryOptions(t *testing.T) {
	s := everything(t, goodDirectory(t), "", "")
	var got []string
	for _, r := range s.cluster.byName[place{host: "hub.example.com"}][0].policy.store.(*viewed).options.Registries {
		line := fmt.Sprintf("%s plain=%v ca=%v tokens=%v", r.Host, r.PlainHTTP, strings.Contains(string(r.CAs), "BEGIN CERTIFICATE"), r.TokenHosts)
		if r.Credential != nil {
			credential, err := r.Credential.Credential(t.Context(), r.Host)
			line += fmt.Sprintf(" %T: %s, %v", r.Credential, credential, err)
		}
		got = append(got, line)
	}
	if diff := cmp.Diff([]string{
		"shop.example.com plain=false ca=true tokens=[] *auth.Static: the password of robot, <nil>",
		"shop.example.com:5000 plain=true ca=false tokens=[]",
		"hub.example.com plain=false ca=true tokens=[] *auth.DockerConfig: no credential, <nil>",
		"vault.example.com plain=false ca=false tokens=[tokens.example.com:8443] *auth.Static: the password of vault, <nil>",
		"hub.example.net plain=false ca=false tokens=[]",
		"mirror.example.com plain=false ca=false tokens=[] *auth.Static: an access token, <nil>",
		"token.example.com plain=false ca=false tokens=[] *auth.Static: an access token, <nil>",
		"pull.example.com plain=false ca=true tokens=[] *auth.PullSecret: no credential, <nil>",
		"pods.example.com plain=false ca=false tokens=[] *auth.PodSecrets: no credential, REGISTRY_UNAUTHORIZED: the pull secrets of pods are not read here",
	}, got); diff != "" {
		t.Error(diff)
	}
}

// TestSecretsFromFiles: a file's last line break is no part of a secret.
func TestSecretsFromFiles(t *testing.T) {
	dir := goodDirectory(t)
	fromFile := describe(everything(t, dir, "", ""))
	inline := describe(everything(t, dir, "password: {file: password}", "password: {inline: hunter2}"))
	if fromFile != inline {
		t.Error("the password of the file is another")
	}
}

// TestWhoseRegistryOptionsCount: the view of the first policy that has options
// for the host; the cluster's where a TrustPolicy adds, its own where it replaces.
func TestWhoseRegistryOptionsCount(t *testing.T) {
	env := testEnvironment()
	env.View = func(o store.ViewOptions) (verifier.Store, error) {
		var hosts []string
		for _, r := range o.Registries {
			hosts = append(hosts, r.Host)
		}
		asked := &verifier.Error{Reason: verifier.ReasonRegistryUnreachable, Message: "view of " + strings.Join(hosts, ",")}
		return &verifiertest.Store{BeforeResolve: func(context.Context, verifier.Reference) error { return asked }}, nil
	}
	spec := func(name, images, hosts, more string) string {
		registries := ""
		if hosts != "" {
			registries = "  registries: [{host: " + strings.ReplaceAll(hosts, " ", "}, {host: ") + "}]\n"
		}
		kind, require := "ClusterTrustPolicy", "require: {name: a, notation: {level: strict, trustStores: {ca: [{file: ca.crt}]}, trustedIdentities: ['*']}}"
		if strings.Contains(name, "namespace") {
			kind = "TrustPolicy"
		}
		if strings.Contains(more, "require") {
			require, more = more, ""
		}
		return "---\napiVersion: countersign.dev/v1beta1\nkind: " + kind + "\nmetadata: {name: " + name + "}\nspec:\n  images: [" + images + "]\n" + registries + "  " + require + "\n" + more
	}
	text := spec("a", `"a.example/x-*", "b.example/x-*"`, "a.example", "") +
		spec("b", `"a.example/*-y", "b.example/*-y"`, "a.example b.example", "") +
		spec("lent", `"lent.example/**"`, "lent.example", "  delegate: true\n") +
		spec("skip", `"skip.example/**"`, "skip.example", "require: {skip: {reason: a test}}") +
		spec("ours, namespace: team", `"**/**"`, "a.example skip.example lent.example other.example", "")
	s := newBuilder(env).build(revision{
		documents: Parse(filepath.Join(goodDirectory(t), "p.yaml"), []byte(text)), sources: newSources(nil), dark: func(*Document) bool { return true },
	})
	for _, p := range s.Problems() {
		t.Error(p)
	}
	for key, want := range map[string]string{
		"a.example/x-y":        "a.example",
		"b.example/x-y":        "a.example,b.example",
		"[team]a.example/x-y":  "a.example",
		"[team]lent.example/x": "a.example,skip.example,lent.example,other.example",
		"lent.example/x":       "lent.example",
		"[team]skip.example/x": "skip.example",
	} {
		namespace, image := "", key
		if rest, ok := strings.CutPrefix(key, "["); ok {
			namespace, image, _ = strings.Cut(rest, "]")
		}
		ref, err := verifier.ParseReference(image)
		if err != nil {
			t.Fatal(err)
		}
		chain, verdict := s.For(verifier.Request{Namespace: namespace, Image: ref})
		if chain == nil {
			t.Errorf("%s: %s", key, verdict.Message())
			continue
		}
		if _, err := chain.Verify(t.Context(), verifier.Request{Image: ref}); err == nil || !strings.HasSuffix(verifier.AsError(err).Message, "view of "+want) {
			t.Errorf("%s: %v, want the view of %s", key, err, want)
		}
	}
}

func TestOneDocumentThatCrashesIsAlone(t *testing.T) {
	env := testEnvironment()
	env.View = func(o store.ViewOptions) (verifier.Store, error) {
		if len(o.Registries) > 0 {
			panic("a bug")
		}
		return &verifiertest.Store{}, nil
	}
	text := "---\napiVersion: countersign.dev/v1beta1\nkind: ClusterTrustPolicy\nmetadata: {name: %}\nspec:\n  images: [%.example/**]\n  require: {skip: {reason: a test}}\n"
	s := newBuilder(env).build(revision{
		documents: Parse("p.yaml", []byte(strings.ReplaceAll(text, "%", "a")+strings.ReplaceAll(text, "%", "b")+"  registries: [{host: b.example}]\n")),
		sources:   newSources(nil), dark: func(*Document) bool { return true },
	})
	if _, verdict := s.For(verifier.Request{Image: verifier.Reference{Registry: "a.example", Repository: "x"}}); !verdict.Success() {
		t.Errorf("%s", verdict.Message())
	}
	chain, _ := s.For(verifier.Request{Image: verifier.Reference{Registry: "b.example", Repository: "x"}})
	if chain == nil {
		t.Fatal("decided")
	}
	if _, err := chain.Verify(t.Context(), verifier.Request{Image: verifier.Reference{Registry: "b.example", Repository: "x"}}); verifier.AsError(err).Reason != verifier.ReasonInternal {
		t.Errorf("%v", err)
	}
}
