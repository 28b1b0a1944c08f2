package config_test

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/countersign-dev/countersign/internal/config"
	"github.com/countersign-dev/countersign/internal/statefile"
	"github.com/countersign-dev/countersign/internal/verifier/notation/notationtest"
)

// held is a cluster's Secrets and ConfigMaps, and how often each was read.
type held map[config.Object]map[string][]byte

func (held) Namespace() string { return "countersign" }

func (h held) ReadObject(name config.Object) (map[string][]byte, error) {
	data, ok := h[name]
	switch {
	case name.Namespace == "forbidden":
		return nil, fs.ErrPermission
	case !ok:
		return nil, fs.ErrNotExist
	}
	return data, nil
}

// object makes an object of the cluster of a document as people write it.
func object(t testing.TB, text string) *config.Document {
	t.Helper()
	return config.ParseObject(content(t, text))
}

// content is a document as people write it, decoded.
func content(t testing.TB, text string) map[string]any {
	t.Helper()
	var object map[string]any
	if err := yaml.Unmarshal([]byte(text), &object); err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	var decoded map[string]any
	if err := json.Unmarshal(data, &decoded); err != nil {
		t.Fatal(err)
	}
	return decoded
}

// signedBy requires a signer whose root is at a source: "secret: {name: …}".
func signedBy(source string) string {
	return "require: {name: signed, notation: {level: strict, trustStores: {ca: [{" + source + "}]}, trustedIdentities: ['*']}}"
}

func root() []byte { return notationtest.NewRoot(notationtest.CertificateOptions{}).PEM() }

func objects(t testing.TB, reader config.ObjectReader, lastGood string) *config.Objects {
	t.Helper()
	return config.NewObjects(config.ObjectsOptions{Environment: environment(t), Reader: reader, LastGood: lastGood})
}

func TestNothingIsDecidedBeforeObjectsAreRead(t *testing.T) {
	o := objects(t, held{}, "")
	if err := o.Ready(); err == nil || !strings.Contains(err.Error(), "have not been read from the cluster yet") {
		t.Errorf("ready: %v", err)
	}
	for _, namespace := range []string{"", "shop"} {
		if got := decision(t, o.Snapshot(), namespace, "shop.example.com/cart:1"); !strings.HasSuffix(got, "POLICY_INVALID") {
			t.Error(got)
		}
	}
	o.Update(t.Context(), nil)
	if err := o.Ready(); err != nil {
		t.Error(err)
	}
	if got := decision(t, o.Snapshot(), "shop", "shop.example.com/cart:1"); got != "REFUSED POLICY_NOT_FOUND" {
		t.Error(got)
	}
}

// TestWhatADocumentRefersTo in the cluster: what is told where it cannot be had,
// and that it is used once it can.
func TestWhatADocumentRefersTo(t *testing.T) {
	for name, c := range map[string]struct {
		document, problem string
	}{
		"not there":         {cluster("p", `"a.example/**"`, signedBy("secret: {name: roots, key: ca.crt}")), "ClusterTrustPolicy p: spec.require.notation.trustStores.ca[0].secret: Secret countersign/roots does not exist. Create it; the policy will use it at once"},
		"no such key":       {cluster("p", `"a.example/**"`, signedBy("configMap: {name: given, key: ca.pem}")), `ClusterTrustPolicy p: spec.require.notation.trustStores.ca[0].configMap: ConfigMap countersign/given has no key "ca.pem". Add the key, or correct its name`},
		"not allowed":       {cluster("p", `"a.example/**"`, signedBy("secret: {name: roots, key: ca.crt, namespace: forbidden}")), "ClusterTrustPolicy p: spec.require.notation.trustStores.ca[0].secret: Secret forbidden/roots may not be read. Add its namespace to the chart's rbac.objectNamespaces, or move it to one that is there"},
		"no directory":      {cluster("p", `"a.example/**"`, signedBy("file: ca.crt")), `ClusterTrustPolicy p: spec.require.notation.trustStores.ca[0].file: "ca.crt" starts nowhere: an object has no directory. Write the path from the root, or put it into a Secret or a ConfigMap`},
		"a tenant's file":   {tenant("team", "p", `"a.example/**"`, signedBy("file: /var/run/secrets/kubernetes.io/serviceaccount/token")), "TrustPolicy team/p: spec.require.notation.trustStores.ca[0].file: a TrustPolicy reads no files of the provider. Put it into a Secret or a ConfigMap of its namespace"},
		"a tenant's path":   {tenant("team", "p", `"a.example/**"`, "registries: [{host: a.example, auth: {dockerConfig: {path: /root/.docker/config.json}}}]", skip("x")), "TrustPolicy team/p: spec.registries[0].auth.dockerConfig.path: a TrustPolicy reads no files of the provider. Put it into a Secret or a ConfigMap of its namespace"},
		"another namespace": {tenant("team", "p", `"a.example/**"`, signedBy("secret: {name: given, key: ca.crt, namespace: countersign}")), "TrustPolicy team/p: spec.require.notation.trustStores.ca[0].secret.namespace: a TrustPolicy reaches its own namespace only. Delete it, and put a copy into namespace team"},
		"the provider's":    {tenant("team", "p", `"a.example/**"`, signedBy("secret: {name: given, key: ca.crt}")), "TrustPolicy team/p: spec.require.notation.trustStores.ca[0].secret: Secret team/given does not exist. Create it; the policy will use it at once"},
		"credential helper": {cluster("p", `"a.example/**"`, "registries: [{host: a.example, auth: {pullSecret: {name: helper}}}]", skip("x")), "ClusterTrustPolicy p: spec.registries[0].auth.pullSecret: Secret countersign/helper: credential helpers do not run for a Secret. Make it with kubectl create secret docker-registry"},
	} {
		t.Run("L25/"+name, func(t *testing.T) {
			o := objects(t, held{
				{Kind: config.KindSecret, Namespace: "countersign", Name: "given"}:    {"ca.crt": root()},
				{Kind: config.KindConfigMap, Namespace: "countersign", Name: "given"}: {"ca.crt": root()},
				{Kind: config.KindSecret, Namespace: "countersign", Name: "helper"}:   {".dockerconfigjson": []byte(`{"credHelpers": {"a.example": "evil"}}`)},
			}, "")
			problems := o.Update(t.Context(), []*config.Document{object(t, c.document)}).Problems()
			if len(problems) != 1 || problems[0].String() != c.problem {
				t.Errorf("%q\nwant %s", problems, c.problem)
			}
		})
	}
}

// TestL31_ASecretThatIsGoneKeepsTheLastGood: what cannot be read any more changes
// nothing, and what can be read at last is used at once.
func TestL31_ASecretThatIsGoneKeepsTheLastGood(t *testing.T) {
	roots := config.Object{Kind: config.KindSecret, Namespace: "countersign", Name: "roots"}
	reader := held{}
	o := objects(t, reader, "")
	documents := []*config.Document{object(t, cluster("p", `"a.example/**"`, signedBy("secret: {name: roots, key: ca.crt}")))}
	if got := decision(t, o.Update(t.Context(), documents), "team", "a.example/cart:1"); got != "p: KEYS_UNAVAILABLE" {
		t.Error(got)
	}
	reader[roots] = map[string][]byte{"ca.crt": root()}
	if got := decision(t, o.Update(t.Context(), documents), "team", "a.example/cart:1"); got != "p" {
		t.Error(got)
	}
	delete(reader, roots) // its last good version stays
	s := o.Update(t.Context(), documents)
	if got := decision(t, s, "team", "a.example/cart:1"); got != "p" || s.Policies()[0].State != config.StateLastGood {
		t.Error(got, s.Policies())
	}
}

// TestABrokenObjectLeavesTheOthersAtWork, and keeps its own last good version.
func TestABrokenObjectLeavesTheOthersAtWork(t *testing.T) {
	o := objects(t, held{}, "")
	good, other := object(t, cluster("good", `"a.example/**"`, skip("a"))), object(t, cluster("other", `"b.example/**"`, skip("b")))
	broken := object(t, strings.Replace(cluster("other", `"b.example/**"`, skip("b")), "skip", "skp", 1))
	o.Update(t.Context(), []*config.Document{good, broken})
	for image, want := range map[string]string{"a.example/x": "EXEMPT SKIPPED good", "b.example/x": "other: POLICY_INVALID"} {
		if got := decision(t, o.Snapshot(), "team", image); got != want {
			t.Errorf("%s: %s, want %s", image, got, want)
		}
	}
	o.Update(t.Context(), []*config.Document{good, other})
	o.Update(t.Context(), []*config.Document{good, broken})
	if got := decision(t, o.Snapshot(), "team", "b.example/x"); got != "EXEMPT SKIPPED other" {
		t.Error(got)
	}
	if p := o.Snapshot().Problems()[0].String(); p != "ClusterTrustPolicy other: spec.require.skp: unknown field. Did you mean skip?" {
		t.Error(p)
	}
}

// TestARestartWithoutAPIServer serves what was in force, Secrets included.
func TestARestartWithoutAPIServer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "last-good")
	reader := held{{Kind: config.KindSecret, Namespace: "countersign", Name: "roots"}: {"ca.crt": root(), "other": []byte("secret")}}
	before := objects(t, reader, path)
	before.Update(t.Context(), []*config.Document{
		object(t, cluster("p", `"a.example/**"`, signedBy("secret: {name: roots, key: ca.crt}"))), object(t, cluster("q", `"b.example/**"`, skip("b"))),
	})
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info.Mode(), err)
	}
	// The latest version of q is wrong, and the Secret is gone: what is in force is kept.
	reader2 := held{}
	before.Update(t.Context(), []*config.Document{
		object(t, cluster("p", `"a.example/**"`, signedBy("secret: {name: roots, key: ca.crt}"))),
		object(t, strings.Replace(cluster("q", `"b.example/**"`, skip("b")), "skip", "skp", 1)),
	})
	after := objects(t, reader2, path)
	if err := after.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	for image, want := range map[string]string{"a.example/x": "p", "b.example/x": "EXEMPT SKIPPED q", "c.example/x": "REFUSED POLICY_NOT_FOUND"} {
		if got := decision(t, after.Snapshot(), "team", image); got != want {
			t.Errorf("%s: %s, want %s", image, got, want)
		}
	}
	if after.Ready() != nil {
		t.Error(after.Ready())
	}
	after.Update(t.Context(), nil)
	if err := after.Restore(t.Context()); err == nil {
		t.Error("restored over what the cluster says")
	}
	if got := decision(t, after.Snapshot(), "team", "b.example/x"); got != "REFUSED POLICY_NOT_FOUND" {
		t.Error(got)
	}
}

// TestTheFileOfAnEarlierReleaseIsRead: it says neither UID nor age.
func TestTheFileOfAnEarlierReleaseIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "last-good")
	document, err := json.Marshal(content(t, cluster("p", `"a.example/**"`, skip("a"))))
	if err != nil {
		t.Fatal(err)
	}
	if err := statefile.Write(path, []byte(`{"version":1,"documents":[`+string(document)+`],"objects":null}`)); err != nil {
		t.Fatal(err)
	}
	o := objects(t, held{}, path)
	if err := o.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	decisions(t, o.Snapshot(), map[string]string{"a.example/x": "EXEMPT SKIPPED p", "b.example/x": "REFUSED POLICY_NOT_FOUND"})
}

// TestL42_ARestartKnowsWhatIsBroken: an object that never was good claims its images
// without API server too.
func TestL42_ARestartKnowsWhatIsBroken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "last-good")
	objects(t, held{}, path).Update(t.Context(), []*config.Document{
		object(t, cluster("strict", `"a.example/**"`, "mod: audit")), object(t, cluster("wide", `"**/**"`, skip("b"))),
	})
	o := objects(t, held{}, path)
	if err := o.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	decisions(t, o.Snapshot(), map[string]string{"a.example/x": "strict: POLICY_INVALID", "b.example/x": "EXEMPT SKIPPED wide"})
}

// TestL42_ARestartWithoutWhatItRefersTo: the Secret of a good version is gone, and its
// content counts as it did before the restart; also after another one.
func TestL42_ARestartWithoutWhatItRefersTo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "last-good")
	roots := config.Object{Kind: config.KindSecret, Namespace: "countersign", Name: "roots"}
	documents := []*config.Document{object(t, cluster("p", `"a.example/**"`, signedBy("secret: {name: roots, key: ca.crt}")))}
	objects(t, held{roots: {"ca.crt": root()}}, path).Update(t.Context(), documents)
	for range 2 {
		s := objects(t, held{}, path).Update(t.Context(), documents)
		decisions(t, s, map[string]string{"a.example/x": "p"})
		if s.Policies()[0].State != config.StateLastGood {
			t.Errorf("%+v", s.Policies())
		}
	}
}

// TestADamagedFileRestoresNothing: half a file is no policy.
func TestADamagedFileRestoresNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "last-good")
	objects(t, held{}, path).Update(t.Context(), []*config.Document{object(t, cluster("q", `"b.example/**"`, skip("b")))})
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"cut short": whole[:len(whole)-1], "changed": []byte(strings.Replace(string(whole), "b.example", "c.example", 1)), "empty": {},
		"another version": nil,
	} {
		if data != nil {
			write(t, path, string(data))
		} else if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		o := objects(t, held{}, path)
		if err := o.Restore(t.Context()); err == nil || o.Ready() == nil {
			t.Errorf("%s: restored", name)
		}
	}
}

// TestTheLastGoodIsRestoredInTime, and not before the cluster had its chance.
func TestTheLastGoodIsRestoredInTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "last-good")
	objects(t, held{}, path).Update(t.Context(), []*config.Document{object(t, cluster("q", `"b.example/**"`, skip("b")))})
	synctest.Test(t, func(t *testing.T) {
		o := objects(t, held{}, path)
		done := make(chan error)
		go func() { done <- o.Run(t.Context()) }()
		t.Cleanup(func() {
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
		time.Sleep(9 * time.Second)
		if o.Ready() == nil {
			t.Error("restored at once")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if err := o.Ready(); err != nil {
			t.Error(err)
		}
	})
}

// TestL42_AnObjectWhoseImagesCannotBeRead may be about any image where it applies,
// after a restart as before, and the provider goes on answering.
func TestL42_AnObjectWhoseImagesCannotBeRead(t *testing.T) {
	good := object(t, cluster("good", `"a.example/**"`, skip("a")))
	for name, c := range map[string]struct {
		document string
		answers  map[string]string // by namespace
	}{
		"a host that is none":      {cluster("odd", `"a..b/**", "c.example/x**y"`, skip("b")), map[string]string{"": "odd: POLICY_INVALID", "team": "odd: POLICY_INVALID"}},
		"no images":                {cluster("odd", ``, skip("b")), map[string]string{"": "odd: POLICY_INVALID", "team": "odd: POLICY_INVALID"}},
		"a number":                 {cluster("odd", `5`, skip("b")), map[string]string{"": "odd: POLICY_INVALID", "team": "odd: POLICY_INVALID"}},
		"in one namespace":         {cluster("odd", `"a..b/**"`, "namespaces: [prod]", skip("b")), map[string]string{"": "odd: POLICY_INVALID", "team": "EXEMPT SKIPPED good", "prod": "odd: POLICY_INVALID"}},
		"namespaces that are none": {cluster("odd", `"a..b/**"`, "namespaces: [5]", skip("b")), map[string]string{"": "odd: POLICY_INVALID", "team": "odd: POLICY_INVALID"}},
		"of a tenant":              {tenant("prod", "odd", `"a..b/**"`, skip("b")), map[string]string{"": "EXEMPT SKIPPED good", "team": "EXEMPT SKIPPED good", "prod": "prod/odd: POLICY_INVALID"}},
		"a part that can be read":  {cluster("odd", `"c.example/x**y"`, skip("b")), map[string]string{"": "EXEMPT SKIPPED good", "team": "EXEMPT SKIPPED good"}},
	} {
		t.Run(name, func(t *testing.T) {
			documents := []*config.Document{good, object(t, c.document)}
			o := objects(t, held{}, "")
			for _, when := range []string{"at first", "again"} {
				s := o.Update(t.Context(), documents)
				if err := s.Ready(); err != nil {
					t.Errorf("%s: %v", when, err)
				}
				for namespace, want := range c.answers {
					if got := decision(t, s, namespace, "a.example/x"); got != want {
						t.Errorf("%s: [%s] %s, want %s", when, namespace, got, want)
					}
				}
				for _, status := range s.Policies() {
					if status.Name == "odd" && status.Boundless != (name != "a part that can be read") {
						t.Errorf("%+v", status)
					}
				}
			}
		})
	}
}
