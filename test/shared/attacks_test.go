package shared

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/test/binary"
)

// attacks are those of the attack list that caches could make succeed.
const attacks = "^TestL(01|02|03|06|07|08|09|27|28|29|30|36|38|39|41)"

// TestTheAttackListWithCaches runs the list again with content kept on disk, and with
// evidence shared through a server besides.
func TestTheAttackListWithCaches(t *testing.T) {
	if testing.Short() || os.Getenv("CI") != "" {
		t.Skip("it is the tests of other rooms once more, three minutes of them: make e2e runs it elsewhere")
	}
	s := start(t)
	for name, caches := range map[string]string{"on disk": "disk", "shared": "redis://" + s.address} {
		t.Run(name, func(t *testing.T) {
			for dir, packages := range map[string][]string{
				"../..": {"./internal/store/...", "./internal/provider", "./internal/verifier/...", "./cmd/provider"},
				"..":    {"./decisions"},
			} {
				command := exec.CommandContext(t.Context(), "go", append([]string{"test", "-race", "-vet=off", "-count=1", "-short", "-v", "-run", attacks}, packages...)...)
				command.Dir = dir
				command.Env = append(os.Environ(), binary.CachesVariable+"="+caches, "COUNTERSIGN_CACHES_DIR="+t.TempDir())
				out, err := command.CombinedOutput()
				if err != nil {
					t.Errorf("%v\n%s", err, out)
				}
				if n := strings.Count(string(out), "\n--- PASS: TestL"); n < 10 {
					t.Errorf("%s: %d attacks", dir, n)
				} else {
					t.Logf("%s: %d attacks", dir, n)
				}
			}
		})
	}
	if n := s.keys(t, "countersign:1:*"); len(n) < 100 {
		t.Errorf("%d keys were shared: the caches were not on", len(n))
	}
}
