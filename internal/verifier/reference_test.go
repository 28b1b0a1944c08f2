package verifier_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/internal/verifier"
)

func TestL20_EverySpellingOfOneImageIsOneReference(t *testing.T) {
	const sum = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for want, spellings := range map[string][]string{
		"docker.io/library/nginx:latest":       {"nginx", "nginx:latest", "docker.io/nginx", "docker.io/library/nginx", "index.docker.io/library/nginx:latest", "library/nginx"},
		"docker.io/grafana/grafana:latest":     {"grafana/grafana", "index.docker.io/grafana/grafana", "docker.io/grafana/grafana:latest"},
		"shop.example.com/cart:1":              {"shop.example.com/cart:1", "SHOP.Example.com/cart:1", "shop.example.com:443/cart:1"},
		"shop.example.com:5000/cart:latest":    {"shop.example.com:5000/cart", "Shop.example.com:5000/cart:latest"},
		"shop.example.com/cart@" + sum:         {"shop.example.com/cart@" + sum, "shop.example.com:443/cart@" + sum},
		"shop.example.com/cart:1@" + sum:       {"shop.example.com/cart:1@" + sum},
		"localhost/cart:latest":                {"localhost/cart"},
		"[2001:db8::1]:5000/cart:latest":       {"[2001:db8::1]:5000/cart"},
		"attacker.example/registry.k8s.io/x:1": {"attacker.example/registry.k8s.io/x:1"},
		"registry.k8s.io.attacker.example/x:1": {"registry.k8s.io.attacker.example/x:1"},
	} {
		for _, spelling := range spellings {
			ref, err := verifier.ParseReference(spelling)
			if err != nil || ref.String() != want {
				t.Errorf("%s: got %s (%v), want %s", spelling, ref, err, want)
			}
		}
	}
}

func TestWhatIsNoReferenceIsRefused(t *testing.T) {
	for _, s := range []string{
		"", " ", "nginx ", " nginx", "nginx:la test", "NGINX", "shop.example.com./cart", "shop.example.com/Cart", "user@registry.k8s.io/x",
		"https://shop.example.com/cart", "shop.example.com/cart@sha256:12", "shop.example.com/cart@md5:0123456789abcdef0123456789abcdef",
		"shop.example.com/../cart", "shop.example.com//cart", "nginx\n", "nginx\x00", "ngïnx", strings.Repeat("a", 2000), "ctr/" + strings.Repeat("a", 255),
		strings.Repeat("0", 64), "A/b", "A:443/b", "docker.io:443/nginx",
	} {
		ref, err := verifier.ParseReference(s)
		var e *verifier.Error
		if !errors.As(err, &e) || e.Reason != verifier.ReasonReferenceInvalid {
			t.Errorf("%q: got %v, %v", s, ref, err)
		}
	}
}

func FuzzReference(f *testing.F) {
	for _, s := range []string{"nginx", "shop.example.com:443/cart:1", "a/b@sha256:" + strings.Repeat("0", 64), "[::1]:5000/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ref, err := verifier.ParseReference(s)
		if err != nil {
			return
		}
		again, err := verifier.ParseReference(ref.String())
		if err != nil || again != ref {
			t.Errorf("%q gives %q, which gives %q (%v)", s, ref, again, err)
		}
		if strings.ContainsAny(ref.Registry, "/@ABCDEFGHIJKLMNOPQRSTUVWXYZ") || ref.Registry == "" || ref.Repository == "" {
			t.Errorf("%q: registry %q, repository %q", s, ref.Registry, ref.Repository)
		}
	})
}
