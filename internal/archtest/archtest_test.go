package archtest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/countersign-dev/countersign/"

// rooms is who may import whom. A room that is not listed may not exist.
// cache and flight are beside the heart because both the heart and the store
// remember and share work, and neither may import the other. redact is beside all
// rooms that send HTTP requests.
var rooms = map[string][]string{
	"api/v1beta1":                {},
	"internal/admission":         {},
	"internal/archtest":          {},
	"internal/cache":             {},
	"internal/flight":            {},
	"internal/redact":            {},
	"internal/statefile":         {},
	"internal/verifier":          {"internal/cache", "internal/flight"},
	"internal/verifier/notation": {"internal/verifier", "internal/cache", "internal/flight", "internal/redact"},
	"internal/verifier/sigstore": {"internal/verifier"},
	"internal/store":             {"internal/verifier", "internal/azure", "internal/store/auth", "internal/cache", "internal/flight", "internal/redact", "internal/telemetry"},
	"internal/store/auth":        {"internal/verifier", "internal/azure", "internal/cache", "internal/flight", "internal/redact"},
	"internal/trust":             {"internal/azure", "internal/statefile"},
	"internal/azure":             {"internal/redact"},
	"internal/config":            {"api/v1beta1", "internal/cache", "internal/azure", "internal/verifier", "internal/verifier/notation", "internal/verifier/sigstore", "internal/store", "internal/store/auth", "internal/trust", "internal/ratify", "internal/statefile"},
	"internal/provider":          {"internal/verifier", "internal/cache", "internal/telemetry"},
	"internal/cluster":           {"internal/config", "internal/ratify", "api/v1beta1", "internal/verifier", "internal/telemetry"},
	"internal/watch":             {"internal/verifier", "internal/telemetry", "internal/cache", "internal/admission", "internal/redact"},
	"internal/telemetry":         {},
	"internal/ratify":            {"api/v1beta1"},
	"cmd/provider":               nil, // wires: may import every room
}

// testRooms are imported by tests and by the test module only; they may import
// anything.
var testRooms = []string{
	"internal/verifier/verifiertest",
	"internal/verifier/notation/notationtest",
	"internal/verifier/sigstore/sigstoretest",
	"internal/store/registrytest",
}

// owners names the room of each heavy module. Test files are free.
var owners = map[string][]string{
	"oras.land/oras-go/":                       {"internal/store"},
	"github.com/Azure/":                        {"internal/azure", "internal/store/auth", "internal/trust"},
	"github.com/valkey-io/":                    {"internal/store"},
	"maragu.dev/":                              {"internal/watch"},
	"go.etcd.io/bbolt":                         {"internal/watch"},
	"github.com/aws/":                          {"internal/store/auth"},
	"software.sslmate.com/src/go-pkcs12":       {"internal/trust"},
	"github.com/notaryproject/":                {"internal/verifier/notation"},
	"github.com/sigstore/":                     {"internal/verifier/sigstore"},
	"github.com/secure-systems-lab/":           {"internal/verifier/sigstore"}, // DSSE, as sigstore-go reads it
	"github.com/open-policy-agent/frameworks/": {"internal/provider"},
	"k8s.io/":                                  {"internal/cluster", "internal/watch"},
	"sigs.k8s.io/":                             {"internal/cluster", "internal/watch"},
	"go.opentelemetry.io/":                     {"internal/telemetry"},
	"github.com/prometheus/":                   {"internal/telemetry"},
	"go.yaml.in/yaml/":                         {"internal/config", "internal/ratify"},
	"github.com/spf13/":                        {"cmd/provider"},
	"github.com/distribution/reference":        {"internal/verifier"},
	"golang.org/x/crypto/ocsp":                 {"internal/verifier/notation"},
	"github.com/open-policy-agent/gatekeeper/": {},
	"github.com/google/go-containerregistry/":  {},
	"github.com/sigstore/cosign/":              {},
}

type pkg struct {
	ImportPath, Doc string
	Imports         []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Doc,Imports", module+"...").Output()
	if err != nil {
		t.Fatal(err)
	}
	var list []pkg
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		p.ImportPath = strings.TrimPrefix(p.ImportPath, module)
		list = append(list, p)
	}
}

func TestEveryImportIsAnArrowOfTheDesign(t *testing.T) {
	for _, p := range packages(t) {
		if slices.Contains(testRooms, p.ImportPath) {
			continue
		}
		allowed, known := rooms[p.ImportPath]
		if !known {
			t.Errorf("%s is not a room of the house: add it to the table with a reason, or move it", p.ImportPath)
			continue
		}
		for _, path := range p.Imports {
			if room, ours := strings.CutPrefix(path, module); ours {
				if allowed != nil && !slices.Contains(allowed, room) {
					t.Errorf("%s → %s is no arrow of the design", p.ImportPath, room)
				}
				if slices.Contains(testRooms, room) {
					t.Errorf("%s imports %s, which is for tests", p.ImportPath, room)
				}
				continue
			}
			for prefix, owner := range owners {
				if strings.HasPrefix(path, prefix) && !slices.ContainsFunc(owner, func(o string) bool {
					return p.ImportPath == o || strings.HasPrefix(p.ImportPath, o+"/")
				}) {
					t.Errorf("%s imports %s, which belongs to %v", p.ImportPath, path, owner)
				}
			}
		}
	}
}

func TestTheHeartImportsOnlyTheStandardLibraryAndTheWordsOfOCI(t *testing.T) {
	allowed := []string{
		"github.com/opencontainers/image-spec/specs-go/v1", "github.com/opencontainers/go-digest", "github.com/distribution/reference",
	}
	for _, p := range packages(t) {
		if p.ImportPath != "internal/verifier" && p.ImportPath != "internal/cache" && p.ImportPath != "internal/flight" {
			continue
		}
		for _, path := range p.Imports {
			if strings.Contains(path, ".") && !strings.HasPrefix(path, module) && !slices.Contains(allowed, path) {
				t.Errorf("%s imports %s", p.ImportPath, path)
			}
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range packages(t) {
		if p.Doc == "" {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}

// TestOnlyConfigurationExempts keeps the two ways to make a Verdict without a
// Chain where they belong.
func TestOnlyConfigurationExempts(t *testing.T) {
	mayCall := map[string][]string{"Exempt": {"internal/config"}, "Exemption": {"internal/config"}, "Refuse": {"internal/config", "internal/provider", "cmd/provider"}}
	eachFile(t, func(dir string, file *ast.File) {
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			x, ok := call.X.(*ast.Ident)
			if rooms := mayCall[call.Sel.Name]; ok && x.Name == "verifier" && rooms != nil && !slices.Contains(rooms, dir) {
				t.Errorf("%s calls verifier.%s", dir, call.Sel.Name)
			}
			return true
		})
	})
}

// TestNoInit: what runs before main can be neither ordered nor tested.
func TestNoInit(t *testing.T) {
	eachFile(t, func(dir string, file *ast.File) {
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s has an init function", dir)
			}
		}
	})
}

// eachFile parses the product's Go files, tests left out.
func eachFile(t *testing.T, visit func(dir string, file *ast.File)) {
	t.Helper()
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if rel == "test" || strings.HasPrefix(entry.Name(), ".git") || slices.Contains(testRooms, filepath.ToSlash(rel)) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		visit(filepath.ToSlash(filepath.Dir(rel)), file)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
